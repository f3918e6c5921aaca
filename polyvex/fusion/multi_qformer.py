"""BRAVE's multi-encoder Q-Former (arXiv 2404.07204): one set of queries looks at the tokens of all encoders at once.

Tokens are projected to one width, encoder by encoder, and put one behind the other; the queries of a Q-Former attend to
all of them. BRAVE also lets the Q-Former read the question, which is not done here: what an image becomes does not
depend on its question. With one encoder it is ``qformer``, but for a first layer where widths are equal already.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from polyvex.fusion.base import Fusion
from polyvex.fusion.qformer_layers import QFormer, QFormerOptions, check_heads
from polyvex.tokens import TokenShape, VisualTokens


class MultiQFormerOptions(QFormerOptions):
    """Options of the ``multi_qformer`` fusion."""

    queries: int = Field(default=160, ge=1, description="Learned queries; each becomes a token.")


class MultiQFormerFusion(Fusion[MultiQFormerOptions]):
    """As many tokens as queries, however many encoders there are. They have no grid."""

    Options = MultiQFormerOptions
    summary = "the queries of one Q-Former look at the tokens of all encoders at once (BRAVE)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "ffn", "tokens": "queries"})

    def __init__(self, options: MultiQFormerOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.ins = nn.ModuleList(nn.Linear(shape.dim, options.width) for shape in inputs)
        self.query_tokens = nn.Parameter(torch.randn(1, options.queries, options.hidden) * 0.02)
        self.qformer = QFormer(options)
        self.out = nn.Linear(options.hidden, dim)

    @classmethod
    def describe(cls, options: MultiQFormerOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """One run of as many tokens as there are queries, without a grid."""
        check_heads(hidden=options.hidden, heads=options.heads)
        return [TokenShape(tokens=options.queries, dim=dim)]

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Let the queries look at all tokens."""
        tokens = torch.cat([layer(part.values) for layer, part in zip(self.ins, parts, strict=True)], dim=1)
        found = self.qformer(self.query_tokens.expand(len(tokens), -1, -1), tokens)
        return VisualTokens(values=self.out(found), layout=self.layout)
