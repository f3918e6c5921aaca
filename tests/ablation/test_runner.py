"""Whole small ablations: from the cache, interrupted, with a cell that fails."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from polyvex_basics import ColorGrid, Patchify

from polyvex.ablation import runner
from polyvex.ablation.runner import ablate
from polyvex.errors import RecipeError, RunError, StorageError
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries
from polyvex.plan.tokens import budgets
from polyvex.positions import PositionScheme, RunPositions
from polyvex.recipe import Recipe, parse_recipe
from polyvex.tokens import VisualLayout
from polyvex.training.stages import Stopped

GRID = {"order": "all", "positions": ["sequential", "share_row"]}
LABELS = [
    "order=patchify+color-grid, positions=sequential",
    "order=patchify+color-grid, positions=share_row",
    "order=color-grid+patchify, positions=sequential",
    "order=color-grid+patchify, positions=share_row",
]


@pytest.fixture
def short(tiny_recipe: Callable[..., Recipe]) -> Recipe:
    """One stage of one step, dense."""
    return tiny_recipe(moe=None, stages=[{"name": "tune", "trains": ["connector", "lm"], "steps": 1, "batch_size": 4}])


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by a name each time an encoder loads its weights."""
    counted: list[str] = []
    for kind in (Patchify, ColorGrid):
        original = kind.load_pretrained

        def load(self: Any, original: Any = original, name: str = kind.__name__) -> Any:
            counted.append(name)
            return original(self)

        monkeypatch.setattr(kind, "load_pretrained", load)
    return counted


def run(recipe: Recipe, registries: Registries, out: Path, **options: Any) -> tuple[runner.Outcome, list[str]]:
    lines: list[str] = []
    chosen = {"axes": GRID, "say": lines.append, "progress": False, **options}
    return ablate(recipe, registries, out, **chosen), lines


def index_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "ablation.json").read_text(encoding="utf-8"))


def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by a cell's id each time a cell is trained."""
    ids: list[str] = []
    original = runner.train

    def train(recipe: Recipe, out: Path, **options: Any) -> Any:
        ids.append(out.name)
        return original(recipe, out, **options)

    monkeypatch.setattr(runner, "train", train)
    return ids


def test_a_grid_of_orders_and_schemes(short: Recipe, registries: Registries, tmp_path: Path, loads: list[str]) -> None:
    outcome, lines = run(short, registries, tmp_path / "grid")
    assert outcome.failed == {}
    assert [result.label for result in outcome.results] == LABELS
    # patchify has 2 rows of 2, color-grid 2 rows of 4: 12 tokens; one position for each, or one for each of 4 rows.
    assert [result.visual_tokens for result in outcome.results] == [12] * 4
    assert [result.positions for result in outcome.results] == [12, 4, 12, 4]
    assert [result.questions for result in outcome.results] == [12] * 4
    assert [result.difference is None for result in outcome.results] == [True, False, False, False]
    assert [line.split(":")[0] for line in lines] == [f"cell {n}/4 {name}, seed 0" for n, name in enumerate(LABELS, 1)]
    assert sorted(loads) == ["ColorGrid", "Patchify"]  # once each, for four cells
    index = index_of(tmp_path / "grid")
    assert index["axes"] == GRID
    assert [cell["label"] for cell in index["cells"]] == LABELS
    assert index["results"] == [json.loads(json.dumps(result.as_dict())) for result in outcome.results]


