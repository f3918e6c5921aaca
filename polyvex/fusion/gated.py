"""A weighted sum of encoders at each place of one grid, the weights from a learned gate.

The gate is that of "Adaptive Mixtures of Local Experts" (Jacobs et al. 1991), over encoders: with h_i the
projected map of encoder i, weights g = softmax(W [h_1; …; h_E] + b) and the token Σ_i g_i h_i. One g for each token, or
one for the image from the means of the maps. The gate starts at zero, so that the fusion starts as the plain mean.
With one encoder it is ``mlp`` with one patch per token, since that encoder's weight is one.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import nn

from polyvex.fusion.base import Fusion
from polyvex.fusion.projection import ProjectionOptions, check_hidden, projection
from polyvex.fusion.resample import GridOptions, common_grid, grids_of, resample
from polyvex.fusion.weights import EncoderWeights
from polyvex.tokens import TokenShape, VisualTokens


class GatedOptions(GridOptions, ProjectionOptions):
    """Options of the ``gated`` fusion."""

    gate: Literal["sample", "token"] = Field(
        default="token", description="Whether encoders are weighed for each token, or once for the image."
    )


class GatedFusion(Fusion[GatedOptions]):
    """One token per place of the common grid: the encoders' projected tokens, weighed and summed up."""

    Options = GatedOptions
    summary = "a weighted sum of encoders at each place of one grid; a softmax gate weighs them by token or image"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "hidden", "tokens": "grid"})

    def __init__(self, options: GatedOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.grids, self.grid = grids_of(inputs), common_grid(options, inputs)
        self.project = nn.ModuleList(projection(options, shape.dim, dim) for shape in inputs)
        self.gate = nn.Linear(len(inputs) * dim, len(inputs))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.weigh = EncoderWeights()

    @classmethod
    def describe(cls, options: GatedOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """One run on the common grid."""
        check_hidden(options)
        grid = common_grid(options, inputs)
        return [TokenShape(tokens=grid.tokens, dim=dim, grid=grid)]

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Bring maps to one grid, project them, weigh them, sum them up."""
        projected = [
            project(
                resample(part.values, grid, self.grid, self.options.resample, align_corners=self.options.align_corners)
            )
            for project, part, grid in zip(self.project, parts, self.grids, strict=True)
        ]
        maps = torch.stack(projected, dim=2)  # images tokens encoders dim
        seen = rearrange(maps, "images tokens encoders dim -> images tokens (encoders dim)")
        if self.options.gate == "sample":
            weights = self.weigh(self.gate(seen.mean(dim=1)).softmax(dim=-1))[:, None]
        else:
            weights = self.weigh(self.gate(seen).softmax(dim=-1))
        return VisualTokens(values=(weights[..., None] * maps).sum(dim=2), layout=self.layout)
