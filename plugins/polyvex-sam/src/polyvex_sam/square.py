"""Fit an image into SAM's square: the long side fills it, the rest is padding at the right and at the bottom."""

from jaxtyping import Float
from PIL.Image import Image, Resampling
from torch import Tensor
from torch.nn import functional as F

from polyvex.encoders import Box, normalize

MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
"""SAM's own numbers, which are on the scale 0–255."""


def box_in_square(size: tuple[int, int], side: int) -> Box:
    """Where an image of ``size`` (height, width) lies in a square of ``side`` pixels.

    Sides are rounded as ``ResizeLongestSide.get_preprocess_shape`` of segment-anything rounds them. Where it would
    round a side to nothing, and then fail to resize, one pixel is kept.
    """
    scale = side / max(size)
    height, width = (max(1, int(extent * scale + 0.5)) for extent in size)
    return Box(top=0, left=0, height=height, width=width)


def into_square(image: Image, side: int) -> Float[Tensor, "3 side side"]:
    """Resize an RGB image as its box tells, bilinear with antialias, normalise, and pad with zeros.

    The same pixels as segment-anything's ``ResizeLongestSide.apply_image`` and then ``Sam.preprocess`` give. Padding
    comes after normalising, so that it has the mean's colour, not black.
    """
    box = box_in_square((image.height, image.width), side)
    resized = image.resize((box.width, box.height), Resampling.BILINEAR)
    pixels = normalize(resized, mean=MEAN, std=STD)
    return F.pad(pixels, (0, side - box.width, 0, side - box.height))
