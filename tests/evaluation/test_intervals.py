"""Intervals of mean scores."""

import math

import numpy as np
import pytest

from polyvex.evaluation.evaluate import Answered, Evaluation
from polyvex.evaluation.intervals import figure, interval, is_graded, wilson


def test_the_t_interval_by_hand() -> None:
    """Mean 0.5, standard deviation 0.1, 4 scores: 3.1824 (t, 3 degrees of freedom) times 0.05."""
    scores = [0.5 - math.sqrt(0.0075), 0.5, 0.5, 0.5 + math.sqrt(0.0075)]
    deviation = math.sqrt(2 * 0.0075 / 3)
    low, high = interval(scores, graded=True)
    assert high - 0.5 == pytest.approx(3.182446 * deviation / 2, abs=1e-6)
    assert 0.5 - low == pytest.approx(high - 0.5)


def test_scores_of_0_and_1_keep_wilsons_interval() -> None:
    assert interval([1, 1, 0, 1], graded=False) == wilson(0.75, 4)


def test_an_interval_stays_between_0_and_1_and_knows_nothing_without_scores() -> None:
    assert interval([0.01, 0.9, 0.99], graded=True)[1] == 1.0
    assert interval([], graded=True) == interval([], graded=False) == (0.0, 1.0)


@pytest.mark.parametrize("scores", [[0.4], [0.4] * 5, [1.0] * 5])
def test_without_variance_the_interval_is_not_a_point(scores: list[float]) -> None:
    low, high = interval(scores, graded=True)
    assert high - low > 0.3


def test_the_interval_of_graded_scores_covers_the_mean_in_about_95_percent() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        low, high = interval(random.beta(2, 3, size=40).tolist(), graded=True)
        hits += low <= 0.4 <= high
    assert 930 <= hits <= 970


def test_wilson_is_too_wide_for_graded_scores() -> None:
    """Beta(20, 20) scores vary far less than coin flips with the same mean."""
    scores = np.random.default_rng(0).beta(20, 20, size=100).tolist()
    low, high = interval(scores, graded=True)
    assert (high - low) < 0.25 * np.subtract(*wilson(float(np.mean(scores)), 100)[::-1])


def test_scores_between_0_and_1_are_graded() -> None:
    assert is_graded([0, 1, 0.5])
    assert not is_graded([0, 1, 1.0, True])


def test_graded_means_are_not_written_as_shares() -> None:
    assert figure(0.7971, graded=False) == "79.7%"
    assert figure(0.7971, graded=True) == "0.797"
    assert figure(0.7971, graded=True, digits=2) == "0.7971"
    assert figure(None, graded=True) == figure(math.nan, graded=False) == "–"


def test_a_metric_that_declares_graded_scores_or_a_graded_score_decides() -> None:
    def answer(score: float) -> Answered:
        return Answered(id="1", kind="k", question="q", expected="e", answer="a", score=score)

    assert not Evaluation(name="t", metric="m", answers=[answer(1)]).graded
    assert Evaluation(name="t", metric="m", answers=[answer(1)], graded=True).summary()["graded"]
    assert Evaluation(name="t", metric="m", answers=[answer(1), answer(0.5)]).graded
