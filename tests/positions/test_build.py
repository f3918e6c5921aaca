"""The default scheme and the schemes that override it."""

from types import SimpleNamespace
from typing import Any

from polyvex.hooks.manager import Registries
from polyvex.positions.base import PositionScheme
from polyvex.positions.build import build_assigner
from polyvex.tokens import Grid, TokenShape, VisualLayout

LAYOUT = VisualLayout.of(
    [TokenShape(tokens=4, dim=4, grid=Grid(rows=2, cols=2)), TokenShape(tokens=2, dim=4, grid=Grid(rows=1, cols=2))]
)


def table(use: str, **options: Any) -> Any:
    return SimpleNamespace(use=use, base="sequential", **options)


def test_the_default_serves_the_runs_that_do_not_override_it(registries: Registries) -> None:
    schemes = registries.position_schemes
    built = build_assigner(schemes, table("sequential"), {1: table("share_all")}, layout=LAYOUT, dim=4)
    assert built.of_image(LAYOUT)[0].tolist() == [0, 1, 2, 3, 4, 4]


def test_a_default_that_every_run_overrides_is_not_built(registries: Registries) -> None:
    schemes = registries.position_schemes
    own = {0: table("share_row"), 1: table("share_all")}
    built = build_assigner(schemes, table("share_row_col"), own, layout=LAYOUT, dim=4)
    assert built.of_image(LAYOUT)[0].tolist() == [0, 0, 1, 1, 2, 2]
    # share_row_col has a parameter per column. Without a run it would never receive a gradient.
    assert list(built.parameters()) == []
    assert all(isinstance(scheme, PositionScheme) for scheme in built.schemes)
    assert len(built.schemes) == 2
