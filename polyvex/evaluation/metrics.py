"""Metrics of the core."""

from polyvex.data.base import Sample
from polyvex.evaluation.base import Metric


class ExactMatch(Metric):
    """1 if the answer is a correct one; case, outer spaces, and a final full stop do not count."""

    summary = "1 if the answer equals a correct one, but for case, outer spaces and a final full stop"

    def score(self, answer: str, sample: Sample) -> float:
        """Compare after that clean-up."""
        return float(_clean(answer) in map(_clean, sample.accepted))


def _clean(text: str) -> str:
    return " ".join(text.lower().split()).removesuffix(".").rstrip()
