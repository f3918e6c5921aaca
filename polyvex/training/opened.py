"""A finished run opened to look at one of its splits: its model, the samples whose images can be read, their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyvex.answer import Assistant, load
from polyvex.cache.encode import Known, TokenCache, fill_cache
from polyvex.cache.reader import ImageReader, TokenCounter
from polyvex.data.base import Sample
from polyvex.data.lengths import check_lengths
from polyvex.errors import DataError, RecipeError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.recipe import read_recipe
from polyvex.recipe.samples import image_limits, image_notes, read_split
from polyvex.recipe.schema import Recipe
from polyvex.records.files import read_record
from polyvex.records.run import DataLock
from polyvex.rundir import RunDirectory, open_run
from polyvex.training.lock import hash_data
from polyvex.training.session import Say


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A run with one of its splits; ``asked`` counts its samples before those with unreadable images were left out."""

    run: RunDirectory
    recipe: Recipe
    registries: Registries
    assistant: Assistant
    split: str
    asked: int
    samples: list[Sample]
    reader: ImageReader


def open_split(
    path: str | Path,
    *,
    split: str = "",
    limit: int = 0,
    cache: str | Path | None = None,
    registries: Registries | None = None,
    say: Say = print,
    progress: bool = True,
    answering: bool = False,
    changes: Sequence[str] = (),
) -> OpenedRun:
    """Open a split with a finished run; ``split`` empty takes the recipe's test split.

    Images are encoded by the run's own encoders, so no weight file is needed. Those that cannot be read are left
    out and counted. Data that changed since the training is told.

    Args:
        answering: the model will answer, so there must be room for its longest answer instead of the data's own.
        changes: to the recipe's ``[data]``, written ``data.key=value``, to look at other data.

    Raises:
        RunError: if there is no finished run at ``path``.
        RecipeError: if ``changes`` are not of the data, or wrong.
        DataError: if the data set has no such split, none of its images can be read, or a question is too long.
    """
    run = open_run(path)
    registries = registries or load_registries()
    assistant = load(path, registries=registries)
    if other := [change for change in changes if not change.startswith("data.")]:
        raise RecipeError([f"{one}: a finished run can only be shown other data, by data.key=value" for one in other])
    recipe = read_recipe(run.recipe, overrides=changes, registries=registries, out=run.path)
    split = split or recipe.data.test_split
    samples = list(read_split(recipe, registries, split))
    samples = samples[:limit] if limit else samples
    for line in image_notes(**{split: samples}):
        say(line)
    context = assistant.model.context_length
    count = TokenCounter(layouts=assistant.processor.layouts, limits=image_limits(recipe))
    room = recipe.evaluation.max_new_tokens if answering else None
    check_lengths(samples, assistant.processor.prompts, context=context, answer=room, count=count)
    lock = read_record(run.lock, DataLock).model_dump()
    known = Known(encoders=dict(assistant.model.encoders.named_children()), weights_sha256=lock["weights_sha256"])
    tokens, report = fill_cache(recipe, registries, samples, folder=cache, progress=progress, known=known)
    readable = [sample for sample in samples if all(tokens.has(image) for image in sample.images)]
    if not readable:
        raise DataError(f"no image of the split '{split}' can be read, so nothing can be asked.\n{report}")
    for line in [] if changes else _changes(recipe, lock, split, readable, tokens, limit=limit):
        say(line)
    return OpenedRun(
        run=run,
        recipe=recipe,
        registries=registries,
        assistant=assistant,
        split=split,
        asked=len(samples),
        samples=readable,
        reader=ImageReader.of(tokens, assistant.processor),
    )


def _changes(
    recipe: Recipe, lock: Mapping[str, Any], split: str, samples: list[Sample], tokens: TokenCache, *, limit: int
) -> list[str]:
    """A line if the split is not what the run was trained or evaluated on; none if only a part of it is asked."""
    for part, name in (("train", recipe.data.train_split), ("test", recipe.data.test_split)):
        count = lock["counts"][part]
        if split != name or (limit and limit < count):
            continue
        if hash_data(samples[:count], tokens) != lock["data_sha256"][part]:
            return [f"CHANGED: the split '{split}' is not as it was when the run was trained"]
    return []
