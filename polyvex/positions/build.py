"""Build the position schemes that a recipe names: the common one, and those of single encoders."""

from collections.abc import Mapping
from typing import Any

from polyvex.hooks.registry import Registry
from polyvex.positions.assign import PositionAssigner
from polyvex.positions.base import PositionScheme
from polyvex.tokens import VisualLayout


def build_assigner(
    schemes: Registry[PositionScheme], table: Any, own: Mapping[int, Any], *, layout: VisualLayout, dim: int
) -> PositionAssigner:
    """Build schemes from their checked tables.

    Args:
        table: of the scheme of all runs.
        own: tables of schemes of single runs, by the run's number.
        layout: every run, view and column that an image can have.
        dim: the language model's width.
    """
    return PositionAssigner(
        schemes[table.use](table, layout=layout, dim=dim),
        {run: schemes[one.use](one, layout=layout.pick(layout.run == run), dim=dim) for run, one in own.items()},
    )
