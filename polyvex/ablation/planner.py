"""From a recipe and axes to cells, each a recipe of its own with a name that its content decides."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polyvex.ablation.axes import apply, expand, label
from polyvex.assemble import encoder_tables
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe import parse_recipe
from polyvex.recipe.model import encoder_names, recipe_model
from polyvex.recipe.overrides import Change, apply_changes, describe_dropped
from polyvex.recipe.schema import Recipe
from polyvex.recipe.walk import Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of an ablation: the values of its axes, its seed, its recipe, and an id that is a hash of the recipe."""

    id: str
    values: dict[str, Any]
    seed: int
    recipe: Recipe

    @property
    def label(self) -> str:
        """Its values in one line."""
        return label(self.values)


def plan_cells(
    recipe: Recipe,
    registries: Registries,
    *,
    axes: Mapping[str, list[Any] | str] | None = None,
    seeds: int = 0,
    out: Path | None = None,
) -> list[Cell]:
    """All cells, seeds of one combination side by side. ``axes`` and ``seeds`` default to the recipe's ``[ablation]``.

    Args:
        out: folder of the ablation, if it has one: cells that are begun there may have lost what they started from.

    Raises:
        RecipeError: lists the problems of every cell that cannot work or that equals another one, before anything
            runs.
    """
    axes = dict(axes or recipe.ablation.axes)
    if not axes:
        raise RecipeError(["no axis. Give --axis name=values, or [ablation.axes] in the recipe"], source="ablate")
    if "seed" in axes:
        raise RecipeError(
            ["axis seed: seeds repeat each combination and are compared in pairs. Use --seeds N"], source="ablate"
        )
    model = registries.derive(recipe_model)
    raw = _base(recipe.located(), model)
    cells, problems, dropped = [], [], []
    place = None if out is None else (lambda one: cell_folder(out, recipe_id(one)))
    for values in expand(axes, encoder_names(recipe)):
        for offset in range(seeds or recipe.ablation.seeds):
            changed = apply(raw, values, model)
            dropped += [replace(one, source=f"{one.source} = {one.use}") for one in changed.dropped if not one.default]
            data = {**changed.data, "seed": recipe.seed + offset}
            try:
                checked = parse_recipe(data, registries=registries, source=label(values), out=place)
            except RecipeError as error:
                problems += [f"{label(values)}: {problem}" for problem in error.problems]
                break
            cells.append(_cell(values, checked))
    problems += _same(cells)
    if problems:
        raise RecipeError(problems, source="ablate")
    for sentence in describe_dropped(dropped):
        logger.warning(sentence)
    return cells


def _cell(values: dict[str, Any], recipe: Recipe) -> Cell:
    """The recipe is named after its content, so a renamed base recipe finds its finished cells again."""
    found = recipe_id(recipe)
    return Cell(id=found, values=values, seed=recipe.seed, recipe=recipe.model_copy(update={"name": f"cell-{found}"}))


def _same(cells: Sequence[Cell]) -> list[str]:
    """One sentence for each cell that is the same run as an earlier one: it would count as a second measurement."""
    first: dict[str, Cell] = {}
    problems = []
    for cell in cells:
        earlier = first.setdefault(cell.id, cell)
        if earlier is not cell:
            same = "is there twice" if earlier.label == cell.label else f"is the same recipe as {earlier.label}"
            problems.append(f"{cell.label} {same}. Name each value once, and only values that change the recipe")
    return list(dict.fromkeys(problems))


def _base(recipe: Recipe, model: Model) -> dict[str, Any]:
    """The recipe as plain data, with encoders named, ``[ablation.set]`` applied and ``[ablation]`` itself left out."""
    raw = recipe.dump()
    changes: dict[str, Any] = raw.pop("ablation").get("set", {})
    raw["encoders"] = encoder_tables(recipe)
    read = [Change(source=f"[ablation.set] {path}", path=path, value=value) for path, value in changes.items()]
    changed = apply_changes(raw, read, model)
    if changed.problems:
        raise RecipeError(changed.problems, source=recipe.name)
    for sentence in describe_dropped(one for one in changed.dropped if not one.default):
        logger.warning(sentence)
    return changed.data


def cell_folder(out: Path, cell: str) -> Path:
    """The folder of a cell, by its id, in that of its ablation."""
    return out / "cells" / cell


def recipe_id(recipe: Recipe) -> str:
    """A hash of everything in a recipe but its name: the same recipe is the same cell, whoever planned it."""
    content = {key: value for key, value in recipe.dump().items() if key not in ("name", "ablation")}
    if all("positions" in table for table in content["encoders"]):
        del content["positions"]  # every encoder overrides the default, so it has no effect
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def combinations(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells by label: the seeds of each combination."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.label, []).append(cell)
    return groups
