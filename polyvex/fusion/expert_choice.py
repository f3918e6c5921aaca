"""Expert choice over the tokens of all encoders (arXiv 2202.09368): each network chooses the tokens it works on.

X are the projected tokens of all encoders of an image, [T D]. With S = softmax(X W) over F networks, network f takes
the ⌈T · capacity / F⌉ tokens of greatest S_f, and

    Y_t = X_t + Σ_f S_tf · f(X_t), over the networks f that chose token t.

A token that no network chose passes by. Every network looks at all tokens before it chooses, which is no harm ahead of
the language model; loads are even by themselves, so no loss need balance them.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import gelu

from polyvex.fusion.base import Fusion, FusionOptions
from polyvex.moe.experts import PlainExperts
from polyvex.moe.routers import ExpertChoiceOptions, ExpertChoiceRouter
from polyvex.tokens import TokenShape, VisualTokens


class ExpertChoiceFusionOptions(FusionOptions):
    """Options of the ``expert_choice`` fusion."""

    networks: int = Field(default=4, ge=1, description="Feed-forward networks.")
    capacity: float = Field(default=1.0, gt=0, description="Networks that work on a token, on average.")
    hidden: int | None = Field(
        default=None, ge=1, description="Inner width of the networks; the language model's if left out."
    )


class ExpertChoiceFusion(Fusion[ExpertChoiceFusionOptions]):
    """A linear layer per encoder, then networks that choose among all tokens of an image."""

    Options = ExpertChoiceFusionOptions
    summary = "each feed-forward network chooses tokens among those of all encoders (expert choice)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "hidden"})

    def __init__(self, options: ExpertChoiceFusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.project = nn.ModuleList(nn.Linear(shape.dim, dim) for shape in inputs)
        choice = ExpertChoiceOptions(capacity=options.capacity)
        self.router = ExpertChoiceRouter(choice, dim=dim, num_experts=options.networks)
        self.networks = PlainExperts(
            num_experts=options.networks, dim=dim, hidden=options.hidden or dim, act=gelu, backend="auto"
        )

    @classmethod
    def describe(
        cls, options: ExpertChoiceFusionOptions, *, inputs: Sequence[TokenShape], dim: int
    ) -> list[TokenShape]:
        """A run per encoder, with its tokens and grid as they came.

        Raises:
            ValueError: if more networks should work on a token than there are.
        """
        ExpertChoiceRouter.check(ExpertChoiceOptions(capacity=options.capacity), num_experts=options.networks)
        return [TokenShape(tokens=shape.tokens, dim=dim, grid=shape.grid) for shape in inputs]

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Let networks choose among the tokens of each image, and add what they say."""
        values = torch.cat([layer(part.values) for layer, part in zip(self.project, parts, strict=True)], dim=1)
        tokens = values.flatten(0, 1)
        real = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        said = self.networks(tokens, self.router(tokens, real))
        return VisualTokens(values=values + said.view_as(values), layout=self.layout)
