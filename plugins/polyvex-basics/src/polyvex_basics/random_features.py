"""A convolutional network that is never trained: its random filters see edges and colours of growing patches."""

from typing import ClassVar

import torch
import torch.nn.functional as F
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

HE_GAIN = 2**0.5
"""Keeps the mean square of values through a layer and its ReLU (He et al., arXiv:1502.01852, eq. 10)."""


class RandomFeaturesOptions(EncoderOptions):
    """Options of ``random-features``."""

    image_size: int = Field(default=64, ge=2, description="Side of the square image in pixels, a multiple of 2^depth.")
    depth: int = Field(default=4, ge=1, le=8, description="Number of layers; each halves the side of the grid.")
    dim: int = Field(default=64, ge=1, description="Filters of each layer, and width of a token.")
    seed: int = Field(default=0, ge=0, description="Seed of the filters; the same seed gives the same filters.")


class RandomFeatures(VisionEncoder[RandomFeaturesOptions]):
    """``depth`` times: 3 × 3 filters, ReLU, mean of 2 × 2. The filters are random and stay so.

    Random filters with rectification and pooling come near trained ones where there are few images to train on
    (Jarrett et al., ICCV 2009), because pooling makes any filter choose frequencies and overlook small shifts (Saxe
    et al., ICML 2011). So this is what structure alone gives, and what a trained encoder must beat.

    Unlike ``patchify``, it is not linear, and a token sees beyond its own patch. The values are a function of the
    options alone: no global random state is read or changed.
    """

    Options: ClassVar[type[EncoderOptions]] = RandomFeaturesOptions
    summary: ClassVar[str] = "a seeded random convolutional network of a few layers; no weights needed"

    def __init__(self, options: RandomFeaturesOptions):
        super().__init__(options)
        self.grid = _grid(options)
        self.filters = nn.ParameterList(torch.empty(options.dim, inputs, 3, 3) for inputs in _inputs(options))
        fill_from_seed(self, options.seed, gain=HE_GAIN)

    @classmethod
    def describe(cls, options: RandomFeaturesOptions) -> EncoderFacts:
        """Tell tokens, grid, width and cost.

        Raises:
            ValueError: if 2 to the power of ``depth`` does not divide ``image_size``.
        """
        filters = [9 * inputs * options.dim for inputs in _inputs(options)]
        places = [(options.image_size >> layer) ** 2 for layer in range(options.depth)]
        return computed_facts(
            side=options.image_size,
            grid=_grid(options),
            dim=options.dim,
            parameters=sum(filters),
            flops=2 * sum(weights * times for weights, times in zip(filters, places, strict=True)),
            source="random filters from the seed",
        )

    @classmethod
    def weights(cls, options: RandomFeaturesOptions) -> WeightsPlace:
        """Nothing is needed."""
        return no_weights()

    def load_pretrained(self) -> WeightsReport:
        """Set the values of the seed, as the constructor did."""
        return fill_from_seed(self, self.options.seed, gain=HE_GAIN)

    def transform(self, image: Image) -> Float[Tensor, "3 height width"]:
        """Resize to a square, bicubic, and scale to -1 … 1."""
        half = (0.5, 0.5, 0.5)
        return normalize(resize_square(image, self.options.image_size), mean=half, std=half)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> VisualTokens:
        """Encode to one token per place of the last layer's grid, row by row."""
        values = pixels
        for filters in self.filters:
            values = F.avg_pool2d(F.relu(F.conv2d(values, filters, padding=1)), 2)
        return VisualTokens.on_grid(rearrange(values, "images dim rows cols -> images (rows cols) dim"), self.grid)


def _inputs(options: RandomFeaturesOptions) -> list[int]:
    """Channels that go into each layer."""
    return [3] + [options.dim] * (options.depth - 1)


def _grid(options: RandomFeaturesOptions) -> Grid:
    side = parts(options.image_size, 2**options.depth, f"2^depth, which is {2**options.depth}")
    return Grid(rows=side, cols=side)
