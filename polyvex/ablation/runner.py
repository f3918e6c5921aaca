"""Run the cells of an ablation; each is a run directory, so an interrupted grid goes on where it stopped."""

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyvex.ablation.compare import Result, compare_all
from polyvex.ablation.planner import Cell, cell_folder, combinations, plan_cells
from polyvex.errors import PolyvexError, RunError, StorageError
from polyvex.evaluation.evaluate import Answered
from polyvex.evaluation.intervals import figure
from polyvex.hooks.manager import Registries
from polyvex.plan.tokens import budgets
from polyvex.processes import processes
from polyvex.recipe.schema import Recipe
from polyvex.records.ablation import CellResult
from polyvex.records.evaluation import EvaluationSummary
from polyvex.records.files import read_lines, read_record, read_toml
from polyvex.rundir import dump_recipe, refuse_another
from polyvex.storage import below, write_text
from polyvex.training.stages import NOT_AS_THERE, STARTS, Stopped, train
from polyvex.training.together import wait

Say = Callable[[str], None]

INDEX = "ablation.json"
"""File with the plan and the results of an ablation that ran to its end."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an ablation: one result per combination of values, and the cells that failed with the reason."""

    results: list[Result]
    failed: dict[str, str]


def ablate(
    recipe: Recipe,
    registries: Registries,
    out: str | Path,
    *,
    axes: Mapping[str, list[Any] | str] | None = None,
    seeds: int = 0,
    cache: str | Path | None = None,
    say: Say = print,
    progress: bool = True,
) -> Outcome:
    """Train and evaluate every cell from the cache, compare them question by question, and write the results.

    A cell that fails is told and left out; the others go on. Called again, finished cells are not run again, and
    failed ones are tried once more.

    Raises:
        RecipeError: before anything runs, if a cell cannot work.
        RunError: if ``out`` holds something else, or the ablation of another recipe (every difference is shown).
        StorageError: if the disk is full; the other cells are not tried.
    """
    recipe = recipe.located()
    cells = plan_cells(recipe, registries, axes=axes, seeds=seeds, out=Path(out))
    folder = _open(Path(out), recipe)
    writes = processes().first
    if writes:  # the index of an earlier call may list other cells, and counts only if this one ends
        (folder / INDEX).unlink(missing_ok=True)
    failed: dict[str, str] = {}
    for number, cell in enumerate(cells, 1):
        head = f"cell {number}/{len(cells)} {cell.label}, seed {cell.seed}"
        # A failed cell leaves its reason, which is stale once the cell runs again or another process has finished it.
        reason = cell_folder(folder, cell.id) / "failed.txt"
        reason.unlink(missing_ok=True)
        if _result_file(folder, cell).exists():
            say(f"{head}: done before, {_figure(_result(folder, cell))}")
            continue
        try:
            for line in _run_cell(folder, cell, registries, cache=cache, progress=progress):
                say(f"{head}: {line}")
        except (KeyboardInterrupt, Stopped):
            raise
        except Exception as error:  # one cell must not take the others with it
            if isinstance(error, StorageError) and error.code == "disk-full":
                raise  # no other cell would find space
            failed[f"{cell.label}, seed {cell.seed}"] = f"{type(error).__name__}: {error}"
            write_text(reason, traceback.format_exc())
            say(f"{head}: FAILED: {error}")
            continue
        say(f"{head}: {_figure(_result(folder, cell))}")
    results = compare_all(read_groups(folder, cells, registries), first=cells[0].label)
    if writes:
        _write_index(folder, cells, results, failed, axes or recipe.ablation.axes)
    return Outcome(results=results, failed=failed)


def _open(folder: Path, recipe: Recipe) -> Path:
    if folder.exists() and any(folder.iterdir()) and not (folder / "cells").is_dir():
        raise RunError(f"{folder} is not empty and not an ablation (no cells there). Choose another --out")
    base = folder / "base.toml"
    if base.exists():
        _check_base(base, recipe)
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    write_text(base, dump_recipe(recipe))
    return folder


