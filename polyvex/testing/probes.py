"""What the checks share: inputs to probe an encoder with, and one way to fail."""

import inspect

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from polyvex.encoders import EncoderFacts, EncoderInputs, VisionEncoder
from polyvex.encoders.inputs import map_inputs, run_encoder
from polyvex.tokens import VisualTokens


def expect(condition: bool, message: str) -> None:
    """Fail with ``message`` unless ``condition``. Unlike ``assert``, it also works under ``python -O``.

    Raises:
        AssertionError: with the message.
    """
    if not condition:
        raise AssertionError(message)


def random_pixels(facts: EncoderFacts, images: int, *, seed: int = 0) -> Float[Tensor, "images 3 height width"]:
    """Seeded noise of the size that the encoder's transform gives. The global random state stays as it is."""
    return torch.randn(images, 3, *facts.image_size, generator=torch.Generator().manual_seed(seed))


def inputs_for(encoder: VisionEncoder, pixels: Float[Tensor, "images 3 height width"]) -> EncoderInputs:
    """The pixels, and for an encoder that looks at more, the rest of what its transform gives for a plain image."""
    if len(inspect.signature(encoder.forward).parameters) == 1:
        return pixels
    given = encoder.transform(Image.new("RGB", (40, 30), "gray"))
    expect(
        isinstance(given, dict) and "pixels" in given,
        f"{type(encoder).__name__}.forward takes more than pixels, so its transform must give tensors by name, "
        f"'pixels' among them; got {type(given).__name__}",
    )
    more = {name: value for name, value in given.items() if name != "pixels"}  # type: ignore[union-attr]
    repeated = {name: value[None].expand(len(pixels), *value.shape) for name, value in more.items()}
    return map_inputs(
        {"pixels": pixels, **repeated},
        lambda value: value.to(pixels.dtype) if value.is_floating_point() else value,
    )


def encode(encoder: VisionEncoder, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
    """Encode without gradients."""
    with torch.no_grad():
        return run_encoder(encoder, inputs_for(encoder, pixels))


def largest_difference(
    one: Float[Tensor, "images tokens dim"], other: Float[Tensor, "images tokens dim"]
) -> tuple[float, float]:
    """Largest absolute difference of two outputs, and how much of it is tolerable: 1e-4 of the largest value.

    The tolerance goes with the values, because an untrained network may give values of any size: at 1e-6 an
    absolute tolerance would let everything pass.
    """
    if one.numel() == 0 or one.shape != other.shape:
        return float("inf"), 0.0
    return (one - other).abs().max().item(), 1e-4 * one.abs().max().item()
