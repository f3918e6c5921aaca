"""Data sets, and the way from samples to batches."""

from collections.abc import Mapping

from polyvex.data.base import Dataset, DatasetOptions, Sample
from polyvex.data.jsonl import JsonLines
from polyvex.hooks import hookimpl

__all__ = ["Dataset", "DatasetOptions", "Sample", "register_datasets"]


@hookimpl
def register_datasets() -> Mapping[str, type[Dataset]]:
    """The data set of the core; others are plugins."""
    return {"jsonl": JsonLines}
