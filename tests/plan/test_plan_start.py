"""Plans of recipes that start from another run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from polyvex_basics import Patchify

from polyvex.encoders import WeightsPlace
from polyvex.fusion.mlp import MLPFusion
from polyvex.hooks.manager import Registries
from polyvex.lm.small_llama import SmallLlama
from polyvex.plan import make_plan
from polyvex.recipe import Recipe

Make = Callable[..., Recipe]
MORE: dict[str, Any] = {"name": "more", "trains": ["lm.moe"], "steps": 2, "batch_size": 4}
ATTENTION: dict[str, Any] = {**MORE, "name": "attention", "trains": ["lm.attention"]}


def test_it_says_where_it_starts_and_counts_experts_from_the_first_stage_on(
    tiny_recipe: Make, registries: Registries, earlier_run: Path
) -> None:
    anew = make_plan(tiny_recipe(), registries)
    plan = make_plan(tiny_recipe(start={"run": str(earlier_run)}, stages=[ATTENTION, MORE]), registries)
    assert plan.problems == []
    assert plan.start == f"{earlier_run}, after stage experts (sparse)"
    assert str(plan).splitlines()[:2] == ["plan of tiny", f"starts from {earlier_run}, after stage experts (sparse)"]
    assert [stage.total for stage in plan.stages] == [anew.stages[2].total] * 2
    assert [stage.active for stage in plan.stages] == [anew.stages[2].active] * 2
    assert plan.stages[1].trainable == anew.stages[2].trainable
    assert not any("RANDOM" in note for note in plan.notes)


def test_a_dense_start_is_dense_until_it_is_upcycled(
    tiny_recipe: Make, registries: Registries, earlier_run: Path
) -> None:
    anew = make_plan(tiny_recipe(), registries)
    start = {"run": str(earlier_run), "stage": "tune"}
    plan = make_plan(tiny_recipe(start=start, stages=[ATTENTION, {**MORE, "upcycle": True}]), registries)
    assert plan.start == f"{earlier_run}, after stage tune (dense)"
    assert [stage.total for stage in plan.stages] == [anew.stages[1].total, anew.stages[2].total]


def test_without_a_start_nothing_is_said_of_one(tiny_recipe: Make, registries: Registries) -> None:
    plan = make_plan(tiny_recipe(), registries)
    assert plan.start == ""
    assert "starts from" not in str(plan).partition("note:")[0]


def test_weights_that_do_not_fit_are_a_problem(tiny_recipe: Make, registries: Registries, earlier_run: Path) -> None:
    plan = make_plan(tiny_recipe("moe.num_experts=2", start={"run": str(earlier_run)}, stages=[MORE]), registries)
    (problem,) = plan.problems
    assert "lm.model.layers.0.mlp.router.weight ([4, 32] there, [2, 32] here)" in problem
    assert "What differs: moe.num_experts: 4 there, 2 here." in problem


def test_what_gives_weights_another_meaning_is_a_note(
    tiny_recipe: Make, registries: Registries, earlier_run: Path
) -> None:
    recipe = tiny_recipe("positions.use=share_all", start={"run": str(earlier_run)}, stages=[MORE])
    assert [note for note in make_plan(recipe, registries).notes if "not as in" in note] == [
        f"not as in {earlier_run}: positions.use: 'share_row' there, 'share_all' here"
    ]


def test_a_router_that_drops_is_noted_although_nothing_is_upcycled(
    tiny_recipe: Make, registries: Registries, earlier_run: Path
) -> None:
    changes = ("moe.router.capacity=0.5", "moe.router.renormalize=false")
    notes = make_plan(tiny_recipe(*changes, start={"run": str(earlier_run)}, stages=[MORE]), registries).notes
    assert any(note.startswith("stage more: 'top_k' leaves tokens without any expert") for note in notes)
    assert not any("starts unlike the dense one" in note for note in notes)


def test_weights_that_the_start_brings_are_not_missing(
    tiny_recipe: Make, registries: Registries, earlier_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = WeightsPlace(path=None, install="get it")
    for kind in (MLPFusion, Patchify):
        monkeypatch.setattr(kind, "weights", classmethod(lambda cls, options: nowhere))
    monkeypatch.setattr(SmallLlama, "missing", lambda self: "get it")
    anew = make_plan(tiny_recipe(), registries).missing
    assert sorted(anew) == ["encoder patchify: get it", "fusion mlp: get it", "language model small-llama: get it"]
    recipe = tiny_recipe(start={"run": str(earlier_run)}, stages=[MORE])
    assert make_plan(recipe, registries).missing == ["encoder patchify: get it"]  # it is frozen, as it was there


def test_a_start_that_went_away_is_a_problem(
    tiny_recipe: Make, registries: Registries, earlier_run: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(earlier_run, tmp_path / "copy")
    recipe = tiny_recipe(start={"run": str(copy)}, stages=[MORE])
    shutil.rmtree(copy)
    assert any(f"{copy} does not exist" in problem for problem in make_plan(recipe, registries).problems)
