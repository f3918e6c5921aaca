"""A question chooses encoders, and a weighted sum of the chosen ones comes out at each place of one grid.

The idea is MoVA's (arXiv 2404.13046), where the language model itself names the encoders that an image and a question
need, and an adapter fuses them. Here a gate chooses, from the mean embedding q of the question:
p = softmax(W LN(q) + b) over encoders, of which the ``k`` largest are kept and brought to a sum of one,
g_i = p_i / Σ_kept p. The token of a place is Σ_kept g_i h_i, with h_i the projected map of encoder i. With k = 1 that
weight is one whatever p is; its gradient is then taken as if the divisor were constant, so that the gate learns. With
one encoder it is ``mlp`` with one patch per token.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.fusion.base import Choice, Fusion
from polyvex.fusion.projection import ProjectionOptions, check_hidden, projection
from polyvex.fusion.resample import GridOptions, common_grid, grids_of, resample
from polyvex.fusion.weights import EncoderWeights
from polyvex.tokens import TokenShape, VisualTokens


class RoutedOptions(GridOptions, ProjectionOptions):
    """Options of the ``routed`` fusion."""

    k: int = Field(default=2, ge=1, description="At most so many encoders count for an image.")


class RoutedFusion(Fusion[RoutedOptions]):
    """One token per place of the common grid, from the encoders that :meth:`choose` chose.

    The model asks :meth:`choose` with each image's question, and runs only encoders that count for some image of the
    batch. Without a choice no question is known: then all encoders count, for all images alike, by the weights p that
    the gate gives a question whose embedding is zero.
    """

    Options = RoutedOptions
    routes = True
    summary = "the question chooses encoders; a weighted sum of them at each place of one grid (after MoVA)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "hidden", "tokens": "grid"})

    def __init__(self, options: RoutedOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.grids, self.grid = grids_of(inputs), common_grid(options, inputs)
        self.project = nn.ModuleList(projection(options, shape.dim, dim) for shape in inputs)
        self.gate = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, len(inputs)))
        self.weigh = EncoderWeights()

    @classmethod
    def describe(cls, options: RoutedOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """One run on the common grid."""
        check_hidden(options)
        grid = common_grid(options, inputs)
        return [TokenShape(tokens=grid.tokens, dim=dim, grid=grid)]

    def choose(self, question: Float[Tensor, "images dim"]) -> Choice:
        """The ``k`` encoders that the gate gives most for each image's question; all others weigh zero."""
        given = self.gate(question).softmax(dim=-1)
        kept, index = given.topk(min(self.options.k, len(self.project)), dim=-1)
        total = kept.sum(dim=-1, keepdim=True)
        kept = kept / (total.detach() if self.options.k == 1 else total)
        return Choice(weights=torch.zeros_like(given).scatter(-1, index, kept))

    def forward(self, parts: Sequence[VisualTokens], choice: Choice | None = None) -> VisualTokens:
        """Bring maps to one grid, project them, and sum them up by the weights of ``choice``.

        The tokens of an encoder that weighs zero for an image may be anything finite there, such as zeros.
        """
        if choice is None:
            unasked = self.gate(parts[0].values.new_zeros(1, self.dim)).softmax(dim=-1)
            choice = Choice(weights=unasked.expand(len(parts[0].values), -1))
        weights = self.weigh(choice.weights)
        projected = [
            project(
                resample(part.values, grid, self.grid, self.options.resample, align_corners=self.options.align_corners)
            )
            for project, part, grid in zip(self.project, parts, self.grids, strict=True)
        ]
        values = torch.einsum("be,betd->btd", weights, torch.stack(projected, dim=1))
        return VisualTokens(values=values, layout=self.layout)
