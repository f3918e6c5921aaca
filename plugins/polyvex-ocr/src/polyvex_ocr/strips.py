"""Cut lines of text out of a picture as strips of one height, which is what the recogniser reads."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from polyvex_ocr.lines import Line

HEIGHT = 48
"""Height of a strip in pixels; PP-OCRv4 was trained on it."""

WIDEST = 640
"""A line that would be wider, in pixels of the strip, is cut between words."""

MARGIN = 0.07
"""What a strip shows around its line, as a part of the line's height: cut close, the recogniser misses spaces."""

GAP = 12
"""Over so many columns of a strip, contrast is averaged to find a gap between words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """A line, or a part of one: its RGB pixels, at most 640 wide, and where it is on the picture.

    ``line`` has the strip's left and right, and the line's own top and bottom.
    """

    pixels: UInt8[np.ndarray, "3 48 width"]
    line: Line

    @property
    def width(self) -> int:
        """In pixels of the strip."""
        return self.pixels.shape[2]


def cut_strips(image: Image.Image, lines: list[Line]) -> list[Strip]:
    """Cut all lines out of an RGB picture, in their order; one that is too long becomes several strips."""
    return [strip for line in lines for strip in _strips_of(image, line)]


def _strips_of(image: Image.Image, line: Line) -> Iterator[Strip]:
    margin = MARGIN * (line.bottom - line.top)
    left, right = max(0.0, line.left - margin), min(float(image.width), line.right + margin)
    top, bottom = max(0.0, line.top - margin), min(float(image.height), line.bottom + margin)
    width = max(1, math.ceil(HEIGHT * (right - left) / (bottom - top)))
    scaled = image.resize((width, HEIGHT), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    pixels = np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))
    per_pixel = (right - left) / width
    cuts = find_cuts(pixels)
    for start, stop in zip([0, *cuts], [*cuts, width], strict=True):
        part = Line(left=left + start * per_pixel, top=line.top, right=left + stop * per_pixel, bottom=line.bottom)
        yield Strip(pixels=pixels[:, :, start:stop], line=part)


def find_cuts(pixels: UInt8[np.ndarray, "3 48 width"]) -> list[int]:
    """Columns at which a strip is cut so that no part is wider than 640: each in the widest gap of the half before."""
    from scipy import ndimage

    width = pixels.shape[2]
    if width <= WIDEST:
        return []
    contrast = ndimage.uniform_filter1d(pixels.mean(axis=0).std(axis=0), GAP, mode="nearest")
    cuts = [0]
    while width - cuts[-1] > WIDEST:
        first = cuts[-1] + WIDEST // 2
        cuts.append(first + int(contrast[first : cuts[-1] + WIDEST + 1].argmin()))
    return cuts[1:]
