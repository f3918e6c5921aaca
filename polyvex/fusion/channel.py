"""Channel concatenation: what encoders say of one place, side by side in one vector, through an MLP.

Eagle (arXiv 2408.15998) finds it as good as costlier fusions, on maps that are interpolated to one grid; Prismatic
(arXiv 2402.07865) does it for two encoders of one grid. With x_i the maps on that grid, the token of a place is
MLP([x_1; …; x_E]). With one encoder it is LLaVA-1.5's MLP, as ``mlp`` with one patch per token.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch

from polyvex.fusion.base import Fusion
from polyvex.fusion.projection import ProjectionOptions, check_hidden, projection
from polyvex.fusion.resample import GridOptions, common_grid, grids_of, resample
from polyvex.tokens import TokenShape, VisualTokens


class ChannelOptions(GridOptions, ProjectionOptions):
    """Options of the ``channel`` fusion."""


class ChannelFusion(Fusion[ChannelOptions]):
    """One token per place of the common grid, however many encoders there are."""

    Options = ChannelOptions
    summary = "channels of all encoders side by side at each place of one grid, then an MLP (Eagle, Prismatic)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "hidden", "tokens": "grid"})

    def __init__(self, options: ChannelOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.grids, self.grid = grids_of(inputs), common_grid(options, inputs)
        self.project = projection(options, sum(shape.dim for shape in inputs), dim)

    @classmethod
    def describe(cls, options: ChannelOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """One run on the common grid."""
        check_hidden(options)
        grid = common_grid(options, inputs)
        return [TokenShape(tokens=grid.tokens, dim=dim, grid=grid)]

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Bring maps to one grid, join their channels in the order of the encoders, project."""
        maps = [
            resample(part.values, grid, self.grid, self.options.resample)
            for part, grid in zip(parts, self.grids, strict=True)
        ]
        return VisualTokens(values=self.project(torch.cat(maps, dim=-1)), layout=self.layout)
