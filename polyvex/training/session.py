"""What every stage and evaluation of one run shares."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyvex.assemble import make_processor
from polyvex.errors import RunError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexProcessor
from polyvex.recipe.samples import training_texts
from polyvex.recipe.schema import Recipe
from polyvex.rundir import RunDirectory, write_whole
from polyvex.training.lock import make_lock
from polyvex.training.prepare import Prepared, prepare

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A recipe with its registries, run directory, data and processor, and how to talk to people."""

    recipe: Recipe
    registries: Registries
    run: RunDirectory
    data: Prepared
    processor: PolyvexProcessor
    say: Say
    progress: bool


def open_session(
    recipe: Recipe, registries: Registries, run: RunDirectory, *, cache: str | Path | None, say: Say, progress: bool
) -> Session:
    """Read the data, fill the cache, make or load the processor, and check or write the lock.

    Raises:
        RunError: if weights or data are not those that the run began with.
    """
    data = prepare(recipe, registries, folder=cache, progress=progress)
    say(str(data.report))
    if data.skipped_train or data.skipped_test:
        say(f"LEFT OUT: {data.skipped_train} training and {data.skipped_test} test samples with unreadable images")
    if (run.path / "processor_config.json").exists():
        processor = PolyvexProcessor.from_pretrained(run.path, registries=registries)
    else:
        processor = make_processor(recipe, registries, training_texts(recipe, registries))
        processor.save_pretrained(run.path)
    left_out = {"train": data.skipped_train, "test": data.skipped_test}
    _check_lock(run, make_lock(recipe, registries, [*data.train, *data.test], data.cache, left_out=left_out))
    return Session(
        recipe=recipe, registries=registries, run=run, data=data, processor=processor, say=say, progress=progress
    )


def _check_lock(run: RunDirectory, lock: dict[str, Any]) -> None:
    if not run.lock.exists():
        write_whole(run.lock, json.dumps(lock, indent=2))
        return
    before = json.loads(run.lock.read_text(encoding="utf-8"))
    for key in ("weights_sha256", "data_sha256"):
        if before[key] != lock[key]:
            raise RunError(
                f"{run.path}: {key} is now {lock[key]}, but the run began with {before[key]}. Choose another --out"
            )
