"""The kit passes good metrics, and fails each broken one for its own reason."""

from typing import Any, ClassVar

import pytest

from polyvex.data import Sample
from polyvex.evaluation import Metric
from polyvex.evaluation.metrics import ExactMatch
from polyvex.testing import check_metric


class Good(Metric):
    """The share of the expected words that the answer has."""

    summary: ClassVar[str] = "a test"

    def score(self, answer: str, sample: Sample) -> Any:
        expected = set(sample.answer.split())
        return len(expected & set(answer.split())) / len(expected)


class NoSummary(Good):
    summary = "two\nlines"


class NeedsArguments(Good):
    def __init__(self, strict: bool):
        self.strict = strict


class Percent(Good):
    def score(self, answer: str, sample: Sample) -> Any:
        return 100 * super().score(answer, sample)


class SaysNothing(Good):
    def score(self, answer: str, sample: Sample) -> Any:
        return super().score(answer, sample) or None


class NotANumber(Good):
    def score(self, answer: str, sample: Sample) -> Any:
        return super().score(answer, sample) or float("nan")


class FailsOnText(Good):
    def score(self, answer: str, sample: Sample) -> Any:
        return float(abs(float(answer) - float(sample.answer)) < 0.01)


class CaresForCase(Good):
    def score(self, answer: str, sample: Sample) -> Any:
        return float(answer.lower() == sample.answer)


class AllIsRight(Good):
    def score(self, answer: str, sample: Sample) -> Any:
        return 1.0


class ForgivesWhatItSawBefore(Good):
    def __init__(self) -> None:
        self.seen = 0

    def score(self, answer: str, sample: Sample) -> Any:
        self.seen += 1
        return super().score(answer, sample) / (1 if answer == sample.answer else self.seen)


BROKEN = {
    NoSummary: "expected one line for listings",
    NeedsArguments: "cannot be made without arguments",
    Percent: "score is 100.0 for 'red' where 'red' is expected; expected a number from 0 to 1",
    SaysNothing: "score is None",
    NotANumber: "score is nan",
    FailsOnText: "fails for the answer 'red' where 'red' is expected: ValueError.*A wrong answer gets 0",
    CaresForCase: "score is 0.0 for 'Zürich' where that is expected; expected 1",
    AllIsRight: "score is 1.0 for 'qwxz' where 'red' is expected",
    ForgivesWhatItSawBefore: "depends on what it scored before",
}


@pytest.mark.parametrize("good", [Good, ExactMatch])
def test_a_good_metric_passes_and_is_returned(good: type[Metric]):
    assert isinstance(check_metric(good), good)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_metric_fails_for_its_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_metric(broken)

    assert broken.__name__ in str(caught.value)
