"""The directory of a run: what is where, and whether it belongs to a recipe."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock, Timeout

from polyvex.errors import RunError
from polyvex.manifest import Manifest, read_manifest
from polyvex.processes import processes
from polyvex.recipe.differences import differences
from polyvex.recipe.schema import Recipe, Stage
from polyvex.records.files import read_record, read_toml
from polyvex.records.run import DoneRecord
from polyvex.storage import PART, below, check_readable, flush, remove_stale_parts, share, space_for, write_text

BUSY = ".busy"
"""File that the process which trains in a run holds."""

FINISHED = "finished.json"
"""File of a run with the checksums of the finished model and its processor; it is written last."""


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
        return (self.path / FINISHED).exists()

    def finish(self, files: Manifest | None = None) -> None:
        """Mark the run as finished, once its model is written whole; ``files`` are those that transformers loads."""
        write_text(self.path / FINISHED, (files or Manifest(files={})).model_dump_json(indent=2) + "\n")

    def check_finished(self) -> None:
        """Compare the files of the finished model and its processor with their checksums.

        A run that an earlier version of polyvex finished has no checksums, and passes.

        Raises:
            RunError: with the code ``changed-files``, if a file is missing or differs.
        """
        path = self.path / FINISHED
        record = read_json(path)
        if record and (faults := read_manifest(record, path).faults(self.path)):
            raise changed_files(
                self.path,
                faults,
                f"delete {path} and run the command that trained it again: it writes the model anew from the last "
                f"stage, without training",
            )

    def stage(self, index: int, stage: Stage) -> "StageDirectory":
        """The folder of a stage."""
        return StageDirectory(below(self.path / "stages", f"{index}-{stage.name}"))

    def evaluation(self, name: str) -> Path:
        """The file of an evaluation's summary; its answers are beside it, in ``<name>.jsonl``."""
        return below(self.path / "evaluation", f"{name}.json")

    def check(self, recipe: Recipe) -> bool:
        """Check that the directory is free, or this recipe's run; return whether the run is there. Writes nothing.

        Raises:
            RunError: if the directory holds another recipe's run (every difference is shown) or something else.
        """
        check_readable(self.path)
        if self.recipe.exists():
            self.check_recipe(recipe)
            return True
        if self.path.is_file():
            raise RunError(f"{self.path} is a file, expected a folder or nothing. Choose another --out")
        if self.path.exists() and not all(_left_over(entry.name) for entry in self.path.iterdir()):
            raise RunError(f"{self.path} is not empty and not a run (no recipe.toml). Choose another --out")
        return False

    def begin(self, recipe: Recipe) -> None:
        """Write the recipe, with the paths as they are now. Only from here on does the directory belong to it."""
        text = dump_recipe(recipe)
        if not self.recipe.exists() or self.recipe.read_text(encoding="utf-8") != text:
            write_text(self.recipe, text)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training here; the hold ends with the process, however that ends.

        Raises:
            RunError: if another process is at it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not processes().first:  # the first of several processes that train together holds it for all
            yield
            return
        hold = FileLock(self.path / BUSY)
        try:
            hold.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another process is training in {self.path}. Wait for it, or choose another --out"
            ) from None
        try:
            remove_stale_parts(self.path)
            yield
        finally:
            hold.release()

    def check_recipe(self, recipe: Recipe) -> None:
        """Compare ``recipe`` with the stored one; see :meth:`check`.

        Name and ``[ablation]`` do not touch a run. Neither does where files are: hashes of data and weights are kept.
        """
        stored = read_toml(self.recipe)
        there, here = (_content(one, recipe) for one in (stored, recipe.dump()))
        refuse_another(there, here, what=f"{self.path} is the run")


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

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def done(self) -> dict[str, Any] | None:
        """What was written when the stage ended; None before.

        Raises:
            RunError: with the code ``damaged-record``, if the file is damaged.
        """
        path = self.path / "done.json"
        return read_record(path, DoneRecord).model_dump(exclude={"version"}) if path.exists() else None

    def finish(self, record: Mapping[str, Any]) -> None:
        """Mark the stage as done."""
        write_text(self.path / "done.json", json.dumps(record, indent=2))

    def check_model(self) -> None:
        """Compare the files of the stage's model with the checksums that were written when the stage ended.

        A stage that an earlier version of polyvex stored has no checksums, and passes.

        Raises:
            RunError: with the code ``changed-files``, if a file is missing or differs.
        """
        kept = (self.done() or {}).get("files")
        if kept is not None and (faults := read_manifest(kept, self.path / "done.json").faults(self.model)):
            raise changed_files(
                self.model,
                faults,
                f"delete {self.path} and the folders of all later stages, and run the command again: it trains from "
                f"the stage before",
            )


