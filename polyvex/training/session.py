"""What every stage and evaluation of one run shares."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyvex.assemble import make_processor
from polyvex.cache.reader import ImageReader, TokenCounter
from polyvex.data.lengths import check_lengths
from polyvex.errors import DataError, RunError
from polyvex.hooks.manager import Registries
from polyvex.manifest import Manifest, read_manifest
from polyvex.model import PolyvexProcessor
from polyvex.model.stored import loading
from polyvex.processes import Processes
from polyvex.recipe.differences import differences
from polyvex.recipe.prompt import DATED, prompt_form
from polyvex.recipe.samples import image_limits, image_notes, image_problems, read_split, training_texts
from polyvex.recipe.schema import Recipe
from polyvex.recipe.start import Start
from polyvex.records.files import read_record
from polyvex.records.run import DataLock
from polyvex.rundir import RunDirectory, changed_files, read_json, store_whole
from polyvex.storage import write_text
from polyvex.training.lock import make_lock
from polyvex.training.prepare import Prepared, prepare

Say = Callable[[str], None]

PROCESSOR = "processor_files"
"""Key of the lock with the checksums of the processor's files."""

VERSIONS = ("python", "libraries", "plugins")
"""Parts of the lock that may change while a run is interrupted, but not without a word."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A recipe with its registries, run directory, data and processor, and how to talk to people.

    Of the processes that train together, only the first writes files of the run.
    """

    recipe: Recipe
    registries: Registries
    run: RunDirectory
    data: Prepared
    reader: ImageReader
    processor: PolyvexProcessor
    processes: Processes
    say: Say
    progress: bool


def open_session(
    recipe: Recipe,
    registries: Registries,
    run: RunDirectory,
    *,
    start: Start | None,
    cache: str | Path | None,
    processes: Processes,
    say: Say,
    progress: bool,
) -> Session:
    """Make or load the processor, check lengths, read the data, fill the cache, and check or write the lock.

    The run's directory is written to last, so that a start which fails leaves nothing that would bind it.

    Args:
        start: the weights that the run begins with, if they come from another run and still matter.

    Raises:
        DataError: if a sample does not fit the context, too many images cannot be read, or no training sample has an
            image although a stage trains with images.
        RunError: if weights, data, or files of the processor are not those that the run began with.
    """
    _check_images(recipe, registries, say)
    begun = run.lock.exists()  # it is written after the processor, and whole
    if begun:
        _check_processor(run)
        with loading(run.path):
            processor = PolyvexProcessor.from_pretrained(run.path, registries=registries)
    else:
        processor = make_processor(recipe, registries, training_texts(recipe, registries))
    if prompt_form(recipe.prompt, processor.tokenizer).dated:
        say(DATED.format(date=recipe.prompt.date))
    _check_lengths(recipe, registries, processor)
    data = prepare(recipe, registries, folder=cache, progress=progress)
    say(str(data.report))
    if data.skipped_train or data.skipped_test:
        say(f"LEFT OUT: {data.skipped_train} training and {data.skipped_test} test samples with unreadable images")
    lock = make_lock(recipe, registries, data, start=start, processes=processes)
    lock["prompt"] = _prompt(recipe, processor)
    if processes.first:
        run.begin(recipe)
    if begun:
        _check_lock(run, lock, say, training=_trains(recipe, run))
    elif processes.first:
        files = store_whole(run.path, processor.save_pretrained, last="processor_config.json")
        write_text(run.lock, json.dumps({**lock, PROCESSOR: files.model_dump()}, indent=2))
    return Session(
        recipe=recipe,
        registries=registries,
        run=run,
        data=data,
        reader=ImageReader.of(data.cache, processor),
        processor=processor,
        processes=processes,
        say=say,
        progress=progress,
    )


def _prompt(recipe: Recipe, processor: PolyvexProcessor) -> dict[str, Any]:
    """What the lock keeps of the prompt, which a chat template of the language model may decide."""
    return {
        "template": processor.template,
        "date": recipe.prompt.date,
        "end_ids": processor.end_ids,
        "stop_ids": processor.stop_ids,
    }


