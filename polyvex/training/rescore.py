"""Score the stored answers of a run with another metric; the model is not loaded, and nothing stored is changed."""

import json
from dataclasses import replace
from pathlib import Path

from polyvex.data.base import Sample
from polyvex.errors import RecipeError, RunError
from polyvex.evaluation.evaluate import Answered, Evaluation, score_of
from polyvex.hooks.manager import Registries, load_registries
from polyvex.hooks.registry import unknown
from polyvex.records.evaluation import EvaluationSummary
from polyvex.records.files import read_lines, read_record
from polyvex.rundir import RunDirectory, open_run
from polyvex.storage import write_text

FROM = "rescored_from"
"""Key of a summary that was made from the answers of another evaluation, and names it."""


def rescore_run(
    path: str | Path, metric: str, *, name: str = "", registries: Registries | None = None
) -> list[Evaluation]:
    """Score the answers of every stored evaluation, and write each result beside it as ``<name>.<metric>.json``.

    Args:
        metric: name of an installed metric.
        name: only the evaluation of this name, such as ``2-tune``, or those of this split, such as ``test``.

    Raises:
        RecipeError: if there is no such metric.
        RunError: if there is no run at ``path``, it has no such evaluation, or a file of it is damaged.
    """
    run = open_run(path)
    registries = registries or load_registries()
    if metric not in registries.metrics:
        raise RecipeError([unknown("metric", metric, registries.metrics.names())], source="eval")
    stored = _stored(run)
    chosen = [one for one in stored if name in ("", one.name) or one.name.rpartition("-")[0] == name]
    if not chosen:
        known = ", ".join(one.name for one in stored) or "none"
        wanted = f"no evaluation '{name}'" if name else "no evaluation"
        raise RunError(
            f"{run.path} has {wanted}. Stored: {known}. Run one: polyvex eval {run.path}", code="no-evaluation"
        )
    return [_rescore(run, one, metric, registries) for one in chosen]


def _stored(run: RunDirectory) -> list[EvaluationSummary]:
    """The evaluations that a model made, in the order of their names."""
    files = sorted((run.path / "evaluation").glob("*.json"))
    found = [read_record(path, EvaluationSummary) for path in files]
    return [one for one in found if one.rescored_from is None]


def _rescore(run: RunDirectory, stored: EvaluationSummary, metric: str, registries: Registries) -> Evaluation:
    answers = read_lines(run.evaluation(stored.name).with_suffix(".jsonl"), Answered, sha256=stored.answers_sha256)
    if len(answers) != stored.questions:
        raise RunError(
            f"{run.evaluation(stored.name).with_suffix('.jsonl')} has {len(answers)} answers, expected "
            f"{stored.questions}. Restore the file, or evaluate again",
            code="damaged-record",
        )
    scorer = registries.metrics[metric]()
    result = Evaluation(
        name=stored.name,
        metric=metric,
        answers=[
            replace(answer, score=score_of((metric, scorer), answer.answer, _sample(answer))) for answer in answers
        ],
        skipped=stored.skipped,
        images=stored.images,
        graded=scorer.graded,
        extra={FROM: stored.name},
    )
    path = run.evaluation(f"{stored.name}.{metric}")
    path.unlink(missing_ok=True)  # as for other evaluations: a summary is never that of other answers
    write_text(path.with_suffix(".jsonl"), result.lines())
    write_text(path, json.dumps(result.summary(), indent=2))
    return result


def _sample(answer: Answered) -> Sample:
    """The sample that an answer belongs to."""
    return Sample(
        id=answer.id,
        question=answer.question,
        answer=answer.expected,
        images=answer.images,
        kind=answer.kind,
        answers=answer.answers,
    )
