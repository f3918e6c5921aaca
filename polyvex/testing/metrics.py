"""The kit of metrics: a share from 0 to 1, the same each time, 1 for the expected answer."""

import math
from collections.abc import Iterator
from functools import cached_property

from polyvex.data import Sample
from polyvex.evaluation import Metric
from polyvex.testing.checks import Check, run_all
from polyvex.testing.probes import expect

EXPECTED = ("red", "yes", "42", "3.5 kg", "two red squares", "Zürich", "a")
"""Answers that questions about images expect."""

ANSWERS = (*EXPECTED, "", " ", "Red.", "no", "1e9", "-", "?!", "the square is red, I think\n", "红色", "x" * 2000)
"""What models answer, now and then."""

WRONG = "qwxz"
"""A word that is no answer to anything."""


class MetricKit:
    """All checks of a metric."""

    def __init__(self, metric_class: type[Metric]):
        self.metric_class = metric_class
        self.name = metric_class.__name__

    @cached_property
    def metric(self) -> Metric:
        """The metric that is checked."""
        return self.metric_class()

    def checks(self) -> Iterator[Check]:
        """The checks in order; each has to be run before the next is asked for."""
        yield Check(name="declaration", run=self._declaration)
        yield Check(name="from 0 to 1", run=self._range)
        yield Check(name="the expected answer is right", run=self._right)
        yield Check(name="another answer is not", run=self._wrong)
        yield Check(name="same score twice", run=self._twice)

    def _declaration(self) -> None:
        summary = getattr(self.metric_class, "summary", "")
        expect(
            isinstance(summary, str) and bool(summary.strip()) and "\n" not in summary,
            f"{self.name}.summary is {summary!r}; expected one line for listings",
        )
        try:
            _ = self.metric
        except TypeError as error:
            raise AssertionError(f"{self.name} cannot be made without arguments: {error}") from error

    def _score(self, answer: str, expected: str) -> float:
        try:
            return self.metric.score(answer, _sample(expected))
        except Exception as error:
            raise AssertionError(
                f"{self.name}.score fails for the answer {answer[:40]!r} where {expected!r} is expected: "
                f"{type(error).__name__}: {error}. A wrong answer gets 0"
            ) from error

    def _range(self) -> None:
        for expected in EXPECTED:
            for answer in ANSWERS:
                score = self._score(answer, expected)
                expect(
                    isinstance(score, float | int) and math.isfinite(score) and 0 <= score <= 1,
                    f"{self.name}.score is {score!r} for {answer[:40]!r} where {expected!r} is expected; "
                    "expected a number from 0 to 1",
                )

    def _right(self) -> None:
        for expected in EXPECTED:
            score = self._score(expected, expected)
            expect(score == 1, f"{self.name}.score is {score} for {expected!r} where that is expected; expected 1")

    def _wrong(self) -> None:
        for expected in EXPECTED:
            score = self._score(WRONG, expected)
            expect(score < 1, f"{self.name}.score is {score} for {WRONG!r} where {expected!r} is expected")

    def _twice(self) -> None:
        """A score depends on its own answer only, not on what was scored before."""
        pairs = [(answer, expected) for answer in ANSWERS for expected in EXPECTED]
        forwards = [self._score(*pair) for pair in pairs]
        backwards = [self._score(*pair) for pair in reversed(pairs)][::-1]
        other = [self.metric_class().score(answer, _sample(expected)) for answer, expected in pairs]
        expect(
            forwards == backwards == other,
            f"{self.name}.score depends on what it scored before; comparisons are made question by question",
        )


def check_metric(metric_class: type[Metric]) -> Metric:
    """Hold a metric to its contract.

    Returns:
        The metric that was checked, for further tests.

    Raises:
        AssertionError: at the first check that fails. Says what was got and what is expected.
    """
    kit = MetricKit(metric_class)
    run_all(kit)
    return kit.metric


def _sample(expected: str) -> Sample:
    return Sample(id="1", question="what is it?", answer=expected)
