"""Recipes of published models: planned at full size without a download, and their headers say what plan says."""

from pathlib import Path

import pytest

from polyvex.hooks.manager import Registries
from polyvex.plan import Plan, make_plan
from polyvex.recipe import Recipe, read_recipe

from .published import PUBLISHED, RECIPES, cost, header

MOUSI = {
    "mae": (16 * 8, 16),
    "sam": (64 * 16, 64),
    "convnext": (32 * 8, 32),
    "layoutlmv3": (14 * 7, 14),
    "dinov2": (16 * 8, 16),
    "clip": (24 * 24, 24),
}
"""Its encoders in order, each with the tokens and the rows behind the fusion; a row has one position."""

TOKENS = {
    "llava-1.5": 24 * 24,
    "llava-1.6": 24 * 24 + 48 * 48 + 48,  # the whole image, 2x2 tiles, and the ends of their rows
    **{f"mousi-{count}": sum(tokens for tokens, _ in list(MOUSI.values())[-count:]) for count in range(2, 7)},
    "eagle-channel": 32 * 32,
    "cambrian-sva": 24 * 24,
    "brave": 160,
    "deepseek-vl-hybrid": 24 * 24,
    "moe-llava-stablelm": 24 * 24,
    "moe-llava-qwen": 24 * 24,
    "moe-llava-phi2": 24 * 24,
    "xcomposer2": 35 * 35,
}


@pytest.fixture(scope="module", params=PUBLISHED, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def plan(path: Path, registries: Registries, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(read_recipe(path, registries=registries), registries, cache=tmp_path_factory.mktemp("cache"))


def test_these_are_all() -> None:
    assert {path.stem for path in PUBLISHED} == set(TOKENS)


def test_nothing_but_downloads_is_missing(plan: Plan, path: Path) -> None:
    assert plan.problems == []
    assert [one.partition(":")[0] for one in plan.missing] == [
        "the data set cannot be read, so one image and 64 text tokens per sample are assumed",
        *(f"encoder {encoder.name}" for encoder in plan.encoders),
        "language model pretrained",
    ]
    assert (plan.recipe, plan.visual_tokens) == (path.stem, TOKENS[path.stem])


@pytest.mark.parametrize("count", range(2, 7))
def test_mousis_encoders_in_order(count: int, registries: Registries) -> None:
    plan = make_plan(read_recipe(RECIPES / f"mousi-{count}.toml", registries=registries), registries)
    expected = [(name, *counts) for name, counts in MOUSI.items()][-count:]
    assert [(encoder.name, encoder.tokens_out, encoder.positions) for encoder in plan.encoders] == expected
    assert plan.visual_positions == sum(rows for _, _, rows in expected)


def test_the_header_tells_source_cost_and_checks(plan: Plan, path: Path) -> None:
    said = header(path)
    assert said["Cost"] == cost(plan)
    assert len(said["Title"]) > 20
    assert len(said["Source"]) > 10
    assert "Never trained at full size here" in said["Checked"]


def test_the_docs_table_has_plans_numbers(plan: Plan) -> None:
    page = (RECIPES.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{plan.recipe}` |")]
    tokens, positions = (cell.strip() for cell in row.split("|")[-3:-1])
    assert tokens.endswith(f"{plan.visual_tokens:,}")
    assert positions.removeprefix("up to ").removesuffix(", by row") == f"{plan.visual_positions:,}"


DIFFERENCES = {
    "cambrian-sva": [
        "third layer",
        "position vectors inside windows",
        "global context",
        "projector of two",
        "each row",
    ],
    "eagle-channel": ["trains all encoders", "neck of one convolution", "align_corners", "pixel unshuffle"],
    "deepseek-vl-hybrid": ["two convolutions", "first global block", "split first layer"],
    "moe-llava-phi2": ["noise of the second choice in evaluation", "padding"],
    "llava-1.5": ["pads them to a square", "no system prompt"],
}


def test_headers_list_what_differs_from_the_papers_code(path: Path) -> None:
    differs = header(path)["Differs"]
    assert all(one in differs for one in DIFFERENCES.get(path.stem, []))
    assert len(differs) > 60


def test_options_that_make_a_recipe_exact_are_set(registries: Registries) -> None:
    def recipe(name: str) -> Recipe:
        return read_recipe(RECIPES / f"{name}.toml", registries=registries)

    assert recipe("cambrian-sva").fusion.window == [1, 1, 1, 4]
    assert recipe("deepseek-vl-hybrid").fusion.split
    for name in ("phi2", "qwen", "stablelm"):
        moe = recipe(f"moe-llava-{name}").moe
        assert moe is not None
        assert moe.router.second_choice_noise == "gumbel"
