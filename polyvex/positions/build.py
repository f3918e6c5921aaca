"""Build the position schemes of a recipe: the default, and those that single encoders override it with."""

from collections.abc import Mapping
from typing import Any

from polyvex.hooks.registry import Registry
from polyvex.positions.assign import PositionAssigner
from polyvex.positions.base import PositionScheme
from polyvex.tokens import TEXT, VisualLayout


def build_assigner(
    schemes: Registry[PositionScheme], table: Any, own: Mapping[int, Any], *, layout: VisualLayout, dim: int
) -> PositionAssigner:
    """Build schemes from their checked tables.

    Args:
        table: options of the default scheme. It is built only if a run uses it, so that it adds no parameters that
            never receive a gradient.
        own: options of the schemes of single runs, by the run's number.
        layout: every run, view and column that an image can have.
        dim: the language model's width.
    """
    runs = set(layout.run.unique().tolist()) - {TEXT}
    return PositionAssigner(
        None if runs <= set(own) else schemes[table.use](table, layout=layout, dim=dim),
        {run: schemes[one.use](one, layout=layout.pick(layout.run == run), dim=dim) for run, one in own.items()},
    )
