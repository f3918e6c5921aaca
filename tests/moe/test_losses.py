"""Auxiliary losses: numbers worked by hand, bounds, and transformers' own function where the definitions agree."""

import math
from collections.abc import Callable

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from polyvex.moe import Routing
from polyvex.moe.losses import auxiliary_losses, load_balance, router_z

Make = Callable[..., Routing]


def test_load_balance_by_hand(routing_of: Make) -> None:
    # Both tokens choose expert 0: F = [1, 0]; G = [(.9 + .7) / 2, (.1 + .3) / 2] = [.8, .2]; E · Σ F·G = 2 · .8 = 1.6.
    assert load_balance(routing_of([[0.9, 0.1], [0.7, 0.3]])).item() == pytest.approx(1.6)


def test_load_balance_counts_first_choices_only(routing_of: Make) -> None:
    # MoE-LLaVA's F counts arg-max: the second choices (both expert 1) do not change the 1.6 from above.
    assert load_balance(routing_of([[0.9, 0.1], [0.7, 0.3]], k=2)).item() == pytest.approx(1.6)


def test_load_balance_is_one_at_uniform_probabilities_whoever_is_chosen() -> None:
    # Σ F·(1/E) · E = Σ F = 1, for any F.
    routing = Routing(
        expert=torch.tensor([[2], [2], [0], [3]]),
        weight=torch.ones(4, 1),
        logits=torch.zeros(4, 4),
        probs=torch.full((4, 4), 0.25),
    )
    assert load_balance(routing).item() == pytest.approx(1.0)


def test_load_balance_is_e_at_full_collapse(routing_of: Make) -> None:
    assert load_balance(routing_of([[1.0, 0, 0, 0]] * 5)).item() == pytest.approx(4.0)


def test_load_balance_is_one_when_each_expert_is_surely_chosen_once(routing_of: Make) -> None:
    assert load_balance(routing_of(torch.eye(4).tolist())).item() == pytest.approx(1.0)


def test_load_balance_is_transformers_with_one_choice(routing_of: Make) -> None:
    # transformers counts every choice, so the two definitions agree for k = 1 and one layer.
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    routing = routing_of(logits.softmax(-1).tolist(), k=1)
    theirs = load_balancing_loss_func((logits,), num_experts=4, top_k=1)
    assert load_balance(routing).item() == pytest.approx(float(theirs), rel=1e-5)


def test_masked_load_balance_is_transformers_with_a_padding_mask(routing_of: Make) -> None:
    logits = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    ours = auxiliary_losses([routing_of(logits.softmax(-1).tolist(), k=1)], mask.bool())["load_balance"]
    theirs = load_balancing_loss_func((logits,), num_experts=4, top_k=1, attention_mask=mask)
    assert ours.item() == pytest.approx(float(theirs), rel=1e-5)


def test_gradient_pushes_the_overloaded_expert_down() -> None:
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0]], requires_grad=True)
    probs = logits.softmax(-1)
    routing = Routing(expert=probs.argmax(-1, keepdim=True), weight=torch.ones(2, 1), logits=logits, probs=probs)
    load_balance(routing).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1] < 0).all()


def test_router_z_by_hand() -> None:
    # logsumexp(0, 0) = ln 2; logsumexp(ln 3, ln 1) = ln 4. Mean of squares: (ln²2 + ln²4) / 2 = (1 + 4) / 2 · ln²2.
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    routing = Routing(
        expert=torch.zeros(2, 1, dtype=torch.long), weight=torch.ones(2, 1), logits=logits, probs=logits.softmax(-1)
    )
    assert router_z(routing).item() == pytest.approx(2.5 * math.log(2) ** 2)


def test_losses_are_summed_over_layers(routing_of: Make) -> None:
    first, second = routing_of([[0.9, 0.1], [0.7, 0.3]]), routing_of([[0.5, 0.5], [0.5, 0.5]])
    losses = auxiliary_losses([first, second], torch.ones(1, 2, dtype=torch.bool))
    assert losses["load_balance"].item() == pytest.approx(1.6 + 1.0)
    assert losses["router_z"].item() == pytest.approx(router_z(first).item() + router_z(second).item())


def test_padding_is_left_out(routing_of: Make) -> None:
    probs = [[0.9, 0.1], [0.7, 0.3]]
    plain = auxiliary_losses([routing_of(probs)], torch.ones(1, 2, dtype=torch.bool))
    padded = auxiliary_losses([routing_of([*probs, [0.0001, 0.9999]])], torch.tensor([[True, True, False]]))
    for name, value in plain.items():
        assert padded[name].item() == pytest.approx(value.item())


def test_nothing_but_padding_gives_zero_not_nan(routing_of: Make) -> None:
    losses = auxiliary_losses([routing_of([[0.9, 0.1]])], torch.tensor([[False]]))
    assert [value.item() for value in losses.values()] == [0.0, 0.0]


def test_a_dense_model_has_no_auxiliary_losses() -> None:
    assert auxiliary_losses([], torch.ones(1, 2, dtype=torch.bool)) == {}