def _check_base(path: Path, recipe: Recipe) -> None:
    """Refuse another recipe. Its name, axes and seeds may differ: a grid may grow, and cells know their content."""
    stored = read_toml(path)
    refuse_another(_fixed(stored), _fixed(recipe.dump()), what=f"{path.parent} is the ablation")


def _fixed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What has to stay the same in a folder: everything but the name, the axes and the number of seeds."""
    kept = {key: value for key, value in recipe.items() if key not in ("name", "ablation")}
    return {**kept, "ablation.set": recipe.get("ablation", {}).get("set", {})}


def _result_file(folder: Path, cell: Cell) -> Path:
    return cell_folder(folder, cell.id) / "result.json"


def _run_cell(
    folder: Path, cell: Cell, registries: Registries, *, cache: str | Path | None, progress: bool
) -> list[str]:
    """Train and evaluate a cell; return what it said of another run that it starts from."""
    started = time.perf_counter()
    out = cell_folder(folder, cell.id)
    lines: list[str] = []
    run = train(cell.recipe, out, registries=registries, cache=cache, say=lines.append, progress=progress, export=False)
    last = len(cell.recipe.stages) - 1
    summary_path = run.evaluation(f"{last}-{cell.recipe.stages[last].name}")
    if not summary_path.exists():
        raise PolyvexError(f"no evaluation after the last stage: evaluation.after is '{cell.recipe.evaluation.after}'")
    summary = read_record(summary_path, EvaluationSummary)
    if summary.accuracy is None:
        raise PolyvexError("no test question was answered, so there is nothing to compare. Is the test split empty?")
    record = {
        "id": cell.id,
        "values": cell.values,
        "label": cell.label,
        "seed": cell.seed,
        "seconds": time.perf_counter() - started,
        "answers": str(summary_path.with_suffix(".jsonl").relative_to(out)),
        **summary.model_dump(),
    }
    if processes().first:
        write_text(out / "result.json", json.dumps(record, indent=2))
    wait(processes())
    return [line for line in lines if line.startswith((STARTS, NOT_AS_THERE))]


def _result(folder: Path, cell: Cell) -> CellResult:
    return read_record(_result_file(folder, cell), CellResult)


def _figure(result: CellResult) -> str:
    return f"{result.metric} {figure(result.accuracy, graded=result.graded, digits=2)}"


def read_groups(folder: Path, cells: Sequence[Cell], registries: Registries) -> list[dict[str, Any]]:
    """For each combination of values that has a finished cell: its scores by question and seed, and its budget."""
    groups = []
    for label, members in combinations(cells).items():
        done = [cell for cell in members if _result_file(folder, cell).exists()]
        if not done:
            continue
        budget = budgets(done[0].recipe, registries, dim=1)
        groups.append(
            {
                "label": label,
                "values": done[0].values,
                "seeds": [cell.seed for cell in done],
                "scores": [_scores(folder, cell) for cell in done],
                "metric": _result(folder, done[0]).metric,
                "graded": any(_result(folder, cell).graded for cell in done),
                "visual_tokens": budget.tokens,
                "positions": budget.positions,
            }
        )
    return groups


def _scores(folder: Path, cell: Cell) -> dict[str, float]:
    result = _result(folder, cell)
    path = below(cell_folder(folder, cell.id), result.answers, nested=True)
    return {answer.id: answer.score for answer in read_lines(path, Answered, sha256=result.answers_sha256)}


def _write_index(
    folder: Path,
    cells: Sequence[Cell],
    results: Sequence[Result],
    failed: Mapping[str, str],
    axes: Mapping[str, list[Any] | str],
) -> None:
    index = {
        "axes": dict(axes),
        "cells": [{"id": cell.id, "label": cell.label, "seed": cell.seed, "values": cell.values} for cell in cells],
        "results": [result.as_dict() for result in results],
        "failed": dict(failed),
    }
    write_text(folder / INDEX, json.dumps(index, indent=2))
