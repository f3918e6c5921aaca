"""What the checks share: inputs to probe an encoder with, and one way to fail."""

import torch
from jaxtyping import Float
from torch import Tensor

from polyvex.encoders import EncoderFacts, VisionEncoder
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


def encode(encoder: VisionEncoder, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
    """Encode without gradients."""
    with torch.no_grad():
        return encoder(pixels)


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
