"""What a metric is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from polyvex.data.base import Sample


class Metric(ABC):
    """Scores one answer at a time, so that every comparison can be paired. ``summary`` is one line for listings."""

    summary: ClassVar[str]

    graded: ClassVar[bool] = False
    """Whether scores between 0 and 1 occur: reports then show means, not shares of correct answers."""

    @abstractmethod
    def score(self, answer: str, sample: Sample) -> float:
        """How right ``answer`` is for ``sample``, from 0 to 1. ``sample.accepted`` lists every correct answer."""
