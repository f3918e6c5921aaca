"""Checks of what an encoder gives out: tokens, their type, their independence, their gradients."""

import copy

import torch

from polyvex.encoders import EncoderFacts, EncoderOptions, VisionEncoder
from polyvex.encoders.inputs import run_encoder
from polyvex.testing.inputs import check_untouched
from polyvex.testing.probes import encode, expect, inputs_for, largest_difference, random_pixels
from polyvex.tokens import VisualTokens


def check_tokens(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Tokens come in the promised number and width, finite, with the promised places."""
    name = type(encoder).__name__
    tokens = encode(encoder, random_pixels(facts, 2))
    expect(isinstance(tokens, VisualTokens), f"{name} returned {type(tokens).__name__}; expected VisualTokens")
    got, wanted = tuple(tokens.values.shape), (2, facts.shape.tokens, facts.shape.dim)
    expect(len(got) == 3 and got[0] == 2, f"{name} returned values of shape {got} for 2 images; expected {wanted}")
    expect(
        got[1] == wanted[1],
        f"{name} returned {got[1]} tokens per image; describe says {wanted[1]}"
        + (" (is a class token left in?)" if got[1] == wanted[1] + 1 else ""),
    )
    expect(got[2] == wanted[2], f"{name}'s tokens are {got[2]} wide; describe says {wanted[2]}")
    expect(bool(tokens.values.isfinite().all()), f"{name} returned values that are not finite")
    coords = facts.shape.coords()
    expect(
        tokens.layout.coords.shape == coords.shape and bool((tokens.layout.coords.cpu() == coords).all()),
        f"{name}'s layout does not give its tokens the places of the grid {facts.shape.grid}; "
        "return VisualTokens.on_grid(values, grid) with the grid of describe",
    )
    expect(bool((tokens.layout.source == 0).all()), f"{name}'s layout has sources other than 0; an encoder is one")


def check_inputs_kept(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """The forward leaves pixels, further inputs and weights as they are."""
    inputs = inputs_for(encoder, random_pixels(facts, 2))
    named = inputs if isinstance(inputs, dict) else {"pixels": inputs}
    check_untouched(encoder, named, lambda: run_encoder(encoder, inputs))


def check_same_twice(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """The same pixels give the same tokens, whatever the global random state is."""
    name = type(encoder).__name__
    pixels = random_pixels(facts, 2)
    outputs = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            outputs.append(encode(encoder, pixels).values)
    difference, allowed = largest_difference(*outputs)
    expect(
        difference <= allowed,
        f"{name} gave two outputs for the same pixels (largest difference {difference:.3g}); "
        "in eval mode nothing may be random",
    )


def check_batch_independence(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """An image's tokens do not depend on which images share its batch, nor on how many do."""
    pixels = random_pixels(facts, 4)
    pixels[2:] = pixels[2:] * 3 + 2  # mates of another mean and deviation: what a leaking batch norm would pick up
    alone = torch.cat([encode(encoder, image[None]).values for image in pixels])
    for picked in ([0, 1, 2, 3], [3, 0], [2, 2, 1]):
        together = encode(encoder, pixels[picked]).values
        difference, allowed = largest_difference(together, alone[picked])
        expect(
            difference <= allowed,
            f"{type(encoder).__name__}: an image's tokens depend on the other images of its batch "
            f"(largest difference {difference:.3g}, allowed {allowed:.3g}); is a batch norm in training mode?",
        )


def check_dtype(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Tokens have the type of the weights and pixels: float32 in, float32 out; the same for float64."""
    pixels = random_pixels(facts, 1)
    for dtype in (torch.float32, torch.float64):
        name = f"{type(encoder).__name__} in {dtype}"
        try:
            got = encode(copy.deepcopy(encoder).to(dtype), pixels.to(dtype)).values.dtype
        except RuntimeError as error:
            raise AssertionError(f"{name} fails: {error}. Make no tensors of a fixed type in forward") from error
        expect(got == dtype, f"{name} returned {got}; expected the type that came in")


def check_gradients(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Frozen, the encoder builds no graph; unfrozen, gradients reach its parameters."""
    name = type(encoder).__name__
    inputs = inputs_for(encoder, random_pixels(facts, 1))
    probe = copy.deepcopy(encoder).requires_grad_(False)
    with torch.enable_grad():
        expect(
            not run_encoder(probe, inputs).values.requires_grad,
            f"{name} returned tokens that require a gradient although all its parameters are frozen",
        )
        parameters = dict(probe.requires_grad_(True).named_parameters())
        if not parameters:
            return
        values = run_encoder(probe, inputs).values
        expect(
            values.requires_grad,
            f"{name} cuts the gradient, so that no recipe could train it; leave torch.no_grad and detach to the caller",
        )
        values.square().mean().backward()
    reached = [key for key, parameter in parameters.items() if parameter.grad is not None]
    expect(bool(reached), f"{name}: no parameter gets a gradient from the tokens")


def check_state_dict(
    encoder_class: type[VisionEncoder], options: EncoderOptions, encoder: VisionEncoder, facts: EncoderFacts
) -> None:
    """The state dict is all there is: an encoder built on ``meta`` that takes it over gives the same tokens."""
    name = encoder_class.__name__
    with torch.device("meta"):
        copied = encoder_class(options)
    copied.load_state_dict(encoder.state_dict(), strict=True, assign=True)
    left = [key for key, value in [*copied.named_parameters(), *copied.named_buffers()] if value.device.type == "meta"]
    expect(
        not left,
        f"{name}: {', '.join(left[:4])} is not in the state dict, so a checkpoint cannot bring it back; "
        "make it a persistent buffer, or compute it in forward",
    )
    pixels = random_pixels(facts, 2)
    try:
        values = encode(copied.eval(), pixels).values
    except Exception as error:
        raise AssertionError(
            f"{name} cannot encode after it was built on meta and took over a state dict: {error}. "
            "Does it keep a tensor that is neither a parameter nor a buffer?"
        ) from error
    difference, allowed = largest_difference(values, encode(encoder, pixels).values)
    expect(
        difference <= allowed,
        f"{name} gives other tokens after its state dict went through a new instance "
        f"(largest difference {difference:.3g}); something that matters is not in the state dict",
    )
