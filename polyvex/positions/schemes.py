"""MouSi's four position schemes (arXiv 2401.17221; the abstract gives SAM's 4096 → 64 → 1 positions).

The paper's own equations were not to be had. These definitions agree with those counts; each run of an encoder
starts at the next free position, and column vectors start at zero, so that ``share_row_col`` begins as ``share_row``.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from polyvex.positions.base import PositionOptions, PositionScheme, changes
from polyvex.tokens import SequenceLayout, VisualLayout


class Sequential(PositionScheme):
    """Every visual token has a position of its own."""

    summary = "one position per visual token (the usual way)"

    def opens(self, layout: SequenceLayout) -> Bool[Tensor, "batch seq"]:
        """Everywhere."""
        return torch.ones_like(layout.valid)


class ShareAll(PositionScheme):
    """All tokens of one encoder on one image share one position."""

    summary = "one position per encoder and image"

    def opens(self, layout: SequenceLayout) -> Bool[Tensor, "batch seq"]:
        """At the first token of each encoder's run."""
        return _new_run(layout)


class ShareRow(PositionScheme):
    """The tokens of one row of an encoder's grid share one position. Tokens without a grid share one in all."""

    summary = "one position per row of each encoder's grid"

    def opens(self, layout: SequenceLayout) -> Bool[Tensor, "batch seq"]:
        """At the first token of each row."""
        return _new_row(layout)


class ShareRowColOptions(PositionOptions):
    """Options of ``share_row_col``. It has none."""


class ShareRowCol(PositionScheme):
    """As ``share_row``, and a learned vector per column and encoder is added to the embedding. Starts at zero."""

    Options = ShareRowColOptions
    summary = "one position per row, plus a learned vector per column of each encoder's grid"

    def __init__(self, options: PositionOptions, *, layout: VisualLayout, dim: int):
        super().__init__(options, layout=layout, dim=dim)
        self.first, count = _first_columns(layout)
        self.columns = nn.Parameter(torch.zeros(count, dim))

    def opens(self, layout: SequenceLayout) -> Bool[Tensor, "batch seq"]:
        """At the first token of each row."""
        return _new_row(layout)

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


def _new_run(layout: SequenceLayout) -> Bool[Tensor, "batch seq"]:
    return changes(layout.image) | changes(layout.source)


def _new_row(layout: SequenceLayout) -> Bool[Tensor, "batch seq"]:
    return _new_run(layout) | changes(layout.view) | changes(layout.coords[..., 0])


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