def _check_images(recipe: Recipe, registries: Registries, say: Say) -> None:
    """Refuse data without images for stages that need them; say how many samples have none."""
    train = read_split(recipe, registries, recipe.data.train_split)
    if problems := image_problems(recipe, train):
        raise DataError(problems[0], code="no-images")
    for line in image_notes(training=train, test=read_split(recipe, registries, recipe.data.test_split)):
        say(line)


def _check_lengths(recipe: Recipe, registries: Registries, processor: PolyvexProcessor) -> None:
    """Every sample of both splits, as training and evaluation will ask it."""
    config = registries.language_models[recipe.lm.use](recipe.lm).config().get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    count, prompts = TokenCounter(layouts=processor.layouts, limits=image_limits(recipe)), processor.prompts
    trained = read_split(recipe, registries, recipe.data.train_split)
    check_lengths(trained, prompts, context=context, count=count)
    if recipe.evaluation.after != "never":
        asked = read_split(recipe, registries, recipe.data.test_split)
        asked = asked[: recipe.evaluation.limit] if recipe.evaluation.limit else asked
        check_lengths(asked, prompts, context=context, answer=recipe.evaluation.max_new_tokens, count=count)


def processor_files(run: RunDirectory) -> Manifest | None:
    """Checksums of the processor's files; None in a run that an earlier version of polyvex began."""
    files = read_json(run.lock).get(PROCESSOR)
    return None if files is None else read_manifest(files, run.lock)


def _check_processor(run: RunDirectory) -> None:
    files = processor_files(run)
    if files is not None and (faults := files.faults(run.path)):
        raise changed_files(run.path, faults, "choose another --out")


def _trains(recipe: Recipe, run: RunDirectory) -> bool:
    """Whether a stage is left to train."""
    return any(run.stage(index, stage).done() is None for index, stage in enumerate(recipe.stages))


def _check_code(run: RunDirectory, before: dict[str, Any], lock: dict[str, Any], say: Say, *, training: bool) -> None:
    """Refuse to train on with other encoder code: the stages of one run would train on different tokens."""
    # A run that an earlier version of polyvex began has no record of the code.
    changed = list(differences(before.get("code", lock["code"]), lock["code"], "code"))
    if changed and training:
        listed = "".join(f"\n  - {line}" for line in changed)
        raise RunError(
            f"{run.path}: the code of the encoders changed since the run began, so its tokens may differ:{listed}\n"
            f"Restore the code (or install the versions in lock.json), or choose another --out",
            code="code-changed",
        )
    for line in changed:
        say(f"NOT AS BEFORE: {line}; the tokens, and so the answers, may differ from those of the training")


def _check_lock(run: RunDirectory, lock: dict[str, Any], say: Say, *, training: bool) -> None:
    before = read_record(run.lock, DataLock).model_dump()
    _check_code(run, before, lock, say, training=training)
    for line in differences({key: before.get(key) for key in VERSIONS}, {key: lock[key] for key in VERSIONS}):
        say(f"NOT AS BEFORE: {line}; the result may differ from a run in one go")
    if before.get("prompt", lock["prompt"]) != lock["prompt"]:
        raise RunError(
            f"{run.path}: the prompt in processor_config.json is {lock['prompt']}, but the run began with "
            f"{before['prompt']}. Restore the file, or choose another --out",
            code="prompt-changed",
        )
    for key in ("weights_sha256", "fusion_sha256", "start_sha256", "data_sha256"):
        # A fusion's file, and the run that this one starts from, may go after the first stage.
        if lock[key] is not None and before.get(key) != lock[key]:
            raise RunError(
                f"{run.path}: {key} is now {lock[key]}, but the run began with {before[key]}. Choose another --out"
            )
    replicas = before.get("replicas", lock["replicas"])
    if training and replicas != lock["replicas"]:
        raise RunError(
            f"{run.path}: the run began with {replicas} processes (or GPUs in one process), each of them with the "
            f"recipe's batch_size; now there are {lock['replicas']}, so a step would train on another number of "
            f"samples. Start it as it began (torchrun --nproc_per_node {replicas}), or choose another --out",
            code="processes-changed",
        )
