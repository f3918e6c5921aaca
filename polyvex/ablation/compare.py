"""Compare cells question by question, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Result:
    """One combination of values.

    ``accuracy`` is the mean over questions and seeds, with a 95 % bootstrap interval over questions. ``difference``
    is to the first combination on the same questions and seeds, with its own paired interval; both are None for the
    first itself, and where the two share no question and seed, as when the first one failed. The intervals cover the
    choice of questions; ``by_seed`` shows how far seeds are apart. ``metric`` is what
    ``accuracy`` is the mean of; if it is ``graded``, the mean is no share of correct answers.
    """

    label: str
    values: dict[str, Any]
    seeds: list[int]
    questions: int
    accuracy: float
    interval: tuple[float, float]
    by_seed: list[float]
    difference: float | None
    difference_interval: tuple[float, float] | None
    visual_tokens: int
    positions: int
    metric: str = "accuracy"
    graded: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def compare_all(groups: Sequence[Mapping[str, Any]], *, first: str = "") -> list[Result]:
    """One result per group, each compared with one of them. A group's ``scores`` has one mapping per seed.

    Args:
        first: label of the group to compare with; if no group has it, nothing is compared. The first group if empty.
    """
    wanted = first or (groups[0]["label"] if groups else "")
    reference = next((group for group in groups if group["label"] == wanted), None)
    return [_result(group, reference) for group in groups]


def _result(group: Mapping[str, Any], first: Mapping[str, Any] | None) -> Result:
    scores = _matrix(group)
    per_question = scores.mean(axis=0)
    difference, interval = None, None
    if first is not None and group is not first:
        gaps = paired(group, first)
        if len(gaps):
            difference, interval = float(gaps.mean()), bootstrap(gaps)
    return Result(
        label=group["label"],
        values=dict(group["values"]),
        seeds=list(group["seeds"]),
        questions=scores.shape[1],
        accuracy=float(per_question.mean()),
        interval=bootstrap(per_question),
        by_seed=[float(row.mean()) for row in scores],
        difference=difference,
        difference_interval=interval,
        visual_tokens=group["visual_tokens"],
        positions=group["positions"],
        metric=group.get("metric", "accuracy"),
        graded=bool(group.get("graded", False)),
    )


def _matrix(group: Mapping[str, Any]) -> np.ndarray:
    """Scores [seeds questions], of the questions that every seed answered, in a fixed order."""
    common = sorted(set.intersection(*(set(scores) for scores in group["scores"])))
    return np.array([[scores[question] for question in common] for scores in group["scores"]])


def paired(group: Mapping[str, Any], other: Mapping[str, Any]) -> np.ndarray:
    """Difference per question, averaged over the seeds that both have; only questions that all answered count.

    Empty if there is no such seed or question.
    """
    mine = dict(zip(group["seeds"], group["scores"], strict=True))
    theirs = dict(zip(other["seeds"], other["scores"], strict=True))
    seeds = sorted(set(mine) & set(theirs))
    if not seeds:
        return np.array([])
    common = sorted(set.intersection(*(set(scores[seed]) for scores in (mine, theirs) for seed in seeds)))
    gaps = [[mine[seed][question] - theirs[seed][question] for question in common] for seed in seeds]
    return np.array(gaps).mean(axis=0)


def bootstrap(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean under resampling of questions; always the same for the same values."""
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
