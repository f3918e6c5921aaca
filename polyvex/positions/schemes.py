"""MouSi's four position schemes (arXiv 2401.17221; the abstract gives SAM's 4096 → 64 → 1 positions), and a fifth.

The paper's own equations were not to be had. These definitions agree with those counts; whether runs start one behind
the other or all at one position is the option ``base``; and column vectors start at zero, so that ``share_row_col``
begins as ``share_row``.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.positions.base import PositionOptions, PositionScheme, RunPositions, changes, counted
from polyvex.tokens import VisualLayout


class Sequential(PositionScheme):
    """Every visual token has a position of its own."""

    summary = "one position per visual token (the usual way)"

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """Counted one by one."""
        return counted(torch.ones(run.tokens, dtype=torch.bool))


class ShareEncoderOptions(PositionOptions):
    """Options of ``share_encoder``: its base cannot be another."""

    base: Literal["common"] = Field(default="common", description="All encoders start at the image's first position.")  # type: ignore[assignment]


class ShareEncoder(PositionScheme[ShareEncoderOptions]):
    """Every encoder counts its tokens from the same position, so that an image takes as many as its longest run."""

    Options = ShareEncoderOptions
    summary = "one position per token, and all encoders start at the same one"

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """Counted one by one."""
        return counted(torch.ones(run.tokens, dtype=torch.bool))


class ShareAll(PositionScheme):
    """All tokens of one run share one position."""

    summary = "one position per encoder and image"

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """The same for all."""
        return RunPositions(offsets=torch.zeros(run.tokens, dtype=torch.long), extent=1)


class ShareRow(PositionScheme):
    """The tokens of one row of a grid share one position. Tokens without a grid share one in all."""

    summary = "one position per row of each encoder's grid"
    needs_grid = True

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """One further at the first token of each row."""
        return counted(_new_row(run))


class ShareRowCol(PositionScheme):
    """As ``share_row``, and a learned vector per column and encoder is added to the embedding. Starts at zero."""

    summary = "one position per row, plus a learned vector per column of each encoder's grid"
    needs_grid = True

    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        self.first, count = _first_columns(layout)
        self.columns = nn.Parameter(torch.zeros(count, dim))

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        """One further at the first token of each row."""
        return counted(_new_row(run))

    def embed(
        self, values: Float[Tensor, "*images tokens dim"], layout: VisualLayout
    ) -> Float[Tensor, "*images tokens dim"]:
        """Add to each token the vector of its column; a token that ends a row has none, nor has one without a grid."""
        column = layout.coords[:, 1]
        start = torch.zeros_like(column)
        for (source, view), first in self.first.items():
            start[(layout.source == source) & (layout.view == view)] = first
        has = (column >= 0).to(values.device)
        added = self.columns[(start + column.clamp(min=0)).to(values.device)]
        return values + added * has[:, None]


def _new_row(run: VisualLayout) -> Bool[Tensor, " tokens"]:
    return changes(run.view, run.coords[:, 0])


def _first_columns(layout: VisualLayout) -> tuple[dict[tuple[int, int], int], int]:
    """Where the column vectors of each encoder's views start in the table, and the table's length."""
    start, first = 0, {}
    for source in layout.source.unique().tolist():
        for view in layout.view[layout.source == source].unique().tolist():
            columns = layout.coords[(layout.source == source) & (layout.view == view), 1]
            if int(columns.max()) >= 0:
                first[source, view] = start
                start += int(columns.max()) + 1
    return first, max(start, 1)
