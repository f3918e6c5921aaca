"""Routing as data."""

from collections.abc import Callable

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
