"""Evaluate inside a run: answers, figures, expert loads and weights of encoders go into its ``evaluation`` folder."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyvex.answer import load
from polyvex.cache.encode import Known, TokenCache, fill_cache
from polyvex.cache.reader import ImageReader, TokenCounter
from polyvex.data.base import Sample
from polyvex.data.lengths import check_lengths
from polyvex.errors import DataError
from polyvex.evaluation.evaluate import Evaluation, evaluate
from polyvex.evaluation.partial import PartialAnswers
from polyvex.hooks.manager import Registries, load_registries
from polyvex.model import PolyvexForConditionalGeneration, PolyvexProcessor
from polyvex.recipe import read_recipe
from polyvex.recipe.samples import read_split
from polyvex.recipe.schema import Recipe
from polyvex.rundir import RunDirectory, open_run, write_whole
from polyvex.training.lock import hash_data
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
    run = open_run(path)
    registries = registries or load_registries()
    assistant = load(path, registries=registries)
    recipe = read_recipe(run.recipe, registries=registries, out=run.path)
    split = split or recipe.data.test_split
    samples = list(read_split(recipe, registries, split))
    samples = samples[:limit] if limit else samples
    context = assistant.model.context_length
    room = recipe.evaluation.max_new_tokens
    count = TokenCounter(layouts=assistant.processor.layouts)
    check_lengths(samples, assistant.processor.prompts, context=context, answer=room, count=count)
    lock = json.loads(run.lock.read_text(encoding="utf-8"))
    known = Known(encoders=dict(assistant.model.encoders.named_children()), weights_sha256=lock["weights_sha256"])
    tokens, report = fill_cache(recipe, registries, samples, folder=cache, progress=progress, known=known)
    readable = [sample for sample in samples if all(tokens.has(image) for image in sample.images)]
    if not readable:
        raise DataError(f"no image of the split '{split}' can be read, so nothing can be asked.\n{report}")
    for line in _changes(recipe, lock, split, readable, tokens, limit=limit):
        say(line)
    return _evaluate(
        recipe,
        registries,
        run,
        assistant.model,
        assistant.processor,
        readable,
        ImageReader.of(tokens, assistant.processor),
        name=f"{split}-{len(samples)}",
        images=True,
        skipped=len(samples) - len(readable),
        progress=progress,
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
    images: bool,
    skipped: int,
    progress: bool,
) -> Evaluation:
    metric = recipe.evaluation.metric
    path = run.evaluation(name)
    partial = PartialAnswers(path.with_suffix(".part.jsonl"), data=hash_data(samples, reader.cache))
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
    result = dataclasses.replace(result, extra={**result.extra, **shares})
    write_whole(path.with_suffix(".jsonl"), result.lines())
    write_whole(path, json.dumps(result.summary(), indent=2))
    partial.done()
    return result


def describe(result: Evaluation) -> str:
    """Accuracy in total and per kind, on one line."""
    kinds = ", ".join(f"{kind} {mean:.1%}" for kind, (mean, _) in result.by_kind().items())
    blind = " WITHOUT images" if not result.images else ""
    told = [f"accuracy {result.name}{blind}: {result.accuracy:.2%} of {len(result.answers)} questions ({kinds})"]
    if result.skipped:
        told.append(f"{result.skipped} LEFT OUT, unreadable")
    if result.cut:
        told.append(f"{result.cut} answers CUT at the longest length (evaluation.max_new_tokens)")
    if weights := result.extra.get("encoder_weights"):
        told.append("encoders weigh " + ", ".join(f"{name} {one['weight']:.1%}" for name, one in weights[ALL].items()))
    return "; ".join(told)
