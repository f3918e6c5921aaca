"""Answer questions and score the answers."""

from collections.abc import Mapping

from polyvex.evaluation.base import Metric
from polyvex.evaluation.metrics import ExactMatch
from polyvex.hooks import hookimpl

__all__ = ["Metric", "register_metrics"]


@hookimpl
def register_metrics() -> Mapping[str, type[Metric]]:
    """The metric of the core."""
    return {"exact_match": ExactMatch}
