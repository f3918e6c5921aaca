"""Check that results stay on the device of the inputs and weights, also on machines with one device."""

from collections.abc import Callable

from torch import Tensor

from polyvex.encoders import EncoderFacts, VisionEncoder
from polyvex.encoders.inputs import map_inputs, run_encoder
from polyvex.testing.elsewhere import Elsewhere, MixedDevicesError, moved, other_device
from polyvex.testing.modules import M, Outputs
from polyvex.testing.probes import expect, inputs_for, random_pixels


def check_device(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Tokens come out on the device of the pixels and weights."""
    inputs = inputs_for(encoder, random_pixels(facts, 1))
    check_stays_on_device(
        encoder, lambda there, place: {"tokens": run_encoder(there, map_inputs(inputs, place)).values}
    )


def check_stays_on_device(module: M, outputs: Callable[[M, Callable[[Tensor], Tensor]], Outputs]) -> None:
    """A module on another device takes inputs of that device and returns all results there.

    Args:
        outputs: calls the module that it gets, after it moves the inputs by the function that it gets.
    """
    name = type(module).__name__
    there = moved(module)
    advice = "Create tensors on the device of the inputs: torch.zeros(..., device=values.device)"
    with other_device():
        try:
            results = outputs(there, Elsewhere)
        except MixedDevicesError as error:
            raise AssertionError(f"{name} fails when weights and inputs are on a GPU: {error}. {advice}") from error
        except Exception:  # not about devices, and the other checks run the same code
            return
    for key, value in results.items():
        expect(
            isinstance(value, Elsewhere),
            f"{name} returned {key} on the CPU although weights and inputs are on a GPU. {advice}",
        )
