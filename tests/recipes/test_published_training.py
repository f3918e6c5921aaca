"""Recipes of published models: built, planned and trained one step at toy size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from polyvex.assemble import build
from polyvex.hooks.manager import Registries, load_registries
from polyvex.plan import make_plan
from polyvex.recipe import Recipe, parse_recipe
from polyvex.rundir import RunDirectory
from polyvex.training.stages import train
from polyvex.training.trainer import read_metrics

from .published import PUBLISHED
from .toys import ToyPlugin, Toys, toy_tables

BLOCK = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
"""The linear layers of a Llama's block."""

TOKENS = {
    "llava-1.5": 16,
    "llava-1.6": 16 + 16 + 4,  # pictures of 32x32 in tiles of 64: one half of a grid of 2x1, and the ends of its rows
    "mousi-2": 8 + 16,
    "mousi-3": 8 + 8 + 16,
    "mousi-4": 4 + 8 + 8 + 16,
    "mousi-5": 16 + 4 + 8 + 8 + 16,
    "mousi-6": 8 + 16 + 4 + 8 + 8 + 16,
    "eagle-channel": 16,
    "cambrian-sva": 16,
    "brave": 8,
    "deepseek-vl-hybrid": 16,
    "moe-llava-stablelm": 16,
    "moe-llava-qwen": 16,
    "moe-llava-phi2": 16,
    "xcomposer2": 16,
}


@pytest.fixture(scope="module")
def known() -> Registries:
    return load_registries(extra={"toys": ToyPlugin()})


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    return Toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module", params=PUBLISHED, ids=lambda path: path.stem)
def recipe(
    request: pytest.FixtureRequest, toys: Toys, tiny_tables: Callable[[], dict[str, Any]], known: Registries
) -> Recipe:
    return parse_recipe(toy_tables(request.param, toys, tiny_tables()), registries=known)


@pytest.fixture(scope="module")
def run(recipe: Recipe, known: Registries, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp(recipe.name)
    return train(recipe, folder / "run", registries=known, cache=folder / "cache", progress=False)


def test_the_plan_finds_nothing(recipe: Recipe, known: Registries, tmp_path: Path) -> None:
    plan = make_plan(recipe, known, cache=tmp_path)
    assert (plan.problems, plan.missing) == ([], [])
    assert plan.visual_tokens == TOKENS[recipe.name]


def test_one_step_of_each_stage_moves_what_the_stage_names(
    recipe: Recipe, run: RunDirectory, known: Registries
) -> None:
    names = [f"{number}-{stage.name}" for number, stage in enumerate(recipe.stages)]
    assert all(0 < step["loss"] < 20 for name in names for step in curve(run, name))
    assert [len(curve(run, name)) for name in names] == [1] * len(names)
    states = [build(recipe, registries=known).model.state_dict(), *(weights(run, name) for name in names)]
    connector = {"fusion", "positions"} if recipe.positions.use == "share_row_col" else {"fusion"}
    connector |= {"views"} if recipe.name == "llava-1.6" else set()
    for stage, before, after in zip(recipe.stages, states, states[1:], strict=False):
        parts = {part.partition(".")[0] for part in stage.trains}
        assert moved(before, after) == (parts - {"connector"}) | (connector if "connector" in parts else set())


def test_visual_tokens_alone_are_adapted_where_a_recipe_says_so(recipe: Recipe, run: RunDirectory) -> None:
    aligned = weights(run, "0-align")
    learned = {name.split(".")[-2] for name in aligned if "plora_B" in name and aligned[name].any()}
    assert learned == (BLOCK if recipe.name == "xcomposer2" else set())


def curve(run: RunDirectory, stage: str) -> list[dict[str, float]]:
    return read_metrics(run.path / "stages" / stage / "metrics.jsonl")


def weights(run: RunDirectory, stage: str) -> dict[str, Tensor]:
    return load_file(run.path / "stages" / stage / "model" / "model.safetensors")


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parts of the model with a weight that has changed, of those that both hold."""
    return {key.partition(".")[0] for key in before.keys() & after.keys() if not torch.equal(before[key], after[key])}
