"""Exact match."""

import pytest

from polyvex.data import Sample
from polyvex.evaluation.metrics import ExactMatch


@pytest.mark.parametrize(
    ("answer", "expected", "score"),
    [
        ("red", "red", 1.0),
        ("Red", "red", 1.0),
        (" red \n", "red", 1.0),
        ("red.", "red", 1.0),
        ("red", "red.", 1.0),
        ("light  red", "light red", 1.0),
        ("red..", "red", 0.0),
        ("r ed", "red", 0.0),
        ("re", "red", 0.0),
        ("red square", "red", 0.0),
        ("", "red", 0.0),
    ],
)
def test_scores_by_hand(answer: str, expected: str, score: float) -> None:
    assert ExactMatch().score(answer, Sample(id="a", question="q", answer=expected)) == score


def test_a_full_stop_behind_a_space_does_not_count_either() -> None:
    assert ExactMatch().score("red .", Sample(id="a", question="q", answer="red")) == 1.0


@pytest.mark.parametrize(("answer", "score"), [("red", 1.0), ("Scarlet.", 1.0), ("blue", 0.0), ("red scarlet", 0.0)])
def test_any_of_several_correct_answers_counts(answer: str, score: float) -> None:
    sample = Sample(id="a", question="q", answer="red", answers=("red", "scarlet"))
    assert ExactMatch().score(answer, sample) == score
