"""Cambrian-1's spatial vision aggregator (arXiv 2406.16860): each place of a grid of queries looks at its windows.

Encoder i's map F_i is brought to m_i times the rows and columns of the queries' grid, so that the query of a place has
an own window of m_i × m_i places in it. With q = W^Q x, and keys and values K_i = F_i W_i^K, V_i = F_i W_i^V within
that window, the query becomes softmax(q [K_1; …; K_E]^T / √C) [V_1; …; V_E]: one softmax over the windows of all
encoders. Several such layers follow one another, each with a feed-forward network; norms come first.

Here each place has a query of its own, so queries tell places apart; the paper's aggregation inside the language
model's layers is not there.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.fusion.base import Fusion
from polyvex.fusion.qformer_layers import check_heads
from polyvex.fusion.resample import GridOptions, common_grid, grids_of, resample
from polyvex.options import IsPerEncoder
from polyvex.tokens import Grid, TokenShape, VisualTokens

Window = Annotated[int, Field(ge=1)]


class SVAOptions(GridOptions):
    """Options of the ``sva`` fusion; ``grid`` is that of the queries."""

    window: Annotated[Window | list[Window], IsPerEncoder()] = Field(
        default=1, description="Rows and columns of a query's window; one number for all encoders or one for each."
    )
    layers: int = Field(default=3, ge=1, description="Layers.")
    hidden: int = Field(default=1024, ge=1, description="Width of the queries.")
    heads: int = Field(default=16, ge=1, description="Attention heads; they must divide hidden.")
    ffn: int = Field(default=4096, ge=1, description="Inner width of the feed-forward networks.")

    @classmethod
    def example(cls) -> Self:
        """A small one."""
        return cls(window=2, layers=2, hidden=16, heads=2, ffn=32)


class SVAFusion(Fusion[SVAOptions]):
    """One token per place of the queries' grid, however many encoders there are."""

    Options = SVAOptions
    summary = "a grid of queries; each attends to its own window of every encoder's map (Cambrian-1)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "ffn", "tokens": "grid"})

    def __init__(self, options: SVAOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        self.grids, self.grid = grids_of(inputs), common_grid(options, inputs)
        self.windows = _windows(options, len(inputs))
        widths = [shape.dim for shape in inputs]
        self.queries = nn.Parameter(torch.randn(self.grid.tokens, options.hidden) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.layers = nn.ModuleList(WindowLayer(options, widths) for _ in range(options.layers))
        self.out = nn.Sequential(nn.LayerNorm(options.hidden), nn.Linear(options.hidden, dim))

    @classmethod
    def describe(cls, options: SVAOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """One run on the queries' grid."""
        check_heads(hidden=options.hidden, heads=options.heads)
        _windows(options, len(inputs))
        grid = common_grid(options, inputs)
        return [TokenShape(tokens=grid.tokens, dim=dim, grid=grid)]

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Cut each map into windows, and let the queries look, layer by layer."""
        windows = [
            self._cut(index, norm(part.values))
            for index, (norm, part) in enumerate(zip(self.norms, parts, strict=True))
        ]
        found = self.queries.expand(len(windows[0]), -1, -1)
        for layer in self.layers:
            found = layer(found, windows)
        return VisualTokens(values=self.out(found), layout=self.layout)

    def _cut(
        self, index: int, values: Float[Tensor, "images tokens width"]
    ) -> Float[Tensor, "images queries places width"]:
        """The window of each query in one encoder's map."""
        m = self.windows[index]
        target = Grid(rows=m * self.grid.rows, cols=m * self.grid.cols)
        maps = resample(
            values, self.grids[index], target, self.options.resample, align_corners=self.options.align_corners
        )
        pattern = "images (rows r cols c) width -> images (rows cols) (r c) width"
        return rearrange(maps, pattern, rows=self.grid.rows, cols=self.grid.cols, r=m, c=m)


class WindowLayer(nn.Module):
    """Each query attends to its own windows; then a feed-forward network. Queries do not see one another."""

    def __init__(self, options: SVAOptions, widths: Sequence[int]):
        super().__init__()
        self.heads, hidden = options.heads, options.hidden
        self.norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.keys = nn.ModuleList(nn.Linear(width, hidden, bias=False) for width in widths)
        self.values = nn.ModuleList(nn.Linear(width, hidden, bias=False) for width in widths)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.ffn = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, options.ffn), nn.GELU(), nn.Linear(options.ffn, hidden)
        )

    def forward(
        self,
        queries: Float[Tensor, "images queries hidden"],
        windows: Sequence[Float[Tensor, "images queries _ _"]],
    ) -> Float[Tensor, "images queries hidden"]:
        """One layer."""
        heads = "images queries places (heads d) -> images queries heads places d"
        q = rearrange(self.query(self.norm(queries))[:, :, None], heads, heads=self.heads)
        k, v = (
            rearrange(
                torch.cat([one(window) for one, window in zip(layers, windows, strict=True)], dim=2),
                heads,
                heads=self.heads,
            )
            for layers in (self.keys, self.values)
        )
        found = F.scaled_dot_product_attention(q, k, v)
        queries = queries + self.out(rearrange(found, "images queries heads 1 d -> images queries (heads d)"))
        return queries + self.ffn(queries)


def _windows(options: SVAOptions, encoders: int) -> list[int]:
    windows = [options.window] * encoders if isinstance(options.window, int) else options.window
    if len(windows) != encoders:
        raise ValueError(
            f"window has {len(windows)} numbers for {encoders} encoders. Give one number, or one per encoder"
        )
    return windows