def test_from_a_full_cache_no_encoder_is_loaded(
    short: Recipe, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = run(short, registries, tmp_path / "first")

    def refuse(self: Any) -> None:
        raise AssertionError(f"{type(self).__name__} was loaded")

    for kind in (Patchify, ColorGrid):
        monkeypatch.setattr(kind, "load_pretrained", refuse)
    second, _ = run(short, registries, tmp_path / "second")
    assert second.failed == {}
    assert [result.as_dict() for result in second.results] == [result.as_dict() for result in first.results]


def test_accuracies_are_those_of_the_answers_on_disk(short: Recipe, registries: Registries, tmp_path: Path) -> None:
    outcome, _ = run(short, registries, tmp_path, axes={"positions": ["share_all"]}, seeds=2)
    (result,) = outcome.results
    assert result.seeds == [0, 1]
    for cell, share in zip(index_of(tmp_path)["cells"], result.by_seed, strict=True):
        answers = (tmp_path / "cells" / cell["id"] / "evaluation" / "0-tune.jsonl").read_text(encoding="utf-8")
        scores = [json.loads(line)["score"] for line in answers.splitlines()]
        assert share == pytest.approx(sum(scores) / len(scores))
        assert len(scores) == 12


def test_finished_cells_are_not_run_again(
    short: Recipe, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = run(short, registries, tmp_path)
    before = (tmp_path / "ablation.json").read_text(encoding="utf-8")
    ids = trained(monkeypatch)
    again, lines = run(short, registries, tmp_path)
    assert ids == []
    assert all("done before" in line for line in lines)
    assert [result.as_dict() for result in again.results] == [result.as_dict() for result in first.results]
    assert (tmp_path / "ablation.json").read_text(encoding="utf-8") == before


def test_a_wider_grid_runs_only_what_is_new(
    short: Recipe, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(short, registries, tmp_path, axes={"positions": ["sequential"]})
    ids = trained(monkeypatch)
    outcome, _ = run(short, registries, tmp_path, axes={"positions": ["share_all", "sequential"]})
    assert [result.label for result in outcome.results] == ["positions=share_all", "positions=sequential"]
    assert ids == [index_of(tmp_path)["cells"][0]["id"]]


def test_a_wider_grid_that_is_interrupted_has_no_index(
    short: Recipe, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(short, registries, tmp_path, axes={"positions": ["sequential"]})

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        run(short, registries, tmp_path, axes={"positions": ["sequential", "share_all"]})
    assert not (tmp_path / "ablation.json").exists()  # that of the narrower grid would say that this one has ended


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), Stopped("stopped at step 1")])
def test_an_interrupted_grid_goes_on_where_it_stopped(
    short: Recipe,
    registries: Registries,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruption: BaseException,
) -> None:
    original = runner.train
    with monkeypatch.context() as patched:
        outs: list[str] = []

        def stop_at_the_second(recipe: Recipe, out: Path, **options: Any) -> Any:
            outs.append(out.name)
            if len(outs) == 2:
                raise interruption
            return original(recipe, out, **options)

        patched.setattr(runner, "train", stop_at_the_second)
        with pytest.raises(type(interruption)):
            run(short, registries, tmp_path)
    assert not (tmp_path / "ablation.json").exists()
    ids = trained(monkeypatch)
    outcome, lines = run(short, registries, tmp_path)
    assert "done before" in lines[0]
    assert len(ids) == 3
    assert outs[0] not in ids
    assert [result.label for result in outcome.results] == LABELS


class Fragile(PositionScheme):
    """Sequential, or broken while ``broken`` is true."""

    summary = "breaks on demand"
    broken = True

    def within(self, run: VisualLayout, *, image: VisualLayout) -> RunPositions:
        if self.broken:
            raise RuntimeError("a position <fell> off")
        return RunPositions(offsets=torch.arange(run.tokens), extent=run.tokens)


class FragilePlugin:
    """A plugin passed by hand."""

    @hookimpl
    def register_position_schemes(self) -> dict[str, type[PositionScheme]]:
        return {"fragile": Fragile}


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Registries:
    monkeypatch.setattr(Fragile, "broken", True)
    return load_registries(extra={"fragile": FragilePlugin()})


def test_a_cell_that_fails_is_told_and_does_not_stop_the_others(
    short: Recipe, fragile: Registries, tmp_path: Path
) -> None:
    outcome, lines = run(short, fragile, tmp_path, axes={"positions": ["fragile", "share_all", "sequential"]})
    assert outcome.failed == {"positions=fragile, seed 0": "RuntimeError: a position <fell> off"}
    assert [result.label for result in outcome.results] == ["positions=share_all", "positions=sequential"]
    assert lines[0] == "cell 1/3 positions=fragile, seed 0: FAILED: a position <fell> off"
    index = index_of(tmp_path)
    assert index["failed"] == outcome.failed
    assert len(index["cells"]) == 3
    kept = (tmp_path / "cells" / index["cells"][0]["id"] / "failed.txt").read_text(encoding="utf-8")
    assert "Traceback" in kept
    assert "in within" in kept


def test_a_failed_cell_is_tried_again(
    short: Recipe, fragile: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"positions": ["fragile", "share_all"]}
    run(short, fragile, tmp_path, axes=axes)
    monkeypatch.setattr(Fragile, "broken", False)
    outcome, lines = run(short, fragile, tmp_path, axes=axes)
    assert outcome.failed == {}
    assert [result.label for result in outcome.results] == ["positions=fragile", "positions=share_all"]
    assert "done before" in lines[1]
    assert list(tmp_path.rglob("failed.txt")) == []
    assert index_of(tmp_path)["failed"] == {}


def test_a_cell_that_another_process_has_finished_loses_its_reason(
    short: Recipe, fragile: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fragile, "broken", False)
    axes = {"positions": ["share_all"]}
    run(short, fragile, tmp_path, axes=axes)
    (cell,) = (tmp_path / "cells").iterdir()
    (cell / "failed.txt").write_text("another process is training here")
    _, lines = run(short, fragile, tmp_path, axes=axes)
    assert "done before" in lines[0]
    assert not (cell / "failed.txt").exists()


def test_a_full_disk_ends_the_grid(
    short: Recipe, fragile: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def full(*args: object, **_: object) -> None:
        started.append(args)
        raise StorageError("no space left", code="disk-full")

    monkeypatch.setattr(runner, "train", full)
    with pytest.raises(StorageError) as caught:
        run(short, fragile, tmp_path, axes={"positions": ["share_all", "sequential"]})
    assert caught.value.code == "disk-full"
    assert len(started) == 1
    assert list(tmp_path.rglob("failed.txt")) == []


def test_when_every_cell_fails_there_is_no_result_and_no_crash(
    short: Recipe, fragile: Registries, tmp_path: Path
) -> None:
    outcome, _ = run(short, fragile, tmp_path, axes={"positions": ["fragile"]})
    assert outcome.results == []
    assert list(outcome.failed) == ["positions=fragile, seed 0"]
    assert index_of(tmp_path)["results"] == []


def test_problems_of_all_cells_come_before_anything_runs(
    short: Recipe, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = trained(monkeypatch)
    with pytest.raises(RecipeError) as caught:
        run(short, registries, tmp_path / "grid", axes={"fusion.patches_per_token": [1, 3, 7]})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "fusion.patches_per_token=3",
        "fusion.patches_per_token=7",
    ]
    assert ids == []
    assert not (tmp_path / "grid").exists()


def test_a_recipe_that_never_evaluates_fails_with_the_reason(
    short: Recipe, registries: Registries, tmp_path: Path
) -> None:
    recipe = parse_recipe(short.dump(), overrides=["evaluation.after=never"], registries=registries)
    outcome, _ = run(recipe, registries, tmp_path, axes={"positions": ["share_all"]})
    assert "evaluation.after is 'never'" in outcome.failed["positions=share_all, seed 0"]


def test_a_folder_with_something_else_is_not_touched(short: Recipe, registries: Registries, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(RunError, match="is not empty and not an ablation"):
        run(short, registries, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_changes_for_every_cell_are_made(
    tiny_recipe: Callable[..., Recipe], short: Recipe, registries: Registries, tmp_path: Path
) -> None:
    ablation = {"axes": {"positions": ["share_all"]}, "set": {"evaluation.limit": 5}}
    stages = [stage.model_dump() for stage in short.stages]
    recipe = tiny_recipe(moe=None, stages=stages, ablation=ablation)
    outcome, _ = run(recipe, registries, tmp_path, axes=None)
    assert outcome.results[0].questions == 5
    assert index_of(tmp_path)["axes"] == {"positions": ["share_all"]}


def test_a_cell_keeps_no_finished_model(short: Recipe, registries: Registries, tmp_path: Path) -> None:
    run(short, registries, tmp_path, axes={"positions": ["share_all"]})
    (cell,) = (tmp_path / "cells").iterdir()
    assert not (cell / "config.json").exists()
    assert (cell / "recipe.toml").exists()
    record = json.loads((cell / "result.json").read_text(encoding="utf-8"))
    assert (record["label"], record["seed"], record["questions"]) == ("positions=share_all", 0, 12)


def test_tokens_and_positions_are_those_of_the_plan(short: Recipe, registries: Registries, tmp_path: Path) -> None:
    outcome, _ = run(short, registries, tmp_path, axes={"fusion.patches_per_token": [2]})
    (cell,) = (tmp_path / "cells").iterdir()
    recipe = parse_recipe({**short.dump(), "fusion": {"use": "mlp", "patches_per_token": 2}}, registries=registries)
    budget = budgets(recipe, registries, dim=1)
    assert (outcome.results[0].visual_tokens, outcome.results[0].positions) == (6, 4)  # half the columns, as many rows
    assert (budget.tokens, budget.positions) == (6, 4)
    assert cell.is_dir()


def test_a_renamed_recipe_goes_on(short: Recipe, registries: Registries, tmp_path: Path) -> None:
    axes = {"positions": ["share_all"]}
    run(short, registries, tmp_path, axes=axes)
    for path in tmp_path.glob("cells/*/result.json"):
        path.unlink()  # as if it had been stopped in the cell
    outcome, _ = run(short.model_copy(update={"name": "other"}), registries, tmp_path, axes=axes)
    assert outcome.failed == {}


def test_the_ablation_of_another_recipe_is_not_touched(short: Recipe, registries: Registries, tmp_path: Path) -> None:
    axes = {"positions": ["share_all"]}
    run(short, registries, tmp_path, axes=axes)
    before = (tmp_path / "base.toml").read_text(encoding="utf-8")
    with pytest.raises(RunError, match="is the ablation of another recipe:\n  - seed: 0 there, 7 here"):
        run(short.model_copy(update={"seed": 7}), registries, tmp_path, axes=axes)
    changed = short.model_copy(update={"ablation": short.ablation.model_copy(update={"set": {"evaluation.limit": 5}})})
    with pytest.raises(RunError, match=r"evaluation\.limit"):
        run(changed, registries, tmp_path, axes=axes)
    assert (tmp_path / "base.toml").read_text(encoding="utf-8") == before


def test_when_the_first_cell_fails_nothing_is_compared(short: Recipe, fragile: Registries, tmp_path: Path) -> None:
    outcome, _ = run(short, fragile, tmp_path, axes={"positions": ["fragile", "share_all", "sequential"]})
    assert [result.difference for result in outcome.results] == [None, None]


def test_a_cell_without_a_question_fails_with_the_reason(
    short: Recipe, registries: Registries, tmp_path: Path, tiny_data: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny_data, folder)
    first = json.loads((folder / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])
    (folder / first["image"]).write_bytes(b"no picture")
    data = {**short.dump()["data"], "folder": str(folder), "max_unreadable": 1.0}
    recipe = parse_recipe({**short.dump(), "data": data}, overrides=["evaluation.limit=1"], registries=registries)
    outcome, _ = run(recipe, registries, tmp_path / "grid", axes={"positions": ["share_all"]})
    assert "no test question was answered" in outcome.failed["positions=share_all, seed 0"]


def test_data_of_another_folder_is_another_ablation(
    short: Recipe, registries: Registries, tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {**short.dump(), "data": {"use": "jsonl", "folder": "data"}}
    recipe = parse_recipe(data, registries=registries)
    for place in ("a", "b"):
        shutil.copytree(tiny_data, tmp_path / place / "data")
    monkeypatch.chdir(tmp_path / "a")
    run(recipe, registries, tmp_path / "grid", axes={"positions": ["share_all"]})
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(RunError, match=r"data\.folder"):
        run(recipe, registries, tmp_path / "grid", axes={"positions": ["share_all", "share_row"]})
