"""Full experts: who is kept, worked out by hand, and by law."""

import pytest
import torch
from torch import Tensor

from polyvex.moe.routers.capacity import CapacityOptions, Limit


def kept(
    expert: list[list[int]],
    factor: float,
    *,
    weight: list[list[float]] | None = None,
    valid: list[bool] | None = None,
    experts: int = 2,
    priority: bool = False,
) -> list[list[bool]]:
    chosen = torch.tensor(expert)
    weights = torch.tensor(weight) if weight else torch.ones(chosen.shape)
    real = torch.tensor(valid) if valid else torch.ones(len(chosen), dtype=torch.bool)
    return Limit(factor=factor, priority=priority).kept(chosen, weights, real, experts).tolist()


def test_the_first_tokens_are_kept() -> None:
    # Four tokens over two experts: room for 2 each. Expert 0 is wanted by the tokens 0, 1 and 3.
    assert kept([[0], [0], [1], [0]], 1.0) == [[True], [True], [True], [False]]


def test_room_is_rounded_up() -> None:
    # 3 tokens over 2 experts: 1.5, so 2.
    assert kept([[0], [0], [0]], 1.0) == [[True], [True], [False]]


def test_all_first_choices_come_before_all_second_ones() -> None:
    # Two tokens, two choices, room for 1 each. Token 1's first choice takes expert 1 before token 0's second.
    assert kept([[0, 1], [1, 0]], 0.5) == [[True, False], [True, False]]


def test_priority_keeps_the_greatest_weights() -> None:
    weight = [[0.5], [0.9], [0.7], [0.8]]
    assert kept([[0], [0], [0], [0]], 1.0, weight=weight, priority=True) == [[False], [True], [False], [True]]


def test_priority_goes_by_a_tokens_best_choice() -> None:
    # Room for 1 each; token 1 is surer of its first choice, and queues up first for both.
    weight = [[0.6, 0.4], [0.9, 0.1]]
    assert kept([[0, 1], [0, 1]], 0.5, weight=weight, priority=True) == [[False, False], [True, True]]
    assert kept([[0, 1], [0, 1]], 0.5, weight=weight) == [[True, True], [False, False]]


def test_padding_takes_no_room_and_counts_for_none() -> None:
    # Two real tokens over two experts: room for 1.
    assert kept([[0], [0], [0]], 1.0, valid=[False, True, True]) == [[False], [True], [False]]


def test_the_amount_of_padding_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    expert = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(20)])
    weight = torch.rand(20, 2, generator=generator)
    for priority in (False, True):
        limit = Limit(factor=0.7, priority=priority)
        plain = limit.kept(expert, weight, torch.ones(20, dtype=torch.bool), 4)
        padded = torch.cat([torch.zeros(9, 2, dtype=torch.long), expert]), torch.cat([torch.ones(9, 2), weight])
        valid = torch.arange(29) >= 9
        assert torch.equal(limit.kept(*padded, valid, 4)[9:], plain)


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 1.3, 4.0])
def test_no_expert_has_more_than_its_room_and_none_is_left_out_while_there_is_room(factor: float) -> None:
    generator = torch.Generator().manual_seed(1)
    expert = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(30)])
    found = Limit(factor=factor, priority=False).kept(expert, torch.ones(30, 2), torch.ones(30, dtype=torch.bool), 4)
    room = -(-factor * 2 * 30 // 4)
    wanted, taken = torch.bincount(expert.flatten(), minlength=4), torch.bincount(expert[found], minlength=4)
    assert taken.tolist() == [min(int(count), room) for count in wanted]


def test_a_limit_holds_while_it_trains_or_after() -> None:
    options = CapacityOptions(capacity=1.5, priority=True)
    assert Limit.of(options, training=True) == Limit(factor=1.5, priority=True)
    assert Limit.of(options, training=False) is None
    assert Limit.of(CapacityOptions(eval_capacity=2.0), training=False) == Limit(factor=2.0, priority=False)
    assert Limit.of(CapacityOptions(), training=True) is None


def test_a_priority_without_a_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="priority = true has no effect without a capacity"):
        CapacityOptions(priority=True)


def test_causality_can_break_as_in_deepspeed(tokens: Tensor) -> None:
    """A later token's first choice pushes out an earlier one's second: why nothing is dropped unless asked for."""
    before = kept([[0, 1], [0, 1]], 0.5)
    after = kept([[0, 1], [1, 0]], 0.5)
    assert before[0] == [True, True]
    assert after[0] == [True, False]
