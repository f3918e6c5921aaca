"""Separators and positions that a recipe's runs cannot honour are refused, with a way out."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from polyvex.errors import RecipeError
from polyvex.fusion import Fusion
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries
from polyvex.recipe import parse_recipe
from polyvex.tokens import TokenShape, VisualTokens


class OneToken(Fusion):
    """All encoders become one token without a grid."""

    summary = "a test"

    @classmethod
    def describe(cls, options: Any, *, inputs: Any, dim: int) -> list[TokenShape]:
        return [TokenShape(tokens=1, dim=dim)]

    def forward(self, parts: Any) -> VisualTokens:
        raise NotImplementedError


class Woven(Fusion):
    """Encoders keep their runs, and the tokens of one place come side by side."""

    summary = "a test"
    separate = True
    interleaves = True

    @classmethod
    def describe(cls, options: Any, *, inputs: Any, dim: int) -> list[TokenShape]:
        return list(inputs)


class Plugin:
    @hookimpl
    def register_fusions(self) -> Mapping[str, type[Fusion]]:
        return {"one_token": OneToken, "woven": Woven}


@pytest.fixture(scope="module")
def known() -> Registries:
    return load_registries(extra={"more": Plugin()})


@pytest.fixture
def problems_of(tiny_tables: Callable[[], dict[str, Any]], known: Registries) -> Callable[..., list[str]]:
    def problems(*changes: str, **tables: Any) -> list[str]:
        try:
            parse_recipe({**tiny_tables(), **tables}, overrides=changes, registries=known)
        except RecipeError as error:
            return error.problems
        return []

    return problems


GRID = {"use": "color-grid", "image_size": 32, "rows": 2, "cols": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["fusion.use=one_token", "positions.use=share_all", "fusion.separator=learned"],
            "separator = 'learned' has no",
        ),
        (
            ["fusion.use=woven", "fusion.separator=learned"],
            "separator = 'learned' has no effect, since all visual tokens",
        ),
        (["fusion.separator=text"], "separator is 'text', but separator_text is empty"),
        (["fusion.separator_text='|'"], "separator_text has no effect without separator = 'text'"),
        (
            ["fusion.use=one_token"],
            "'share_row' goes by rows, but the tokens have no grid behind the fusion 'one_token'",
        ),
        (
            ["fusion.use=one_token", "positions.use=share_all", "positions.base=common"],
            "[positions]: base = 'common' has no effect, since all visual tokens are one run",
        ),
        (
            ["fusion.use=woven", "encoders.0.positions={use='share_all'}"],
            "[[encoders]] patchify: positions of its own need a run of its own, but the fusion 'woven' mixes encoders",
        ),
        (["encoders.0.reduce={use='perceiver', heads=3}"], "[[encoders]] #1 (patchify).reduce: perceiver.heads = 3"),
        (["lm.attention=flash"], "[lm]: attention = 'flash' is refused: flash attention cuts a row into texts"),
    ],
)
def test_what_has_no_effect_or_cannot_be_is_refused(
    changes: list[str], message: str, problems_of: Callable[..., list[str]]
) -> None:
    problems = problems_of(*changes)
    assert any(message in problem for problem in problems), problems
    assert len(problems) == 1


@pytest.mark.parametrize(
    "changes",
    [
        ["fusion.separator=learned"],
        ["fusion.separator=text", "fusion.separator_text=' | '"],
        ["positions.base=common"],
        ["encoders.0.positions={use='share_all', base='common'}"],
        ["encoders.0.positions={use='share_all'}", "encoders.1.positions={use='share_row'}"],
        ["encoders.0.reduce={use='average_pool'}"],
        ["fusion.use=woven"],
        ["lm.attention=flex"],
    ],
)
def test_what_has_an_effect_is_taken(changes: list[str], problems_of: Callable[..., list[str]]) -> None:
    assert problems_of(*changes) == []


def test_a_common_base_needs_a_second_run(problems_of: Callable[..., list[str]]) -> None:
    (problem,) = problems_of("positions.base=common", encoders=[GRID])
    assert "base = 'common' has no effect" in problem
    (problem,) = problems_of("positions.use=share_encoder", encoders=[GRID])
    assert "base = 'common' has no effect" in problem
