"""The directory of a run: what is where, and whether it belongs to a recipe."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from polyvex.errors import RunError
from polyvex.recipe.schema import Recipe, Stage


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside a run.

    ``recipe.toml`` (resolved), ``lock.json``, ``stages/<n>-<name>/``, ``evaluation/``, and, once it is finished, the
    model and its processor, which transformers can load from here.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.toml"

    @property
    def lock(self) -> Path:
        """Versions, hashes and seeds."""
        return self.path / "lock.json"

    @property
    def finished(self) -> bool:
        """Whether the finished model is here."""
        return (self.path / "finished.json").exists()

    def finish(self) -> None:
        """Mark the run as finished, once its model is written whole."""
        write_whole(self.path / "finished.json", "{}\n")

    def stage(self, index: int, stage: Stage) -> "StageDirectory":
        """The folder of a stage."""
        return StageDirectory(self.path / "stages" / f"{index}-{stage.name}")

    def evaluation(self, name: str) -> Path:
        """The file of an evaluation's summary; its answers are beside it, in ``<name>.jsonl``."""
        return self.path / "evaluation" / f"{name}.json"

    def prepare(self, recipe: Recipe) -> bool:
        """Make the directory for ``recipe``, or check that it is this recipe's; return whether it was there.

        Raises:
            RunError: if the directory holds another recipe's run (every difference is shown) or something else.
        """
        if self.recipe.exists():
            self.check_recipe(recipe)
            return True
        if self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path} is not empty and not a run (no recipe.toml). Choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.recipe, dump_recipe(recipe))
        return False

    def check_recipe(self, recipe: Recipe) -> None:
        """Compare ``recipe`` with the stored one; see :meth:`prepare`."""
        stored = tomlkit.parse(self.recipe.read_text(encoding="utf-8")).unwrap()
        refuse_another(stored, recipe.dump(), what=f"{self.path} is the run")


@dataclass(frozen=True)
class StageDirectory:
    """Paths inside a stage's folder: ``metrics.jsonl``, ``checkpoints/``, ``model/``, and ``done.json`` at its end."""

    path: Path

    @property
    def metrics(self) -> Path:
        """One JSON line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def model(self) -> Path:
        """The model after the stage, without encoders."""
        return self.path / "model"

    def done(self) -> dict[str, Any] | None:
        """What was written when the stage ended; None before."""
        path = self.path / "done.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, record: Mapping[str, Any]) -> None:
        """Mark the stage as done."""
        write_whole(self.path / "done.json", json.dumps(record, indent=2))


def open_run(path: str | Path) -> RunDirectory:
    """A run that is there.

    Raises:
        RunError: if there is no run at ``path``.
    """
    run = RunDirectory(Path(path))
    if not run.recipe.exists():
        raise RunError(f"no run at {path} (no recipe.toml there). Make one: polyvex train RECIPE --out {path}")
    return run


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML."""
    return tomlkit.dumps(recipe.dump())


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half_done = path.with_name(f"{path.name}.part")
    half_done.write_text(text, encoding="utf-8")
    os.replace(half_done, path)


def refuse_another(there: Mapping[str, Any], here: Mapping[str, Any], *, what: str) -> None:
    """Compare two recipes as plain data.

    Raises:
        RunError: if they differ; ``what`` begins the sentence, and every difference is shown.
    """
    if found := list(differences(there, here)):
        shown = "\n".join(f"  - {line}" for line in found)
        raise RunError(f"{what} of another recipe:\n{shown}\nChoose another --out, or undo the change")


def differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    """Say where two recipes differ, one line per value."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            path = f"{where}.{key}" if where else key
            if key not in here:
                yield f"{path}: {there[key]!r} there, missing here"
            elif key not in there:
                yield f"{path}: missing there, {here[key]!r} here"
            else:
                yield from differences(there[key], here[key], path)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, (old, new) in enumerate(zip(there, here, strict=True)):
            yield from differences(old, new, f"{where}.{index}")
    elif there != here:
        yield f"{where}: {there!r} there, {here!r} here"
