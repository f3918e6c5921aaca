"""Mean scores with 95 % intervals, and how both are written."""

import math
from collections.abc import Sequence

Interval = tuple[float, float]

RIGHT_OR_WRONG = (0.0, 1.0)


def is_graded(scores: Sequence[float]) -> bool:
    """Whether scores lie between 0 and 1, so that their mean is not a share of correct answers."""
    return any(score not in RIGHT_OR_WRONG for score in scores)


def interval(scores: Sequence[float], *, graded: bool) -> Interval:
    """95 % interval of the mean of independent ``scores`` from 0 to 1.

    Wilson's score interval for scores of 0 and 1. For graded scores the t interval of their mean, cut to 0 to 1; where
    all of them are equal, which leaves no variance to estimate, Wilson's, which is wider.
    """
    count = len(scores)
    if not count:
        return 0.0, 1.0
    mean = math.fsum(scores) / count
    squares = math.fsum((score - mean) ** 2 for score in scores)
    if not graded or count == 1 or squares <= 1e-12:
        return wilson(mean, count)
    from scipy.stats import t  # a second of import, which a run needs only here

    half = float(t.ppf(0.975, count - 1)) * math.sqrt(squares / (count - 1) / count)
    return max(0.0, mean - half), min(1.0, mean + half)


def wilson(share: float, count: int, z: float = 1.96) -> Interval:
    """Wilson's score interval of a share of ``count`` trials (95 % by default); (0, 1) without trials."""
    if count == 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def figure(mean: float | None, *, graded: bool, digits: int = 1) -> str:
    """``79.7%`` for a share of correct answers, ``0.797`` for a mean of graded scores; a dash without answers."""
    if mean is None or math.isnan(mean):
        return "–"
    return f"{mean:.{digits + 2}f}" if graded else f"{mean:.{digits}%}"
