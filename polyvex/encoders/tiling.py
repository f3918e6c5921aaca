"""Tiles: an encoder with a small picture sees a large image piece by piece (LLaVA-1.6's AnyRes, and fixed grids)."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from polyvex.encoders.base import Box
from polyvex.encoders.images import to_rgb
from polyvex.options import Options
from polyvex.tokens import Grid

Size = tuple[int, int]
"""Height and width."""

Count = Annotated[int, Field(ge=1, le=64)]
GridOfTiles = Annotated[list[Count], Field(min_length=2, max_length=2)]


class Tiling(Options):
    """``tiling`` of an encoder's table. The defaults are LLaVA-1.6's AnyRes; one grid alone is a fixed tiling."""

    grids: list[GridOfTiles] = Field(
        default=[[2, 1], [1, 2], [2, 2], [1, 3], [3, 1]],
        min_length=1,
        description="Grids of tiles, each [rows, columns]; of several, the one that shows most of an image is taken.",
    )
    base: bool = Field(default=True, description="Also look at the whole image, before its tiles.")
    fit: Literal["unpad", "pad", "squash"] = Field(
        default="unpad",
        description="How an image fills its tiles: with its aspect ratio kept, centred on black, tokens of the border "
        "left out (unpad) or kept (pad); or stretched (squash).",
    )
    newline: bool = Field(default=True, description="End each row of the tiles put together with one learned token.")


@dataclass(frozen=True, kw_only=True)
class Span:
    """The part of one axis that shows the image. ``centred`` cuts the same number from both ends, rounded down."""

    start: Fraction = Fraction(0)
    stop: Fraction = Fraction(1)
    centred: bool = False

    def of(self, count: int) -> tuple[int, int]:
        """First of ``count`` places that shows the image, and how many do; at least one."""
        if self.centred:
            inside = count * (self.stop - self.start)
            margin = min((count - inside.__floor__()) // 2, (count - 1) // 2)
            return margin, count - 2 * margin
        first = min((count * self.start).__floor__(), count - 1)
        return first, max((count * self.stop).__ceil__() - first, 1)


WHOLE = Span()


@dataclass(frozen=True, kw_only=True)
class View:
    """A picture of the image, made of ``rows`` × ``cols`` tiles, and the parts of its axes that show the image.

    ``tiled`` is true of a picture that is cut into tiles, be it into one, and false of the encoder's own picture.
    """

    rows: int = 1
    cols: int = 1
    tiled: bool = False
    vertical: Span = WHOLE
    horizontal: Span = WHOLE

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.rows * self.cols

    def shown(self, tile: Grid) -> tuple[slice, slice]:
        """Rows and columns that show the image, if each tile gives the grid ``tile`` of tokens."""
        top, height = self.vertical.of(self.rows * tile.rows)
        left, width = self.horizontal.of(self.cols * tile.cols)
        return slice(top, top + height), slice(left, left + width)


def view_of(box: Box, picture: Size) -> View:
    """A view of one tile, where only ``box`` of a ``picture`` of so many pixels shows the image."""
    height, width = picture
    return View(
        vertical=Span(start=Fraction(box.top, height), stop=Fraction(box.top + box.height, height)),
        horizontal=Span(start=Fraction(box.left, width), stop=Fraction(box.left + box.width, width)),
    )


def tiled_view(tiling: Tiling, size: Size, tile: Size) -> View:
    """The view of an image of ``size`` in tiles of ``tile`` pixels.

    Counts agree with ``unpad_image`` of LLaVA-1.6 and transformers: what the image covers is rounded down to whole
    tokens, and the rest is cut from both ends alike. One difference is deliberate: of the thinnest images they keep no
    token, :class:`Span` keeps one row or column in the middle.
    """
    rows, cols = choose_grid(tiling, size, tile)
    if tiling.fit != "unpad":
        return View(rows=rows, cols=cols, tiled=True)
    height, width = size
    full = (rows * tile[0], cols * tile[1])
    if width * full[0] > full[1] * height:  # wider than the tiles: a border above and below
        share = Fraction(height * full[1], width * full[0])
        return View(rows=rows, cols=cols, tiled=True, vertical=Span(stop=share, centred=True))
    share = Fraction(width * full[0], height * full[1])
    return View(rows=rows, cols=cols, tiled=True, horizontal=Span(stop=share, centred=True))


def choose_grid(tiling: Tiling, size: Size, tile: Size) -> tuple[int, int]:
    """Rows and columns of tiles for an image: the grid that shows most of its pixels, then the one that wastes least.

    This is LLaVA-1.6's ``select_best_resolution``, floating-point arithmetic included; the first of equals is taken.
    """
    height, width = size

    def worth(grid: list[int]) -> tuple[int, int]:
        full_height, full_width = grid[0] * tile[0], grid[1] * tile[1]
        scale = min(full_width / width, full_height / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - full_height * full_width

    rows, cols = max(tiling.grids, key=worth)
    return rows, cols


def cut(image: Image.Image, tiling: Tiling, tile: Size) -> list[Image.Image]:
    """The tiles of an image, row by row, each of ``tile`` pixels."""
    upright = to_rgb(image)
    rows, cols = choose_grid(tiling, (upright.height, upright.width), tile)
    whole = _filled(upright, (rows * tile[0], cols * tile[1]), stretch=tiling.fit == "squash")
    corners = [(row * tile[0], col * tile[1]) for row in range(rows) for col in range(cols)]
    return [whole.crop((left, top, left + tile[1], top + tile[0])) for top, left in corners]


def _filled(image: Image.Image, full: Size, *, stretch: bool) -> Image.Image:
    """The image resized to ``full``, bicubic: stretched, or as large as fits and centred on black."""
    height, width = full
    if stretch:
        return image.resize((width, height), Image.Resampling.BICUBIC)
    new_height, new_width = resized_size((image.height, image.width), full)
    ground = Image.new("RGB", (width, height))
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    ground.paste(resized, ((width - new_width) // 2, (height - new_height) // 2))
    return ground


def resized_size(size: Size, full: Size) -> Size:
    """Height and width of an image of ``size`` once it fits into ``full`` with its aspect ratio kept.

    This is LLaVA-1.6's ``resize_and_pad_image`` and transformers' ``get_patch_output_size``. The scale is a float as
    there, so that the result is the same: 375 · (672 / 500) is 504.00000000000006, which is rounded up to 505.
    """
    (height, width), (full_height, full_width) = size, full
    across, down = full_width / width, full_height / height
    if across < down:
        return min(math.ceil(height * across), full_height), full_width
    return full_height, min(math.ceil(width * down), full_width)
