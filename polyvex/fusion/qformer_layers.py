"""BLIP-2's Q-Former without its text branch (arXiv 2301.12597, §3.1): learned queries look at tokens, layer by layer.

Each layer lets the queries attend to one another, in every ``cross_every``-th layer also to the tokens, and then puts
them through a feed-forward network; norms come after the residuals, as in BERT. Parameters are named as those of
transformers' ``Blip2QFormerModel``, so that weights of BLIP-2 fit. There is no dropout.
"""

from typing import Self

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.fusion.base import FusionOptions

EPS = 1e-12  # of all norms, as BERT and BLIP-2 have it


class QFormerOptions(FusionOptions):
    """Options of fusions that have a Q-Former. The defaults are BLIP-2's."""

    queries: int = Field(default=32, ge=1, description="Learned queries; each becomes a token.")
    hidden: int = Field(default=768, ge=1, description="Width of the queries.")
    layers: int = Field(default=12, ge=1, description="Layers.")
    heads: int = Field(default=12, ge=1, description="Attention heads; they must divide hidden.")
    ffn: int = Field(default=3072, ge=1, description="Inner width of the feed-forward networks.")
    cross_every: int = Field(default=2, ge=1, description="The queries look at the tokens in every so many layers.")
    width: int = Field(default=1408, ge=1, description="Width in which the queries see the tokens.")

    @classmethod
    def example(cls) -> Self:
        """A small one: the defaults make a network of 105 million parameters."""
        return cls(queries=4, hidden=16, layers=3, heads=2, ffn=32, width=24)


def check_heads(*, hidden: int, heads: int) -> None:
    """Make sure that the heads divide the width.

    Raises:
        ValueError: if they do not. Says which numbers do.
    """
    if hidden % heads:
        fits = [number for number in range(1, 65) if hidden % number == 0]
        raise ValueError(f"heads = {heads} does not divide hidden = {hidden}. Use one of {', '.join(map(str, fits))}")


class QFormer(nn.Module):
    """Queries in, queries out: they have looked at the tokens."""

    def __init__(self, options: QFormerOptions):
        super().__init__()
        layers = [QFormerLayer(options, crosses=index % options.cross_every == 0) for index in range(options.layers)]
        self.layernorm = nn.LayerNorm(options.hidden, eps=EPS)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(
        self, queries: Float[Tensor, "images queries hidden"], tokens: Float[Tensor, "images tokens width"]
    ) -> Float[Tensor, "images queries hidden"]:
        """Let the queries of each image look at its tokens."""
        found = self.layernorm(queries)
        for layer in self.encoder["layer"]:  # type: ignore[union-attr]
            found = layer(found, tokens)
        return found


class QFormerLayer(nn.Module):
    """Attention among the queries, attention to the tokens if it ``crosses``, feed-forward."""

    def __init__(self, options: QFormerOptions, *, crosses: bool):
        super().__init__()
        self.attention = Attention(options, seen=options.hidden)
        self.crossattention = Attention(options, seen=options.width) if crosses else None
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(options.hidden, options.ffn)})
        self.output_query = AddAndNorm(options.ffn, options.hidden)

    def forward(
        self, queries: Float[Tensor, "images queries hidden"], tokens: Float[Tensor, "images tokens width"]
    ) -> Float[Tensor, "images queries hidden"]:
        """One layer."""
        found = self.attention(queries, queries)
        if self.crossattention is not None:
            found = self.crossattention(found, tokens)
        return self.output_query(F.gelu(self.intermediate_query["dense"](found)), found)


class Attention(nn.Module):
    """Multi-head attention of queries to what is seen, added to the queries and normed."""

    def __init__(self, options: QFormerOptions, *, seen: int):
        """``seen`` is the width of what is seen."""
        super().__init__()
        self.heads = options.heads
        hidden = options.hidden
        self.attention = nn.ModuleDict(
            {"query": nn.Linear(hidden, hidden), "key": nn.Linear(seen, hidden), "value": nn.Linear(seen, hidden)}
        )
        self.output = AddAndNorm(hidden, hidden)

    def forward(
        self, queries: Float[Tensor, "images queries hidden"], seen: Float[Tensor, "images tokens width"]
    ) -> Float[Tensor, "images queries hidden"]:
        """Attend."""
        q, k, v = (
            rearrange(self.attention[name](values), "images n (heads d) -> images heads n d", heads=self.heads)
            for name, values in (("query", queries), ("key", seen), ("value", seen))
        )
        found = F.scaled_dot_product_attention(q, k, v)
        return self.output(rearrange(found, "images heads n d -> images n (heads d)"), queries)


class AddAndNorm(nn.Module):
    """A linear map of what was found, added to what was there, and normed."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.dense = nn.Linear(width, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=EPS)

    def forward(
        self, found: Float[Tensor, "images queries width"], before: Float[Tensor, "images queries hidden"]
    ) -> Float[Tensor, "images queries hidden"]:
        """Map, add, norm."""
        return self.LayerNorm(self.dense(found) + before)
