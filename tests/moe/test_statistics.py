"""Counts of routings by hand: loads, certainty, distances, and that batches add up."""

import math

import pytest
import torch

from polyvex.moe.routing import Routing
from polyvex.moe.statistics import RoutingStatistics

SOURCE = torch.tensor([[-1, 0, 0, 1], [-1, 0, 1, -1]])
VALID = torch.tensor([[True, True, True, True], [True, True, True, False]])


def routing(first: list[int], second: list[int], top: float = 0.7) -> Routing:
    """Tokens of two of three experts; the first choice has the probability ``top``, the others share the rest."""
    expert = torch.tensor([first, second]).T
    probs = torch.full((len(first), 3), (1 - top) / 2).scatter(1, expert[:, :1], top)
    return Routing(expert=expert, weight=probs.gather(1, expert), logits=probs.log(), probs=probs)


@pytest.fixture
def found() -> RoutingStatistics:
    statistics = RoutingStatistics(["a", "b"], ["lm.model.layers.0.mlp", "lm.model.layers.2.mlp"])
    # Tokens:        text a  a  b  text a  b  padding
    one = routing([0, 1, 1, 2, 0, 1, 2, 0], [1, 0, 2, 1, 1, 0, 0, 1])
    two = routing([1, 1, 0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 0, 0, 0, 0], top=0.5)
    statistics.add([one, two], SOURCE, VALID)
    return statistics


def test_tokens_are_counted_by_where_they_come_from_and_padding_is_not(found: RoutingStatistics) -> None:
    assert found.sources == ["text", "a", "b"]
    assert found.tokens() == {"text": 2, "a": 3, "b": 2}
    assert found.groups == {"all": [0, 1, 2], "text": [0], "visual": [1, 2], "a": [1], "b": [2]}


def test_load_counts_all_choices_and_first_the_best_one(found: RoutingStatistics) -> None:
    first, _ = found.tables()
    assert first["num_experts"] == 3
    assert first["experts_per_token"] == 2.0
    # Text: (0, 1) twice. a: (1, 0), (1, 2), (1, 0). b: (2, 1), (2, 0).
    assert first["load"]["text"] == pytest.approx([1 / 2, 1 / 2, 0])
    assert first["load"]["a"] == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert first["load"]["b"] == pytest.approx([1 / 4, 1 / 4, 2 / 4])
    assert first["load"]["visual"] == pytest.approx([3 / 10, 4 / 10, 3 / 10])
    assert first["load"]["all"] == pytest.approx([5 / 14, 6 / 14, 3 / 14])
    assert first["first"]["a"] == [0.0, 1.0, 0.0]
    assert first["first"]["all"] == pytest.approx([2 / 7, 3 / 7, 2 / 7])


def test_distance_is_what_would_have_to_go_elsewhere(found: RoutingStatistics) -> None:
    # Text 7/14 7/14 0 against 5/14 6/14 3/14: 3/14 would have to move.
    first = found.tables()[0]
    assert first["apart"]["text"] == pytest.approx(3 / 14)
    assert set(first["apart"]) == {"text", "visual", "a", "b"}


def test_certainty_is_a_mean_over_tokens(found: RoutingStatistics) -> None:
    first, second = found.tables()
    assert first["confidence"]["all"] == pytest.approx(0.7)
    assert second["confidence"]["b"] == pytest.approx(0.5)
    entropy = -(0.7 * math.log(0.7) + 2 * 0.15 * math.log(0.15)) / math.log(3)
    assert first["entropy"]["text"] == pytest.approx(entropy)


def test_dead_experts_are_those_that_no_real_token_goes_to(found: RoutingStatistics) -> None:
    assert [table["dead"] for table in found.tables()] == [[], [2]]  # 2 of the second layer had padding alone


def test_what_is_not_carried_out_is_no_load_and_tokens_without_any_are_dropped() -> None:
    statistics = RoutingStatistics(["a"], ["lm.model.layers.0.mlp"])
    plain = routing([0, 1, 2], [1, 2, 0])
    kept = torch.tensor([[True, False], [False, False], [True, True]])
    limited = Routing(expert=plain.expert, weight=plain.weight, logits=plain.logits, probs=plain.probs, kept=kept)
    statistics.add([limited], torch.tensor([[0, 0, -1]]), torch.ones(1, 3, dtype=torch.bool))
    (table,) = statistics.tables()
    assert table["load"]["a"] == [1.0, 0.0, 0.0]
    assert table["dropped"] == {"all": pytest.approx(1 / 3), "text": 0.0, "visual": 0.5, "a": 0.5}


def test_batches_add_up(found: RoutingStatistics) -> None:
    apart = RoutingStatistics(["a", "b"], found.names)
    one = routing([0, 1, 1, 2, 0, 1, 2, 0], [1, 0, 2, 1, 1, 0, 0, 1])
    two = routing([1, 1, 0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 0, 0, 0, 0], top=0.5)
    for row in range(2):
        some = torch.arange(8) // 4 == row
        apart.add([one.masked(some), two.masked(some)], SOURCE[row:][:1], VALID[row:][:1])
    assert apart.tokens() == found.tokens()
    assert apart.tables() == found.tables()
    assert apart.paths() == found.paths()


def test_a_source_without_tokens_is_all_zero() -> None:
    statistics = RoutingStatistics(["a"], ["lm.model.layers.0.mlp"])
    statistics.add([routing([0, 1], [1, 2])], torch.full((1, 2), -1), torch.ones(1, 2, dtype=torch.bool))
    (table,) = statistics.tables()
    assert table["load"]["a"] == [0.0, 0.0, 0.0]
    assert table["confidence"]["a"] == table["apart"]["a"] == 0.0
    assert statistics.paths()["common"]["visual"] == []
