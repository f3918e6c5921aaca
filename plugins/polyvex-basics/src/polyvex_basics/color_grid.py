"""Mean and deviation of the colour in each cell of a grid."""

import hashlib
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from polyvex.encoders import (
    EncoderFacts,
    EncoderOptions,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    normalize,
    resize_square,
)
from polyvex.tokens import Grid, VisualTokens
from polyvex_basics.computed import computed_facts, no_weights, parts


class ColorGridOptions(EncoderOptions):
    """Options of ``color-grid``."""

    image_size: int = Field(default=64, ge=1, description="Side of the square image in pixels.")
    rows: int = Field(default=4, ge=1, description="Rows of cells; must divide image_size.")
    cols: int = Field(default=4, ge=1, description="Columns of cells; must divide image_size.")


class ColorGrid(VisionEncoder[ColorGridOptions]):
    """Six numbers per cell: mean red, green and blue, then their deviations, all of values from 0 to 1.

    It has no weights at all, and its tokens can be checked with pencil and paper.
    """

    Options: ClassVar[type[EncoderOptions]] = ColorGridOptions
    summary: ClassVar[str] = "mean and deviation of the colour in each cell of a grid; no weights needed"

    def __init__(self, options: ColorGridOptions):
        super().__init__(options)
        self.grid = _grid(options)

    @classmethod
    def describe(cls, options: ColorGridOptions) -> EncoderFacts:
        """Tell tokens and grid.

        Raises:
            ValueError: if ``rows`` or ``cols`` does not divide ``image_size``.
        """
        return computed_facts(side=options.image_size, grid=_grid(options), dim=6, source="a formula")

    @classmethod
    def weights(cls, options: ColorGridOptions) -> WeightsPlace:
        """Nothing is needed."""
        return no_weights()

    def load_pretrained(self) -> WeightsReport:
        """There is nothing to load; the digest is of the options."""
        digest = hashlib.sha256(self.options.model_dump_json().encode()).hexdigest()
        return WeightsReport(source="(a formula, without weights)", sha256=digest, loaded=[])

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize to a square, bicubic, with values from 0 to 1."""
        square = resize_square(image, self.options.image_size)
        return normalize(square, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode each cell by itself, row by row."""
        cells = rearrange(
            pixels,
            "images channels (rows height) (cols width) -> images (rows cols) channels (height width)",
            rows=self.grid.rows,
            cols=self.grid.cols,
        )
        values = torch.cat([cells.mean(dim=-1), cells.std(dim=-1, correction=0)], dim=-1)
        return VisualTokens.on_grid(values, self.grid)


def _grid(options: ColorGridOptions) -> Grid:
    for name in ("rows", "cols"):
        count = getattr(options, name)
        parts(options.image_size, count, f"{name}, which is {count}")
    return Grid(rows=options.rows, cols=options.cols)
