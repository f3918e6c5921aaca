"""Check that a transform scales brightness as its network was trained: by a fixed mean and deviation per channel."""

import torch
from jaxtyping import Float
from torch import Tensor

from polyvex.encoders import EncoderFacts, VisionEncoder
from polyvex.encoders.inputs import pixels_of
from polyvex.testing.pictures import plain
from polyvex.testing.probes import expect

LEVELS = (0, 64, 128, 192, 255)
"""Greys of the images, black first and white last."""


def check_brightness(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Grey images become pixels of one value per channel, and that value is a linear function of the grey.

    So the transform subtracts a mean and divides by a deviation that are its own, and not those of each image.
    """
    name = type(encoder).__name__
    means = torch.stack([_channels(encoder, facts, level) for level in LEVELS])
    black, white = means[0], means[-1]
    span = (white - black).abs()
    expect(
        bool((span > 1e-3).all()),
        f"{name}.transform gives the same values of a channel for black and for white; "
        "scale each channel by the mean and deviation that the network was trained with",
    )
    share = torch.tensor(LEVELS)[:, None] / 255
    bend = ((means - (black + share * (white - black))).abs() / span).max().item()
    expect(
        bend <= 0.01,
        f"{name}.transform bends brightness: from black to white, its values leave the straight line by "
        f"{bend:.1%} of the way; scale by one mean and one deviation per channel",
    )


def _channels(encoder: VisionEncoder, facts: EncoderFacts, level: int) -> Float[Tensor, " channels"]:
    """The value of each channel where the pixels show an image of one grey."""
    name = type(encoder).__name__
    height, width = facts.image_size
    box = type(encoder).content(encoder.options, (height, width))
    pixels = pixels_of(encoder.transform(plain((level, level, level), height, width)))
    shown = pixels[:, box.top : box.top + box.height, box.left : box.left + box.width].flatten(1)
    spread = (shown.amax(dim=1) - shown.amin(dim=1)).max().item()
    expect(
        spread <= 0.01 * max(1.0, shown.abs().max().item()),
        f"{name}.transform gives pixels that differ by {spread:.3g} within a channel for an image of one grey; "
        "is there padding that content() does not tell, or a mean that differs from place to place?",
    )
    return shown.mean(dim=1)
