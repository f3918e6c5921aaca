"""Routing as data."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from polyvex.moe import Routing


def test_load_is_the_share_of_assignments(routing_of: Callable[..., Routing]) -> None:
    # Three tokens, two choices each: experts 0 and 1, 0 and 2, 0 and 1. Of six: 3, 2, 1, 0.
    probs = [[0.5, 0.3, 0.1, 0.1], [0.5, 0.1, 0.3, 0.1], [0.5, 0.3, 0.1, 0.1]]
    assert routing_of(probs, k=2).load().tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0])


def test_load_of_no_tokens_is_zero(routing_of: Callable[..., Routing]) -> None:
    empty = routing_of([[0.6, 0.4]]).masked(torch.tensor([False]))
    assert empty.load().tolist() == [0, 0]


def test_masked_keeps_the_valid_tokens_of_every_field(routing_of: Callable[..., Routing]) -> None:
    routing = routing_of([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], k=2)
    kept = routing.masked(torch.tensor([True, False, True]))
    for name in ("expert", "weight", "logits", "probs"):
        assert torch.equal(getattr(kept, name), getattr(routing, name)[[0, 2]])


def partly(routing: Routing, kept: list[list[bool]]) -> Routing:
    return replace(routing, kept=torch.tensor(kept))


def test_what_is_not_carried_out_does_not_count(routing_of: Callable[..., Routing]) -> None:
    routing = partly(routing_of([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], k=2), [[True, False], [True, True], [False] * 2])
    assert routing.counts().tolist() == [2, 1]
    assert routing.load().tolist() == pytest.approx([2 / 3, 1 / 3])
    assert routing.dropped().item() == pytest.approx(1 / 3)
    assert routing.gates()[0].tolist() == pytest.approx([0.9, 0])
    assert routing.gates()[2].tolist() == [0, 0]


def test_gates_are_the_weights_by_expert(routing_of: Callable[..., Routing]) -> None:
    assert routing_of([[0.1, 0.6, 0.3]], k=2).gates()[0].tolist() == pytest.approx([0, 2 / 3, 1 / 3])


def test_tokens_go_to_their_experts_and_come_back_by_weight(routing_of: Callable[..., Routing]) -> None:
    # Experts multiply by 1, 10 and 100.
    routing = routing_of([[0.0, 0.75, 0.25], [0.6, 0.0, 0.4]], k=2)
    sent = routing.dispatch(torch.tensor([[1.0], [2.0]]))
    assert sent.rows[:, 0].tolist() == [2, 1, 1, 2]
    assert sent.sizes.tolist() == [1, 1, 2]
    outputs = sent.rows * torch.tensor([[1.0], [10.0], [100.0], [100.0]])
    back = routing.combine(outputs, sent)[:, 0].tolist()
    assert back == pytest.approx([0.75 * 10 + 0.25 * 100, 0.6 * 2 + 0.4 * 200])


def test_experts_never_see_what_is_dropped(routing_of: Callable[..., Routing]) -> None:
    routing = partly(routing_of([[0.75, 0.25], [0.4, 0.6]], k=2), [[True, False], [False, False]])
    sent = routing.dispatch(torch.tensor([[1.0], [2.0]]))
    assert (sent.rows.tolist(), sent.sizes.tolist()) == ([[1.0]], [1, 0])
    assert routing.combine(sent.rows * 8, sent).tolist() == [[6.0], [0.0]]
