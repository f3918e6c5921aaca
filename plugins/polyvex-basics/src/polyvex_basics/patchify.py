"""Cut the image into patches, and send each through one random linear map."""

from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from PIL.Image import Image
from pydantic import Field
from torch import Tensor, nn

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
from polyvex_basics.computed import computed_facts, fill_from_seed, no_weights, parts


class PatchifyOptions(EncoderOptions):
    """Options of ``patchify``."""

    image_size: int = Field(default=64, ge=1, description="Side of the square image in pixels.")
    patch_size: int = Field(default=16, ge=1, description="Side of a patch in pixels; it must divide image_size.")
    dim: int = Field(default=64, ge=1, description="Width of a token.")
    seed: int = Field(default=0, ge=0, description="Seed of the linear map; the same seed gives the same map.")


class Patchify(VisionEncoder[PatchifyOptions]):
    """The first step of a vision transformer (arXiv:2010.11929, eq. 1) with random values, and nothing after it.

    A random projection keeps distances between patches, so its tokens do tell something of the image. The values are
    a function of the options alone: no global random state is read or changed.
    """

    Options: ClassVar[type[EncoderOptions]] = PatchifyOptions
    summary: ClassVar[str] = "patches through one seeded random linear map; no weights needed"

    def __init__(self, options: PatchifyOptions):
        super().__init__(options)
        self.grid = _grid(options)
        self.projection = nn.Parameter(torch.empty(options.dim, 3 * options.patch_size**2))
        fill_from_seed(self, options.seed, gain=1.0)

    @classmethod
    def describe(cls, options: PatchifyOptions) -> EncoderFacts:
        """Tell tokens, grid, width and cost.

        Raises:
            ValueError: if ``patch_size`` does not divide ``image_size``.
        """
        grid = _grid(options)
        parameters = options.dim * 3 * options.patch_size**2
        return computed_facts(
            side=options.image_size,
            grid=grid,
            dim=options.dim,
            parameters=parameters,
            flops=2 * grid.tokens * parameters,
            source="random values from the seed",
        )

    @classmethod
    def weights(cls, options: PatchifyOptions) -> WeightsPlace:
        """Nothing is needed."""
        return no_weights()

    def load_pretrained(self) -> WeightsReport:
        """Set the values of the seed, as the constructor did: each output has variance 1 for inputs of variance 1."""
        return fill_from_seed(self, self.options.seed, gain=1.0)

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize to a square, bicubic, and scale to -1 … 1."""
        half = (0.5, 0.5, 0.5)
        return normalize(resize_square(image, self.options.image_size), mean=half, std=half)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode each patch by itself, row by row."""
        side = self.options.patch_size
        patches = rearrange(
            pixels,
            "images channels (rows height) (cols width) -> images (rows cols) (channels height width)",
            height=side,
            width=side,
        )
        return VisualTokens.on_grid(patches @ self.projection.t(), self.grid)


def _grid(options: PatchifyOptions) -> Grid:
    side = parts(options.image_size, options.patch_size, f"patch_size {options.patch_size}")
    return Grid(rows=side, cols=side)
