"""Results of an ablation as rows of text, for terminals, CSV and Markdown."""

from collections.abc import Sequence

from polyvex.ablation.compare import Result


def result_rows(results: Sequence[Result]) -> list[dict[str, str]]:
    """One row per combination: its values, budget, accuracy with interval, and difference to the first."""
    return [
        {
            "cell": result.label,
            "tokens": str(result.visual_tokens),
            "positions": str(result.positions),
            "seeds": str(len(result.seeds)),
            "questions": str(result.questions),
            "accuracy": f"{result.accuracy:.2%}",
            "95 % interval": f"{result.interval[0]:.2%} to {result.interval[1]:.2%}",
            "to the first": _difference(result),
        }
        for result in results
    ]


def _difference(result: Result) -> str:
    if result.difference is None or result.difference_interval is None:
        return "-"
    low, high = result.difference_interval
    return f"{result.difference:+.2%} ({low:+.2%} to {high:+.2%})"
