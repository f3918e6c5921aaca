"""Evaluate inside a run: answers, figures, expert loads and weights of encoders go into its ``evaluation`` folder."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from polyvex.cache.images import ImageFiles
from polyvex.cache.reader import ImageReader
from polyvex.data.base import Sample
from polyvex.evaluation.evaluate import Answered, Evaluation, evaluate
from polyvex.evaluation.intervals import figure
from polyvex.evaluation.partial import PartialAnswers
from polyvex.hooks.manager import Registries, load_registries
from polyvex.model import PolyvexForConditionalGeneration, PolyvexProcessor
from polyvex.processes import processes
from polyvex.recipe.schema import Recipe
from polyvex.records.files import read_record
from polyvex.records.run import DoneRecord
from polyvex.rundir import FINISHED, RunDirectory, read_json
from polyvex.storage import write_text
from polyvex.training.lock import hash_data
from polyvex.training.opened import open_split
from polyvex.training.routing import expert_load
from polyvex.training.session import Say, Session
from polyvex.training.weighing import ALL, encoder_weights

LOADED_ON = 512
"""Samples over which expert loads and weights of encoders are counted."""


def evaluate_split(
    session: Session, model: PolyvexForConditionalGeneration, *, name: str, images: bool = True
) -> Evaluation:
    """Answer the test split after a stage."""
    return _evaluate(
        session.recipe,
        session.registries,
        session.run,
        model,
        session.processor,
        session.data.test,
        session.reader,
        name=name,
        weights=read_record(session.run.path / "stages" / name / "done.json", DoneRecord).hashes_after,
        images=images,
        skipped=session.data.skipped_test,
        progress=session.progress,
    )


def evaluate_run(
    path: str | Path,
    *,
    split: str = "",
    limit: int = 0,
    cache: str | Path | None = None,
    registries: Registries | None = None,
    say: Say = print,
    progress: bool = True,
) -> Evaluation:
    """Answer a split with a finished run; ``split`` empty takes the recipe's test split.

    Images are encoded by the run's own encoders, so no weight file is needed. Those that cannot be read are left
    out and counted. Data that changed since the training is told.

    Raises:
        RunError: if there is no finished run at ``path``.
        DataError: if the data set has no such split, none of its images can be read, or a question is too long.
    """
    registries = registries or load_registries()
    opened = open_split(
        path,
        split=split,
        limit=limit,
        cache=cache,
        registries=registries,
        say=say,
        progress=progress,
        answering=True,
    )
    return _evaluate(
        opened.recipe,
        registries,
        opened.run,
        opened.assistant.model,
        opened.assistant.processor,
        opened.samples,
        opened.reader,
        name=f"{opened.split}-{opened.asked}",
        weights=read_json(opened.run.path / FINISHED),
        images=True,
        skipped=opened.asked - len(opened.samples),
        progress=progress,
    )


def _evaluate(
    recipe: Recipe,
    registries: Registries,
    run: RunDirectory,
    model: PolyvexForConditionalGeneration,
    processor: PolyvexProcessor,
    samples: list[Sample],
    reader: ImageReader,
    *,
    name: str,
    weights: dict[str, Any],
    images: bool,
    skipped: int,
    progress: bool,
) -> Evaluation:
    metric = recipe.evaluation.metric
    decisive = [hash_data(samples, reader.cache), weights, recipe.evaluation.model_dump(mode="json"), images]
    identity = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    partial = PartialAnswers(_partial(run, name), data=identity, writes=processes().first)
    result = evaluate(
        model,
        processor,
        samples,
        reader,
        metric=(metric, registries.metrics[metric]()),
        batch_size=recipe.evaluation.batch_size,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        name=name,
        count=reader.count,
        images=images,
        skipped=skipped,
        progress=progress,
        before=partial.before,
        keep=partial.keep,
    )
    some = samples[:LOADED_ON]
    shares = {
        "expert_load": expert_load(model, processor, some, reader),
        "encoder_weights": encoder_weights(model, processor, some, reader) if images else {},
    }
    answers = [_with_digests(answer, reader.cache.files) for answer in result.answers]
    result = dataclasses.replace(result, answers=answers, extra={**result.extra, **shares})
    if partial.writes:
        _store(run, result)
        partial.done()
    return result


def _with_digests(answer: Answered, files: ImageFiles) -> Answered:
    """An answer with the SHA-256 of its images, so that a report shows these images and no others."""
    return dataclasses.replace(answer, image_sha256=tuple(files.hashes.get(path, "") for path in answer.images))


def has_evaluation(run: RunDirectory, name: str) -> bool:
    """Whether an evaluation is stored; what a kill left of it on the way there is deleted."""
    stored = run.evaluation(name).exists()
    if stored and processes().first:
        _partial(run, name).unlink(missing_ok=True)
    return stored


def _store(run: RunDirectory, result: Evaluation) -> None:
    """Store an evaluation. It counts once its summary is there, which is never that of other answers."""
    path = run.evaluation(result.name)
    path.unlink(missing_ok=True)
    write_text(path.with_suffix(".jsonl"), result.lines())
    write_text(path, json.dumps(result.summary(), indent=2))


def _partial(run: RunDirectory, name: str) -> Path:
    return run.evaluation(name).with_suffix(".part.jsonl")


def describe(result: Evaluation) -> str:
    """The metric with its figures in total and per kind, on one line."""
    graded, (low, high) = result.graded, result.interval
    kinds = ", ".join(f"{kind} {figure(mean, graded=graded)}" for kind, (mean, _) in result.by_kind().items())
    blind = " WITHOUT images" if not result.images else ""
    mean = figure(result.accuracy, graded=graded, digits=2)
    among = f"({low:.4f} to {high:.4f}), mean over" if graded else "of"
    told = [f"{result.metric} {result.name}{blind}: {mean} {among} {len(result.answers)} questions ({kinds})"]
    if result.skipped:
        told.append(f"{result.skipped} LEFT OUT, unreadable")
    if result.cut:
        told.append(f"{result.cut} answers CUT at the longest length (evaluation.max_new_tokens)")
    if weights := result.extra.get("encoder_weights"):
        told.append("encoders weigh " + ", ".join(f"{name} {one['weight']:.1%}" for name, one in weights[ALL].items()))
    return "; ".join(told)
