"""A reducer with learned queries: Flamingo's perceiver resampler (arXiv 2204.14198, §2.1 and appendix A.1.1)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.reducers.base import Reducer, ReducerOptions
from polyvex.tokens import TokenShape


class PerceiverOptions(ReducerOptions):
    """Options of ``perceiver``."""

    queries: int = Field(default=64, ge=1, description="Learned queries: the tokens that come out.")
    layers: int = Field(default=2, ge=1, description="Layers of cross-attention and feed-forward; Flamingo has 6.")
    heads: int = Field(default=8, ge=1, description="Attention heads; they must divide the encoder's width.")
    ffn_factor: int = Field(default=4, ge=1, description="Inner width of the feed-forward over the encoder's width.")


class Perceiver(Reducer[PerceiverOptions]):
    """Learned queries attend to the tokens and to each other, layer by layer. What comes out has no grid."""

    Options = PerceiverOptions
    summary = "learned queries attend to the tokens and to each other (Flamingo's perceiver resampler)"

    def __init__(self, options: PerceiverOptions, *, shape: TokenShape):
        super().__init__(options, shape=shape)
        self.queries = nn.Parameter(torch.randn(options.queries, shape.dim) * 0.02)
        self.layers = nn.ModuleList(
            PerceiverLayer(shape.dim, heads=options.heads, inner=options.ffn_factor * shape.dim)
            for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(shape.dim)

    @classmethod
    def describe(cls, options: PerceiverOptions, *, shape: TokenShape) -> TokenShape:
        """As many tokens as queries, of the same width."""
        if shape.dim % options.heads:
            fits = [number for number in range(1, 65) if shape.dim % number == 0]
            raise ValueError(
                f"perceiver.heads = {options.heads} does not divide its width of {shape.dim}. Use one of "
                f"{', '.join(map(str, fits))}"
            )
        return TokenShape(tokens=options.queries, dim=shape.dim)

    def forward(self, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images queries width"]:
        """Let the queries look."""
        found = self.queries.expand(len(values), -1, -1)
        for layer in self.layers:
            found = layer(found, values)
        return self.norm(found)


class PerceiverLayer(nn.Module):
    """Queries attend to tokens and queries; then a feed-forward. Norms come first, residuals around both."""

    def __init__(self, dim: int, *, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.norm_tokens, self.norm_queries = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.ffn = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, inner, bias=False), nn.GELU(), nn.Linear(inner, dim, bias=False)
        )

    def forward(
        self, queries: Float[Tensor, "images queries width"], tokens: Float[Tensor, "images tokens width"]
    ) -> Float[Tensor, "images queries width"]:
        """One layer."""
        normed = self.norm_queries(queries)
        seen = torch.cat([self.norm_tokens(tokens), normed], dim=1)
        q = rearrange(self.query(normed), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.key_value(seen), "b n (two h d) -> two b h n d", two=2, h=self.heads)
        found = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")
        queries = queries + self.out(found)
        return queries + self.ffn(queries)
