"""Experts choose tokens: by hand and by law."""

from typing import Any

import pytest
import torch
from torch import Tensor

from polyvex.moe.routers import ExpertChoiceOptions, ExpertChoiceRouter


def router(num_experts: int = 4, **options: Any) -> ExpertChoiceRouter:
    torch.manual_seed(0)
    return ExpertChoiceRouter(ExpertChoiceOptions(init_std=1.0, **options), dim=8, num_experts=num_experts)


def test_choice_by_hand() -> None:
    # Three tokens, two experts, capacity 4/3: each expert takes 3 * 4/3 / 2 = 2 tokens.
    # Logits of expert 1 against 0: 0, ln 3, -ln 3, so S of expert 0 is 1/2, 1/4, 3/4.
    one = ExpertChoiceRouter(ExpertChoiceOptions(capacity=4 / 3), dim=1, num_experts=2)
    with torch.no_grad():
        one.weight.copy_(torch.tensor([[0.0], [1.0]]))
    routing = one(torch.tensor([[0.0], [3.0], [1 / 3]]).where(torch.tensor([[False], [True], [True]]), 1.0).log())
    # Expert 0 takes the tokens 2 and 0, expert 1 the tokens 1 and 0.
    gates = (routing.gates() > 0).tolist()
    assert gates == [[True, True], [False, True], [True, False]]
    assert routing.gates()[0].tolist() == pytest.approx([0.5, 0.5])
    assert routing.gates()[1, 1].item() == pytest.approx(0.75)
    assert routing.gates()[2, 0].item() == pytest.approx(0.75)


@pytest.mark.parametrize("capacity", [0.5, 1.0, 2.0, 4.0])
def test_loads_are_even(tokens: Tensor, capacity: float) -> None:
    routing = router(capacity=capacity)(tokens)
    room = -(-12 * capacity // 4)
    assert routing.counts().tolist() == [room] * 4


def test_all_experts_work_on_all_tokens_at_full_capacity(tokens: Tensor) -> None:
    routing = router(capacity=4.0)(tokens)
    assert routing.kept.all()
    assert torch.allclose(routing.gates(), routing.probs)


def test_choices_come_best_first_and_those_not_made_last(tokens: Tensor) -> None:
    routing = router(capacity=1.0)(tokens)
    carried = routing.weight * routing.kept
    assert (carried.diff(dim=1) <= 0).all()
    assert routing.dropped() == (~routing.kept.any(dim=1)).float().mean()


def test_each_row_chooses_for_itself_and_padding_is_nobodys_choice(tokens: Tensor) -> None:
    one = router(capacity=1.0)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, :2] = False
    together = one(tokens, valid)
    assert not together.kept[6:8].any()
    for rows in (slice(0, 6), slice(8, 12)):
        assert torch.equal(together.gates()[rows], one(tokens[rows]).gates())


def test_a_later_token_decides_about_an_earlier_one(tokens: Tensor) -> None:
    """Why it is refused in a language model unless asked for."""
    one = router(capacity=1.0)
    assert not one.causal
    assert not torch.equal(one(tokens).gates()[:6], one(tokens[:6]).gates())


def test_more_capacity_than_experts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"capacity is 5\.0, but there are only 4 experts"):
        router(capacity=5.0)
