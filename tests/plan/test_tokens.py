"""Tokens and positions of encoders, against MouSi's counts."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from polyvex.fusion import Fusion, FusionOptions
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries
from polyvex.plan import make_plan
from polyvex.plan.tokens import budgets
from polyvex.recipe import Recipe, parse_recipe
from polyvex.tokens import TokenShape, VisualTokens

from .conftest import SIDES

Make = Callable[..., Recipe]

# papers.md, 1.7: tokens of the six, and what they take by row; all six together 6404, 166 and 6.
TOKENS = {"clip": 576, "dinov2": 256, "layoutlmv3": 196, "mae": 256, "sam": 4096, "convnext": 1024}
ROWS = {"clip": 24, "dinov2": 16, "layoutlmv3": 14, "mae": 16, "sam": 64, "convnext": 32}
ONES = dict.fromkeys(TOKENS, 1)


@pytest.mark.parametrize(
    ("scheme", "each", "all_six"),
    [
        ("sequential", TOKENS, 6404),
        ("share_row", ROWS, 166),
        ("share_row_col", ROWS, 166),
        ("share_all", ONES, 6),
    ],
)
def test_the_six_encoders_of_mousi(
    paper_recipe: Make, papers: Registries, scheme: str, each: dict[str, int], all_six: int
) -> None:
    budget = budgets(paper_recipe(list(SIDES), f"positions.use={scheme}"), papers, dim=8)
    rows, positions = budget.encoders, budget.positions
    assert {row.name: row.tokens_in for row in rows} == TOKENS
    assert {row.name: row.tokens_out for row in rows} == TOKENS
    assert {row.name: row.positions for row in rows} == each
    assert positions == all_six


def test_sam_alone_takes_4096_64_or_1_position(paper_recipe: Make, papers: Registries) -> None:
    # The abstract's own figures.
    taken = [
        budgets(paper_recipe(["sam"], f"positions.use={scheme}"), papers, dim=8).positions
        for scheme in ("sequential", "share_row", "share_all")
    ]
    assert taken == [4096, 64, 1]


def test_joined_patches_shorten_runs_and_rows_stay(paper_recipe: Make, papers: Registries) -> None:
    # papers.md, 1.5: LayoutLMv3 and DINOv2 with 2 patches per token, CLIP with 1: 98 + 128 + 576 = 802 tokens.
    encoders = ["layoutlmv3", "dinov2", "clip"]
    recipe = paper_recipe(encoders, "fusion.patches_per_token=[2, 2, 1]", "positions.use=share_row")
    budget = budgets(recipe, papers, dim=8)
    rows, positions = budget.encoders, budget.positions
    assert [row.tokens_in for row in rows] == [196, 256, 576]
    assert [row.tokens_out for row in rows] == [98, 128, 576]
    assert [row.grid for row in rows] == ["14x7", "16x8", "24x24"]
    assert positions == 14 + 16 + 24


def test_an_order_changes_the_order_and_no_count(paper_recipe: Make, papers: Registries) -> None:
    there, back = (
        budgets(paper_recipe(names, "positions.use=share_row"), papers, dim=8)
        for names in (["clip", "sam"], ["sam", "clip"])
    )
    assert [row.name for row in back.encoders] == ["sam", "clip"]
    assert {row.name: row.positions for row in there.encoders} == {row.name: row.positions for row in back.encoders}
    assert there.positions == back.positions == 88


def test_facts_of_an_encoder_are_told(paper_recipe: Make, papers: Registries) -> None:
    encoders = [{"use": "clip", "name": "eye", "free": False}, {"use": "clip", "here": False}]
    eye, clip = budgets(paper_recipe(encoders), papers, dim=8).encoders
    assert (eye.name, eye.use, eye.image) == ("eye", "clip", "336x336")
    assert (eye.dim, eye.parameters, eye.flops) == (10, 1000, None)
    assert (eye.license, eye.commercial, eye.weights) == ("CC-BY-NC-4.0", False, "not needed")
    assert (clip.commercial, clip.weights) == (True, "MISSING: pip install paper-weights")


class Merged(Fusion):
    summary = "adds the encoders up, so no token is one encoder's own"

    @classmethod
    def describe(cls, options: FusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        return [TokenShape(tokens=inputs[0].tokens, dim=dim, grid=inputs[0].grid)]

    def forward(self, parts: Sequence[VisualTokens]) -> VisualTokens:
        raise ValueError("this one reads values")


class MergedPlugin:
    @hookimpl
    def register_fusions(self) -> dict[str, type[Fusion]]:
        return {"merged": Merged}


def test_tokens_of_a_fusion_that_merges_encoders_are_counted(tiny_tables: Callable[[], dict[str, Any]]) -> None:
    registries = load_registries(extra={"merged": MergedPlugin()})
    tables = {**tiny_tables(), "fusion": {"use": "merged"}, "positions": {"use": "share_row"}}
    recipe = parse_recipe(tables, registries=registries)
    budget = budgets(recipe, registries, dim=8)
    assert (budget.tokens, budget.positions) == (4, 2)  # a 2x2 grid
    assert [(row.tokens_out, row.positions) for row in budget.encoders] == [(None, None)] * 2
    plan = make_plan(recipe, registries)
    assert plan.visual_tokens == 4
    assert "merged" in str(plan)
    (note,) = [note for note in plan.notes if "NOT counted" in note]
    assert note.endswith("for they cannot run without memory: ValueError: this one reads values")
