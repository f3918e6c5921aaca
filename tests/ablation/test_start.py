"""Ablations whose cells start from another run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyvex.ablation.planner import plan_cells
from polyvex.ablation.runner import Outcome, ablate
from polyvex.cli import run as polyvex
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.rundir import dump_recipe

Make = Callable[..., Recipe]
EXPERTS: dict[str, Any] = {"name": "experts", "trains": ["lm.moe"], "upcycle": True, "steps": 1, "batch_size": 4}


def grid(recipe: Recipe, registries: Registries, out: Path, **axes: list[Any]) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    found = ablate(recipe, registries, out, axes=axes, say=lines.append, progress=False)
    return found, lines


def test_cells_share_a_start(tiny_recipe: Make, registries: Registries, earlier_run: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(stages=[EXPERTS], start={"run": str(earlier_run), "stage": "tune"})
    routers = [{"use": "top_k"}, {"use": "switch"}]
    outcome, lines = grid(recipe, registries, tmp_path / "out", **{"moe.router": routers})
    assert outcome.failed == {}
    assert len(outcome.results) == 2
    assert sum(line.endswith(f"starts from {earlier_run}, after stage tune") for line in lines) == 2


def test_the_stage_may_be_an_axis(tiny_recipe: Make, registries: Registries, earlier_run: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("start.stage=tune", stages=[EXPERTS], start={"run": str(earlier_run)})
    outcome, lines = grid(recipe, registries, tmp_path / "out", **{"start.stage": ["align", "tune"]})
    assert outcome.failed == {}
    assert [result.label for result in outcome.results] == ["start.stage=align", "start.stage=tune"]
    assert [line.rpartition(" ")[2] for line in lines if "starts from" in line] == ["align", "tune"]


def test_a_stage_that_no_cell_can_start_from_is_told_before_any_runs(
    tiny_recipe: Make, registries: Registries, earlier_run: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(stages=[EXPERTS], start={"run": str(earlier_run), "stage": "tune"})
    with pytest.raises(RecipeError) as caught:
        grid(recipe, registries, tmp_path / "out", **{"start.stage": ["tune", "tun", "experts"]})
    unknown, again = caught.value.problems
    assert unknown.startswith(f"start.stage=tun: [start]: {earlier_run}: unknown stage 'tun'")
    assert again.startswith(f"start.stage=experts: [moe]: there are experts already ({earlier_run}, after stage ")
    assert not (tmp_path / "out").exists()


def test_what_weights_mean_otherwise_is_told_of_each_cell(
    tiny_recipe: Make, registries: Registries, earlier_run: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(stages=[EXPERTS], start={"run": str(earlier_run), "stage": "tune"})
    _, lines = grid(recipe, registries, tmp_path / "out", positions=["share_row", "share_all"])
    assert [line for line in lines if "NOT AS THERE" in line] == [
        "cell 2/2 positions=share_all, seed 0: NOT AS THERE: positions.use: 'share_row' there, 'share_all' here"
    ]


def test_finished_cells_do_not_need_it_and_new_ones_do(
    tiny_recipe: Make, registries: Registries, earlier_run: Path, tmp_path: Path
) -> None:
    source, out = shutil.copytree(earlier_run, tmp_path / "source"), tmp_path / "out"
    recipe = tiny_recipe(stages=[EXPERTS], start={"run": str(source), "stage": "tune"})
    first, _ = grid(recipe, registries, out, positions=["share_row"])
    file = tmp_path / "recipe.toml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    shutil.rmtree(source)
    again, lines = grid(recipe, registries, out, positions=["share_row"])
    assert again == first
    assert "done before" in lines[0]
    assert polyvex(["ablate", str(file), "--out", str(out), "--axis", "positions=share_row", "--quiet"]) == 0
    with pytest.raises(RecipeError, match=r"positions=share_all: \[start\]: .*source does not exist"):
        grid(recipe, registries, out, positions=["share_row", "share_all"])
    with pytest.raises(RecipeError, match="does not exist"):
        plan_cells(recipe, registries, axes={"positions": ["share_row"]})
