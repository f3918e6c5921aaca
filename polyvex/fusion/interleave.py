"""Interleaving: each encoder's tokens on one grid, those of one place side by side.

This is the interleaved mixture of features of arXiv 2401.06209, with CLIP and DINOv2 there: each encoder is projected
by itself, and places keep their order. LEO (arXiv 2501.06986) interleaves by tiles. With one encoder it is ``mlp``
with one patch per token.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from polyvex.fusion.base import Fusion
from polyvex.fusion.projection import ProjectionOptions, check_hidden, projection
from polyvex.fusion.resample import GridOptions, common_grid, grids_of, resample
from polyvex.tokens import TokenShape


class InterleaveOptions(GridOptions, ProjectionOptions):
    """Options of the ``interleave`` fusion."""


class InterleaveFusion(Fusion[InterleaveOptions]):
    """An MLP per encoder. Runs come out whole; the model then puts the tokens of one place side by side."""

    Options = InterleaveOptions
    separate = True
    interleaves = True
    summary = "an MLP per encoder; the tokens of one place side by side (interleaved mixture of features)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "hidden", "tokens": "grid"})

    def __init__(self, options: InterleaveOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.grids, self.grid = grids_of(inputs), common_grid(options, inputs)
        self.project = nn.ModuleList(projection(options, shape.dim, dim) for shape in inputs)

    @classmethod
    def describe(cls, options: InterleaveOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """For each encoder a run on the common grid."""
        check_hidden(options)
        grid = common_grid(options, inputs)
        return [TokenShape(tokens=grid.tokens, dim=dim, grid=grid) for _ in inputs]

    def fuse_one(self, index: int, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images out dim"]:
        """Bring one encoder's tokens to the common grid, and project them."""
        return self.project[index](
            resample(
                values, self.grids[index], self.grid, self.options.resample, align_corners=self.options.align_corners
            )
        )
