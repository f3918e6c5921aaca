"""Reducers that go by neighbourhoods: averages, joined channels, attention within windows, patches along a row."""

from typing import Annotated

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.reducers.base import Reducer, ReducerOptions, windows
from polyvex.tokens import Grid, TokenShape

Size = Annotated[int, Field(ge=1)]


class WindowOptions(ReducerOptions):
    """Options of reducers that cut the grid into windows."""

    size: Size = Field(default=2, description="Rows and columns of a window, which becomes one token.")


class AveragePool(Reducer[WindowOptions]):
    """The mean of each window."""

    Options = WindowOptions
    summary = "the mean of each window of size x size places"

    @classmethod
    def describe(cls, options: WindowOptions, *, shape: TokenShape) -> TokenShape:
        """A grid that is ``size`` times smaller each way, of the same width."""
        grid = windows(shape, options.size)
        return TokenShape(tokens=grid.tokens, dim=shape.dim, grid=grid)

    def forward(self, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images fewer width"]:
        """Average each window."""
        return _cut(values, self.given.grid, self.options.size).mean(dim=2)


class PixelShuffle(Reducer[WindowOptions]):
    """The places of each window side by side as channels: fewer and wider tokens, and nothing is lost.

    InternVL and SmolVLM call it so; it is the inverse of what torch calls it (``pixel_unshuffle`` there).
    """

    Options = WindowOptions
    summary = "the places of each window joined as channels: size² times fewer and wider tokens"

    @classmethod
    def describe(cls, options: WindowOptions, *, shape: TokenShape) -> TokenShape:
        """A grid that is ``size`` times smaller each way, of ``size``² times the width."""
        grid = windows(shape, options.size)
        return TokenShape(tokens=grid.tokens, dim=shape.dim * options.size**2, grid=grid)

    def forward(self, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images fewer wider"]:
        """Join each window, row by row."""
        return rearrange(
            _cut(values, self.given.grid, self.options.size), "images fewer n width -> images fewer (n width)"
        )


class AttentionPool(Reducer[WindowOptions]):
    """A weighted mean of each window: a learned query attends to its places. Starts as the plain mean."""

    Options = WindowOptions
    summary = "a learned query attends to the places of each window; starts as their mean"

    def __init__(self, options: WindowOptions, *, shape: TokenShape):
        super().__init__(options, shape=shape)
        self.query = nn.Parameter(torch.zeros(shape.dim))
        self.key = nn.Linear(shape.dim, shape.dim, bias=False)

    @classmethod
    def describe(cls, options: WindowOptions, *, shape: TokenShape) -> TokenShape:
        """A grid that is ``size`` times smaller each way, of the same width."""
        grid = windows(shape, options.size)
        return TokenShape(tokens=grid.tokens, dim=shape.dim, grid=grid)

    def forward(self, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images fewer width"]:
        """Weigh the places of each window by softmax(q · K x / √width), and sum them up."""
        cut = _cut(values, self.given.grid, self.options.size)
        scores = self.key(cut) @ self.query / self.given.dim**0.5
        return (scores.softmax(dim=2)[..., None] * cut).sum(dim=2)


class PatchesOptions(ReducerOptions):
    """Options of ``patches``."""

    count: Size = Field(default=2, description="Neighbours along a row that become one token.")


class Patches(Reducer[PatchesOptions]):
    """MouSi's multi-patch-one-token ahead of the fusion: neighbours along a row side by side as channels."""

    Options = PatchesOptions
    summary = "neighbours along a row joined as channels (MouSi)"

    @classmethod
    def describe(cls, options: PatchesOptions, *, shape: TokenShape) -> TokenShape:
        """``count`` times fewer and wider tokens; a grid keeps its rows."""
        across = shape.grid.cols if shape.grid else shape.tokens
        if across % options.count:
            fits = [number for number in range(1, across + 1) if across % number == 0]
            what = "columns" if shape.grid else "tokens"
            raise ValueError(
                f"count = {options.count} does not divide its {across} {what}. Use one of {', '.join(map(str, fits))}"
            )
        grid = Grid(rows=shape.grid.rows, cols=across // options.count) if shape.grid else None
        return TokenShape(tokens=shape.tokens // options.count, dim=shape.dim * options.count, grid=grid)

    def forward(self, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images fewer wider"]:
        """Join neighbours."""
        return rearrange(values, "images (fewer n) width -> images fewer (n width)", n=self.options.count)


def _cut(
    values: Float[Tensor, "images tokens width"], grid: Grid | None, size: int
) -> Float[Tensor, "images windows places width"]:
    """The places of each window, row by row."""
    assert grid is not None  # describe() refused it otherwise
    return rearrange(
        values,
        "images (R r C c) width -> images (R C) (r c) width",
        R=grid.rows // size,
        C=grid.cols // size,
        r=size,
        c=size,
    )
