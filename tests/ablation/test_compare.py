"""Figures of cells and their differences, worked by hand."""

import json
from typing import Any

import numpy as np
import pytest

from polyvex.ablation.compare import bootstrap, compare_all, paired
from polyvex.ablation.table import result_rows


def group(name: str, *scores: dict[str, float], seeds: list[int] | None = None) -> dict[str, Any]:
    return {
        "label": f"positions={name}",
        "values": {"positions": name},
        "seeds": seeds or list(range(len(scores))),
        "scores": list(scores),
        "visual_tokens": 12,
        "positions": 4,
    }


def by_name(*scores: float) -> dict[str, float]:
    return {f"q{index}": score for index, score in enumerate(scores)}


def test_the_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap(np.full(10, 0.25)) == (0.25, 0.25)


def test_the_bootstrap_of_two_values_by_hand() -> None:
    # Two draws of {0, 1}: mean 0 with 1/4, 1/2 with 1/2, 1 with 1/4. So the 2.5th percentile is 0, the 97.5th is 1.
    assert bootstrap(np.array([0.0, 1.0])) == (0.0, 1.0)


def test_the_bootstrap_of_many_values_is_near_the_normal_interval() -> None:
    # 200 of 400 right: standard error sqrt(0.25 / 400) = 0.025, so 0.5 ± 1.96 · 0.025 = 0.451 … 0.549.
    low, high = bootstrap(np.array([0.0, 1.0] * 200))
    assert low == pytest.approx(0.451, abs=0.006)
    assert high == pytest.approx(0.549, abs=0.006)


def test_the_bootstrap_is_the_same_each_time_and_resamples_questions() -> None:
    values = np.random.default_rng(7).random(50)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)


def test_differences_are_question_by_question() -> None:
    mine, theirs = group("b", by_name(1, 1, 0, 0)), group("a", by_name(1, 0, 0, 1))
    assert paired(mine, theirs).tolist() == [0, 1, 0, -1]


def test_differences_are_averaged_over_the_seeds_that_both_have() -> None:
    # Seed 1: 1-0, 0-0 → 1, 0.   Seed 2: 1-1, 1-0 → 0, 1.   Mean: 1/2, 1/2. Seeds 0 and 3 have no partner.
    mine = group("b", by_name(9, 9), by_name(1, 0), by_name(1, 1), seeds=[0, 1, 2])
    theirs = group("a", by_name(1, 0), by_name(0, 0), by_name(7, 7), seeds=[2, 1, 3])
    assert paired(mine, theirs).tolist() == [0.5, 0.5]


def test_only_questions_that_all_answered_are_compared() -> None:
    mine, theirs = group("b", {"x": 1.0, "y": 1.0}), group("a", {"y": 0.0, "z": 1.0})
    assert paired(mine, theirs).tolist() == [1.0]


def test_the_order_in_which_answers_are_stored_does_not_matter() -> None:
    mine = group("b", {"x": 1.0, "y": 0.0})
    theirs = group("a", {"y": 0.0, "x": 0.0})
    assert paired(mine, theirs).tolist() == [1.0, 0.0]


def test_a_result_by_hand() -> None:
    # Cell a: seeds answer 2/4 and 4/4, mean 3/4. Cell b: 1/4 and 3/4, mean 1/2. Per question b - a, mean over seeds:
    # (0-1 + 1-1)/2 = -1/2, (0-1 + 1-1)/2 = -1/2, (1-0 + 1-1)/2 = 1/2, (0-0 + 0-1)/2 = -1/2: mean -1/4.
    first = group("a", by_name(1, 1, 0, 0), by_name(1, 1, 1, 1))
    second = group("b", by_name(0, 0, 1, 0), by_name(1, 1, 1, 0))
    a, b = compare_all([first, second])
    assert (a.accuracy, a.by_seed, a.questions) == (0.75, [0.5, 1.0], 4)
    assert (a.difference, a.difference_interval) == (None, None)
    assert (b.accuracy, b.by_seed, b.seeds, b.difference) == (0.5, [0.25, 0.75], [0, 1], -0.25)
    assert b.difference_interval == bootstrap(np.array([-0.5, -0.5, 0.5, -0.5]))
    assert a.interval == bootstrap(np.array([1.0, 1.0, 0.5, 0.5]))


def test_a_paired_interval_sees_what_two_separate_ones_hide() -> None:
    # b is right wherever a is, and on 10 of 200 more: each interval is about ± 7 %, that of the difference ± 3 %.
    answers = [1.0, 0.0] * 100
    better = [1.0] * 20 + answers[20:]
    a, b = compare_all([group("a", by_name(*answers)), group("b", by_name(*better))])
    assert a.interval[1] > b.interval[0]
    assert b.difference == pytest.approx(0.05)
    assert b.difference_interval is not None
    assert b.difference_interval[0] > 0


def test_every_cell_is_compared_with_the_first() -> None:
    results = compare_all([group("a", by_name(0, 0)), group("b", by_name(1, 0)), group("c", by_name(1, 1))])
    assert [result.difference for result in results] == [None, 0.5, 1.0]


def test_no_group_gives_no_result() -> None:
    assert compare_all([]) == []


def test_a_result_is_plain_data() -> None:
    result = compare_all([group("a", by_name(1, 0)), group("b", by_name(1, 1))])[1]
    record = json.loads(json.dumps(result.as_dict()))
    assert record["values"] == {"positions": "b"}
    assert record["difference_interval"] == list(result.difference_interval or ())


def test_rows_for_people() -> None:
    rows = result_rows(compare_all([group("a", by_name(1, 0)), group("b", by_name(1, 1))]))
    assert rows[0] == {
        "cell": "positions=a",
        "tokens": "12",
        "positions": "4",
        "seeds": "1",
        "questions": "2",
        "accuracy": "50.00%",
        "95 % interval": "0.00% to 100.00%",
        "to the first": "-",
    }
    assert rows[1]["to the first"] == "+50.00% (+0.00% to +100.00%)"


def test_without_a_common_seed_or_question_nothing_is_compared() -> None:
    a, other = group("a", by_name(1, 0)), {**group("b", by_name(1, 1)), "seeds": [7]}
    assert compare_all([a, other])[1].difference is None
    b = compare_all([group("a", {"x": 1.0}), group("b", {"y": 1.0})])[1]
    assert (b.accuracy, b.difference, b.difference_interval) == (1.0, None, None)


def test_the_first_of_the_plan_is_the_one_to_compare_with() -> None:
    groups = [group("a", by_name(0, 0)), group("b", by_name(1, 0)), group("c", by_name(1, 1))]
    results = compare_all(groups, first="positions=b")
    assert [result.difference for result in results] == [-0.5, None, 0.5]
    # The planned first failed: nothing to compare with, and no other takes its place.
    assert [result.difference for result in compare_all(groups, first="positions=z")] == [None] * 3
