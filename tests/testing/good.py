"""A good encoder, small enough to be checked in a moment. Tests break it in one way each."""

from pathlib import Path
from typing import ClassVar

import torch
from PIL.Image import Image
from pydantic import Field
from torch import Tensor, nn

from polyvex.encoders import (
    EncoderFacts,
    EncoderOptions,
    License,
    VisionEncoder,
    WeightsPlace,
    WeightsReport,
    normalize,
    resize_square,
)
from polyvex.tokens import Grid, TokenShape, VisualTokens

SIDE, PATCH, DIM = 32, 8, 12
GRID = Grid(rows=4, cols=4)
HALF = (0.5, 0.5, 0.5)


class GoodOptions(EncoderOptions):
    gain: int = Field(default=1, description="Factor of all tokens.")


class Good(VisionEncoder):
    """One convolution and a batch norm, with 'pretrained' weights that are all 0.25 plus a ramp."""

    Options: ClassVar[type[EncoderOptions]] = GoodOptions
    summary: ClassVar[str] = "a good encoder"
    options: GoodOptions
    parameters_told: ClassVar[int] = 3 * PATCH**2 * DIM + DIM + 2 * DIM
    flops_told: ClassVar[int | None] = 2 * 3 * PATCH**2 * DIM * GRID.tokens
    shape_told: ClassVar[TokenShape] = TokenShape(tokens=GRID.tokens, dim=DIM, grid=GRID)

    def __init__(self, options: GoodOptions):
        super().__init__(options)
        self.conv = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.norm = nn.BatchNorm2d(DIM)

    @classmethod
    def describe(cls, options: EncoderOptions) -> EncoderFacts:
        return EncoderFacts(
            shape=cls.shape_told,
            image_size=(SIDE, SIDE),
            parameters=cls.parameters_told,
            flops=cls.flops_told,
            license=License(name="MIT", commercial=True),
            source="a test",
        )

    @classmethod
    def weights(cls, options: EncoderOptions) -> WeightsPlace:
        return WeightsPlace(path=Path(__file__), install="pip install nothing")

    def load_pretrained(self) -> WeightsReport:
        state = self.state_dict()
        for value in state.values():
            ramp = 0.25 + torch.arange(value.numel()).reshape(value.shape) / max(1, value.numel())
            value.copy_(ramp.to(value.dtype))
        return WeightsReport(source="a test", sha256="0" * 64, loaded=list(state))

    def transform(self, image: Image) -> Tensor:
        return normalize(resize_square(image, SIDE), mean=HALF, std=HALF)

    def features(self, pixels: Tensor) -> Tensor:
        """(images, tokens, dim), row by row."""
        return self.norm(self.conv(pixels)).flatten(2).transpose(1, 2)

    def forward(self, pixels: Tensor) -> VisualTokens:
        return VisualTokens.on_grid(self.features(pixels), GRID)