def open_run(path: str | Path) -> RunDirectory:
    """A run that is there.

    Raises:
        RunError: if there is no run at ``path``.
        StorageError: if a file of the run exists but cannot be read.
    """
    run = RunDirectory(Path(path))
    check_readable(run.path)
    if not run.recipe.exists():
        raise RunError(f"no run at {path} (no recipe.toml there). Make one: polyvex train RECIPE --out {path}")
    return run


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML."""
    return tomlkit.dumps(recipe.dump())


def store_whole(folder: Path, save: Callable[[Path], object], *, last: str, needed: int = 0) -> Manifest:
    """Let ``save`` write files into a folder of its own, then move them here, the one named ``last`` at the end.

    So a reader never finds half a file, and finds ``last`` only when all are there.

    Args:
        needed: bytes that ``save`` writes.

    Returns:
        The files with their checksums.

    Raises:
        StorageError: with the code ``disk-full``; the files that were here stay.
    """
    part = folder / f".{last}.{os.getpid()}{PART}"
    with space_for(folder, needed=needed):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            save(part)
            share(part)
            flush(part)
            files = Manifest.of(part)
            for path in sorted(part.iterdir(), key=lambda path: path.name == last):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return files


def read_json(path: Path) -> dict[str, Any]:
    """A record that polyvex wrote, as plain data.

    Raises:
        RunError: with the code ``damaged-record``, if the file is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}. Restore the file", code="damaged-record") from None
    if not isinstance(value, dict):
        raise RunError(
            f"{path} holds {type(value).__name__}, expected an object. Restore the file", code="damaged-record"
        )
    return value


def changed_files(folder: Path, faults: Sequence[str], remedy: str) -> RunError:
    """The error for stored files that are not as they were written."""
    shown = "".join(f"\n  - {fault}" for fault in faults)
    return RunError(
        f"{folder}: files changed since they were stored:{shown}\nRestore them, or {remedy}", code="changed-files"
    )


def refuse_another(there: Mapping[str, Any], here: Mapping[str, Any], *, what: str) -> None:
    """Compare two recipes as plain data.

    Raises:
        RunError: if they differ; ``what`` begins the sentence, and every difference is shown.
    """
    if found := list(differences(there, here)):
        shown = "\n".join(f"  - {line}" for line in found)
        raise RunError(f"{what} of another recipe:\n{shown}\nChoose another --out, or undo the change")


def _left_over(name: str) -> bool:
    """Whether a file says nothing of what a directory is: a hold, or what a process that was killed left half done."""
    return name == BUSY or name.endswith(PART)


def _content(recipe: Mapping[str, Any], options: Recipe) -> dict[str, Any]:
    """A recipe as plain data, without what does not touch a run's result."""
    kept = copy.deepcopy({key: value for key, value in recipe.items() if key not in ("name", "ablation")})
    tables = [(kept.get("data"), options.data)]
    tables += [(kept.get("start"), options.start)] if options.start is not None else []
    tables += zip(kept.get("encoders", []), options.encoders, strict=False)
    for table, of in tables:
        for key in of.path_options():
            (table or {}).pop(key, None)
    return kept
