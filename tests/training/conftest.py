"""Whole runs of the tiny recipe: about a second each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyvex.cache import TokenCache, fill_cache
from polyvex.data import Sample
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.samples import read_split
from polyvex.rundir import RunDirectory
from polyvex.training.stages import train

ALIGN: dict[str, Any] = {"name": "align", "trains": ["connector"], "steps": 3, "batch_size": 4}
TUNE: dict[str, Any] = {"name": "tune", "trains": ["connector", "lm"], "steps": 4, "batch_size": 4}


class Said(list[str]):
    """Lines that a run said; ``any_with`` finds one by a part of it."""

    def any_with(self, part: str) -> bool:
        return any(part in line for line in self)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def run(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path, said: Said
) -> Callable[..., RunDirectory]:
    """A function that trains the tiny recipe with changes in a folder of this test, and keeps what was said."""

    def make(*overrides: str, out: str = "run", recipe: Recipe | None = None, **tables: Any) -> RunDirectory:
        export = tables.pop("export", False)
        recipe = recipe or tiny_recipe(*overrides, **tables)
        return train(recipe, tmp_path / out, registries=registries, say=said.append, progress=False, export=export)

    return make


@pytest.fixture(scope="session")
def one_stage() -> Callable[..., dict[str, Any]]:
    """A function that returns tables of a dense recipe with one quick stage, by keyword for ``run``."""

    def make(**changes: Any) -> dict[str, Any]:
        stage = {**TUNE, **changes}
        return {"moe": None, "stages": [stage], "evaluation": {"after": "never"}}

    return make


@pytest.fixture(scope="session")
def whole_run(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDirectory, Said]:
    """The tiny recipe, trained to its end and exported, and what it said. Shared: look, do not touch."""
    said = Said()
    cache, out = tmp_path_factory.mktemp("whole_cache"), tmp_path_factory.mktemp("whole") / "run"
    run = train(tiny_recipe(), out, registries=registries, cache=cache, say=said.append, progress=False)
    return run, said


@pytest.fixture
def own_data(tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    """The data table of a copy that a test may change."""
    shutil.copytree(tiny_data, tmp_path / "data")
    return {"use": "jsonl", "folder": str(tmp_path / "data")}


@pytest.fixture
def samples(tiny_recipe: Callable[..., Recipe], registries: Registries) -> list[Sample]:
    """The tiny test split, and a question without a picture."""
    return [*read_split(tiny_recipe(), registries, "test"), Sample(id="t", question="no picture?", answer="a")]


@pytest.fixture
def cache(tiny_recipe: Callable[..., Recipe], registries: Registries, samples: list[Sample]) -> TokenCache:
    """The tokens of their pictures, by the tiny recipe's encoders."""
    return fill_cache(tiny_recipe(), registries, samples, progress=False)[0]
