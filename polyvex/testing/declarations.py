"""Checks of what an encoder says of itself before it is built: options, facts, and where its weights are."""

import inspect

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polyvex.encoders import EncoderFacts, EncoderOptions, VisionEncoder, WeightsPlace
from polyvex.options import Options
from polyvex.testing.probes import encode, expect, random_pixels
from polyvex.testing.variants import check_refuses_by_value_error


def check_options_class(component: type, options: Options, base: type[Options]) -> None:
    """The component has a one-line summary, its own options class, and each option tells what it is for."""
    name = component.__name__
    abstract = sorted(getattr(component, "__abstractmethods__", ()))
    expect(not abstract, f"{name} does not implement {', '.join(abstract)}")
    summary = getattr(component, "summary", "")
    expect(
        isinstance(summary, str) and bool(summary.strip()) and "\n" not in summary,
        f"{name}.summary is {summary!r}; expected one line for listings",
    )
    own = getattr(component, "Options", None)
    expect(
        isinstance(own, type) and issubclass(own, base),
        f"{name}.Options is {own!r}; expected a subclass of {base.__name__}",
    )
    expect(
        isinstance(options, component.Options),
        f"the options are {type(options).__name__}; expected {name}.Options",
    )
    bare = [key for key, field in type(options).model_fields.items() if not (field.description or "").strip()]
    expect(not bare, f"{name}.Options: no description for {', '.join(bare)}; write Field(..., description=...)")


def check_declaration(encoder_class: type[VisionEncoder], options: EncoderOptions) -> EncoderFacts:
    """The class declares itself completely, and its facts do not contradict one another. Returns the facts."""
    name = encoder_class.__name__
    check_options_class(encoder_class, options, EncoderOptions)
    needed = [
        parameter.name
        for parameter in inspect.signature(encoder_class).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    expect(len(needed) == 1, f"{name}'s constructor needs {needed}; expected the options and nothing else")
    facts = encoder_class.describe(options)
    expect(isinstance(facts, EncoderFacts), f"{name}.describe returned {type(facts).__name__}; expected EncoderFacts")
    shape = facts.shape
    expect(
        shape.grid is None or shape.grid.tokens == shape.tokens,
        f"{name}.describe says {shape.tokens} tokens on a grid of {shape.grid}; expected rows × columns tokens",
    )
    expect(bool(facts.source.strip()), f"{name}.describe gives no source; say who trained it on what")
    expect(bool(facts.license.name.strip()), f"{name}.describe gives no licence name; say under which its weights are")
    place = encoder_class.weights(options)
    expect(isinstance(place, WeightsPlace), f"{name}.weights returned {type(place).__name__}; expected WeightsPlace")
    expect(not place.needed or bool(place.install.strip()), f"{name}.weights does not say how to install the weights")
    expect(
        place.path is None or place.path.exists(), f"{name}.weights says {place.path}, where there is nothing; say None"
    )
    return facts


def check_bad_options(encoder_class: type[VisionEncoder], options: EncoderOptions) -> None:
    """``describe`` and ``weights`` answer for all options that the class accepts, or raise a ValueError."""

    def declare(changed: Options) -> None:
        facts = encoder_class.describe(changed)  # type: ignore[arg-type]
        expect(isinstance(facts, EncoderFacts), f"describe returned {type(facts).__name__}; expected EncoderFacts")
        encoder_class.weights(changed)  # type: ignore[arg-type]

    check_refuses_by_value_error(encoder_class.__name__, options, "describe", declare)


def check_parameters(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """The facts count the parameters exactly: plans and costs are computed from them."""
    real = sum(parameter.numel() for parameter in encoder.parameters())
    expect(
        facts.parameters == real,
        f"{type(encoder).__name__}.describe says {facts.parameters:,} parameters; the built encoder has {real:,}",
    )


def check_flops(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Where the facts state a cost, it is within 5 % of what one forward really multiplies and adds."""
    if facts.flops is None:
        return
    # The counter does not know the CPU's fused attention, so attention runs as plain matrix products here.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encode(encoder, random_pixels(facts, 1))
    real = counter.get_total_flops()
    expect(
        abs(facts.flops - real) <= 0.05 * max(real, 1),
        f"{type(encoder).__name__}.describe says {facts.flops:,} flops; one image's forward takes {real:,} "
        "(a multiplication and an addition count as two). Correct it, or say None",
    )


def check_meta(encoder_class: type[VisionEncoder], options: EncoderOptions, encoder: VisionEncoder) -> None:
    """The constructor works under ``torch.device("meta")``, where a model is planned without memory."""
    name = encoder_class.__name__
    try:
        with torch.device("meta"):
            planned = encoder_class(options)
    except Exception as error:
        raise AssertionError(
            f'{name} cannot be built under torch.device("meta"): {type(error).__name__}: {error}. '
            "The constructor must build the structure only, without reading files or values"
        ) from error
    heavy = [key for key, parameter in planned.named_parameters() if parameter.device.type != "meta"]
    expect(
        not heavy,
        f'{name}, built under torch.device("meta"), takes memory for {", ".join(heavy[:4])}; '
        "make parameters with torch.empty and fill them afterwards",
    )
    shapes = [{key: tuple(value.shape) for key, value in one.state_dict().items()} for one in (planned, encoder)]
    expect(
        shapes[0] == shapes[1],
        f'{name} has other keys or shapes under torch.device("meta"): '
        f"{sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[:4]}",
    )
