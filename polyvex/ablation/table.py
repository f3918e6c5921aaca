"""Results of an ablation as rows of text, for terminals, CSV and Markdown."""

from collections.abc import Sequence

from polyvex.ablation.compare import Result
from polyvex.evaluation.intervals import figure


def result_rows(results: Sequence[Result]) -> list[dict[str, str]]:
    """One row per combination: its values, budget, accuracy with interval, and difference to the first."""
    return [
        {
            "cell": result.label,
            "tokens": str(result.visual_tokens),
            "positions": str(result.positions),
            "seeds": str(len(result.seeds)),
            "questions": str(result.questions),
            _head(results): figure(result.accuracy, graded=result.graded, digits=2),
            "95 % interval": " to ".join(figure(end, graded=result.graded, digits=2) for end in result.interval),
            "to the first": _difference(result),
        }
        for result in results
    ]


def _difference(result: Result) -> str:
    if result.difference is None or result.difference_interval is None:
        return "-"
    gap, low, high = (
        f"{one:+.4f}" if result.graded else f"{one:+.2%}" for one in (result.difference, *result.difference_interval)
    )
    return f"{gap} ({low} to {high})"


def _head(results: Sequence[Result]) -> str:
    """The metric of all results."""
    return " / ".join(dict.fromkeys(result.metric for result in results))
