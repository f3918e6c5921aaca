"""Evaluate inside a run: answers, figures and expert loads go into its ``evaluation`` folder."""

import json
from pathlib import Path

from polyvex.answer import load
from polyvex.cache.encode import fill_cache
from polyvex.data.base import Sample
from polyvex.data.batches import ReadTokens
from polyvex.evaluation.evaluate import Evaluation, evaluate
from polyvex.hooks.manager import Registries, load_registries
from polyvex.model import PolyvexForConditionalGeneration, PolyvexProcessor
from polyvex.recipe import read_recipe
from polyvex.recipe.samples import read_split
from polyvex.recipe.schema import Recipe
from polyvex.rundir import RunDirectory, open_run, write_whole
from polyvex.training.routing import expert_load
from polyvex.training.session import Session

LOADED_ON = 512
"""Samples over which expert loads are counted."""


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
        session.data.cache.tokens,
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
    progress: bool = True,
) -> Evaluation:
    """Answer a split with a finished run; ``split`` empty takes the recipe's test split.

    Raises:
        RunError: if there is no finished run at ``path``.
        DataError: if the data set has no such split.
    """
    run = open_run(path)
    registries = registries or load_registries()
    assistant = load(path, registries=registries)
    recipe = read_recipe(run.recipe, registries=registries)
    split = split or recipe.data.test_split
    samples = list(read_split(recipe, registries, split))
    samples = samples[:limit] if limit else samples
    tokens, _ = fill_cache(recipe, registries, samples, folder=cache, progress=progress)
    readable = [sample for sample in samples if all(tokens.has(image) for image in sample.images)]
    return _evaluate(
        recipe,
        registries,
        run,
        assistant.model,
        assistant.processor,
        readable,
        tokens.tokens,
        name=f"{split}-{len(samples)}",
        images=True,
        skipped=len(samples) - len(readable),
        progress=progress,
    )


def _evaluate(
    recipe: Recipe,
    registries: Registries,
    run: RunDirectory,
    model: PolyvexForConditionalGeneration,
    processor: PolyvexProcessor,
    samples: list[Sample],
    read_tokens: ReadTokens,
    *,
    name: str,
    images: bool,
    skipped: int,
    progress: bool,
) -> Evaluation:
    metric = recipe.evaluation.metric
    result = evaluate(
        model,
        processor,
        samples,
        read_tokens,
        metric=(metric, registries.metrics[metric]()),
        batch_size=recipe.evaluation.batch_size,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        name=name,
        images=images,
        skipped=skipped,
        progress=progress,
    )
    load = expert_load(model, processor, samples[:LOADED_ON], read_tokens)
    path = run.evaluation(name)
    write_whole(path.with_suffix(".jsonl"), result.lines())
    write_whole(path, json.dumps({**result.summary(), "expert_load": load}, indent=2))
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
    return "; ".join(told)
