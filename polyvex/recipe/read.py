"""Read a recipe: TOML text, changes from the command line, strict checks. Nothing is built or downloaded."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from polyvex.errors import DataError, RecipeError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.reading import read_regular
from polyvex.recipe.check import find_problems
from polyvex.recipe.model import recipe_model
from polyvex.recipe.order import in_order
from polyvex.recipe.overrides import apply_changes, describe_dropped, read_overrides
from polyvex.recipe.plain import find_excesses, parse_toml
from polyvex.recipe.problems import explain
from polyvex.recipe.schema import Recipe

logger = logging.getLogger(__name__)

MOST_BYTES = 2**24
"""Size of the largest recipe file that is read."""


def read_recipe(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    registries: Registries | None = None,
    out: str | Path | None = None,
) -> Recipe:
    """Read and check a recipe file.

    Args:
        overrides: changes written ``a.b=c``, checked like the file itself.
        registries: what recipes may name; the installed plugins if not given.
        out: folder of the recipe's run, if it has one. Past its first stage, the run that ``[start]`` names may be
            gone.

    Raises:
        RecipeError: lists every problem of the file and of the overrides at once.
    """
    path = Path(path)
    try:
        raw, problems = parse_toml(read_regular(path, what="recipe", limit=MOST_BYTES))
    except DataError as error:
        way_out = f". Write one with: polyvex compose -o {path}" if error.code == "file-missing" else ""
        raise RecipeError([f"{error}{way_out}"], source=str(path), code=error.code) from None
    if problems:
        raise RecipeError(problems, source=str(path), code="recipe-toml")
    out = Path(out) if out is not None else None
    return parse_recipe(raw, overrides=overrides, registries=registries, source=str(path), out=out)


def parse_recipe(
    raw: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    registries: Registries | None = None,
    source: str = "recipe",
    out: Path | Callable[[Recipe], Path] | None = None,
) -> Recipe:
    """Check a recipe that is already plain data; see :func:`read_recipe`.

    Args:
        out: folder of the recipe's run, or what tells it once types and names are checked.
    """
    registries = registries or load_registries()
    if excesses := find_excesses(raw):  # before anything walks through it
        raise RecipeError(excesses, source=source, code="recipe-excess")
    model = registries.derive(recipe_model)
    changes, problems = read_overrides(overrides)
    data: Mapping[str, Any] = raw
    if changes:
        changed = apply_changes(raw, changes, model)
        data, problems = changed.data, problems + changed.problems
        for sentence in describe_dropped(changed.dropped):
            logger.warning(sentence)
        if excesses := find_excesses(data):
            raise RecipeError(excesses, source="--set", code="recipe-excess")
    try:
        recipe = model.model_validate(dict(data))
    except ValidationError as error:
        raise RecipeError(problems + explain(error, model, dict(data)) + _absent(registries), source=source) from None
    try:
        recipe = in_order(recipe)
    except ValueError as error:
        problems.append(str(error))
    problems += find_problems(recipe, registries, out=out(recipe) if callable(out) else out)
    if problems:
        raise RecipeError(problems, source=source)
    return recipe


def _absent(registries: Registries) -> list[str]:
    """Plugins that are not there to name: a name that seems unknown may be one of theirs."""
    return [f"plugin {status.plugin} could not be loaded: {status.reason}" for status in registries.broken()]
