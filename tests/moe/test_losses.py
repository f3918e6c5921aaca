"""Auxiliary losses: numbers worked by hand, bounds, and transformers' own function where the definitions agree."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from polyvex.moe import Routing
from polyvex.moe.losses import (
    asked,
    auxiliary_losses,
    importance,
    load,
    load_balance,
    router_z,
    shares,
    squared_variation,
)

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
    assert [value.item() for value in losses.values()] == [0.0] * 4


def test_a_dense_model_has_no_auxiliary_losses() -> None:
    assert auxiliary_losses([], torch.ones(1, 2, dtype=torch.bool)) == {}


def test_all_choices_by_hand(routing_of: Make) -> None:
    # Three tokens, both choices: expert 0 three times, 1 twice, 2 once. F = [3, 2, 1] / 6, G = [.6, .25, .15].
    routing = routing_of([[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.5, 0.25, 0.25 - 1e-9]], k=2)
    routing = replace(routing, expert=torch.tensor([[0, 1], [0, 1], [0, 2]]))
    assert asked(routing, "all").tolist() == [3, 2, 1]
    expected = 3 * (3 * 0.6 + 2 * 0.25 + 1 * 0.15) / 6
    assert load_balance(routing, shares(asked(routing, "all"))).item() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_all_choices_are_transformers_but_for_their_number(k: int, routing_of: Make) -> None:
    # Theirs counts assignments per token, so it is k at balance; ours is 1.
    logits = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    routing = routing_of(logits.softmax(-1).tolist(), k=k)
    ours = auxiliary_losses([routing], mask.bool(), counted="all")["load_balance"]
    theirs = load_balancing_loss_func((logits,), num_experts=4, top_k=k, attention_mask=mask)
    assert k * ours.item() == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_pooled_layers_are_transformers_but_for_the_number_of_choices(k: int, routing_of: Make) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(12, 4, generator=generator) * scale for scale in (1, 2, 3)]
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    routings = [routing_of(logits.softmax(-1).tolist(), k=k) for logits in layers]
    ours = auxiliary_losses(routings, mask.bool(), counted="all", layers="pooled")["load_balance"]
    theirs = load_balancing_loss_func(tuple(layers), num_experts=4, top_k=k, attention_mask=mask)
    assert k * ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_pooled_layers_by_hand(routing_of: Make) -> None:
    # One layer goes to expert 0 and one to expert 1, both surely: each alone has the loss 2, together they balance.
    routings = [routing_of([[1.0, 0.0]]), routing_of([[0.0, 1.0]])]
    valid = torch.ones(1, 1, dtype=torch.bool)
    assert auxiliary_losses(routings, valid)["load_balance"].item() == 4
    assert auxiliary_losses(routings, valid, layers="pooled")["load_balance"].item() == 1


def test_squared_variation_by_hand() -> None:
    # Mean 2, deviations -1, 0, 1: variance 2/3, over 4.
    assert squared_variation(torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(1 / 6)
    assert squared_variation(torch.zeros(3)).item() == 0.0


def test_importance_by_hand(routing_of: Make) -> None:
    # Weights of the kept: [.75, .25, 0] and [.5, 0, .5], summed [1.25, .25, .5]; mean 2/3.
    routing = routing_of([[0.6, 0.2, 0.2 - 1e-9], [0.4, 0.2, 0.4]], k=2)
    routing = replace(routing, expert=torch.tensor([[0, 1], [0, 2]]))
    variance = ((1.25 - 2 / 3) ** 2 + (0.25 - 2 / 3) ** 2 + (0.5 - 2 / 3) ** 2) / 3
    assert importance(routing).item() == pytest.approx(variance / (2 / 3) ** 2)


def test_load_takes_the_estimate_where_there_is_one(routing_of: Make) -> None:
    routing = routing_of([[0.9, 0.1], [0.8, 0.2]])
    assert load(routing).item() == pytest.approx(1.0)  # counts 2 and 0: mean 1, variance 1
    estimated = torch.tensor([[0.75, 0.25], [0.75, 0.25]], requires_grad=True)
    loss = load(replace(routing, soft_load=estimated))
    assert loss.item() == pytest.approx(0.25)  # 1.5 and 0.5
    loss.backward()
    assert estimated.grad is not None
    assert (estimated.grad[:, 0] > 0).all()
    assert (estimated.grad[:, 1] < 0).all()


def test_what_is_dropped_is_told_and_is_no_loss(routing_of: Make) -> None:
    routing = routing_of([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert "dropped" not in auxiliary_losses([routing], valid)
    full = replace(routing, kept=torch.tensor([[True], [False], [False], [False]]))
    found = auxiliary_losses([routing, full], valid)
    assert found["dropped"].item() == pytest.approx((0 + 0.75) / 2)
    assert found["load_balance"].item() == pytest.approx(2 * load_balance(routing).item())  # F is before dropping


def _counting(rank: int, folder: str) -> None:
    """One process of two: expert 0 for all of its tokens, or expert 1 for all."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    probs = torch.tensor([[0.9, 0.1]] * 3 if rank == 0 else [[0.1, 0.9]])
    routing = Routing(
        expert=probs.argmax(-1, keepdim=True), weight=torch.ones(len(probs), 1), logits=probs.log(), probs=probs
    )
    valid = torch.ones(1, len(probs), dtype=torch.bool)
    found = [auxiliary_losses([routing], valid, together=both)["load_balance"].item() for both in (False, True)]
    Path(folder, str(rank)).write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_processes_count_together(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_counting, (str(tmp_path),), nprocs=2)
    (alone0, both0), (alone1, both1) = (json.loads((tmp_path / str(rank)).read_text()) for rank in (0, 1))
    assert [alone0, alone1] == pytest.approx([2 * 0.9] * 2)
    # Three of four choices are expert 0.
    assert both0 == pytest.approx(2 * (0.75 * 0.9 + 0.25 * 0.1))
    assert both1 == pytest.approx(2 * (0.75 * 0.1 + 0.25 * 0.9))
