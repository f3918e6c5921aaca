"""Noisy top-k gating: by hand, against a simulation of its noise, and by law."""

import math

import pytest
import torch
from torch import Tensor

from polyvex.moe.routers import NoisyTopKOptions, NoisyTopKRouter
from polyvex.moe.routers.noisy import _chances


def router(k: int = 2, num_experts: int = 4) -> NoisyTopKRouter:
    torch.manual_seed(0)
    made = NoisyTopKRouter(NoisyTopKOptions(k=k), dim=8, num_experts=num_experts)
    with torch.no_grad():
        made.weight.normal_()
        made.noise.normal_()
    return made


def test_it_starts_even() -> None:
    fresh = NoisyTopKRouter(NoisyTopKOptions(k=1), dim=8, num_experts=4).train()
    assert not fresh.weight.any()
    assert not fresh.noise.any()
    torch.manual_seed(0)
    load = fresh(torch.randn(8000, 8)).load()
    assert torch.allclose(load, torch.full((4,), 0.25), atol=0.02)


def test_evaluation_has_no_noise(tokens: Tensor) -> None:
    one = router().eval()
    routing = one(tokens)
    assert torch.equal(routing.logits, tokens @ one.weight.T)
    assert routing.soft_load is None
    assert torch.equal(one(tokens).expert, routing.expert)


def test_noise_has_the_deviation_that_it_learns(tokens: Tensor) -> None:
    one = router().train()
    torch.manual_seed(1)
    drawn = torch.stack([one(tokens).logits for _ in range(4000)]) - tokens @ one.weight.T
    expected = torch.nn.functional.softplus(tokens @ one.noise.T) + 0.01
    assert torch.allclose(drawn.std(dim=0), expected, rtol=0.06)
    assert (drawn.mean(dim=0).abs() < 0.06 * expected).all()


def test_weights_are_a_softmax_over_the_kept(tokens: Tensor) -> None:
    routing = router().train()(tokens)
    kept = routing.logits.gather(1, routing.expert)
    assert torch.allclose(routing.weight, kept.softmax(dim=-1))
    assert torch.allclose(routing.weight.sum(dim=1), torch.ones(12))


def test_chances_by_hand() -> None:
    # k = 1. Noisy logits 2, 1, 0: expert 0 is in, its rival is the second (1); the others' rival is the first (2).
    clean, noisy = torch.tensor([[1.5, 1.0, -1.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    found = _chances(clean, noisy, torch.tensor([[1.0, 0.5, 2.0]]), 1)[0].tolist()
    phi = [0.5 * (1 + math.erf(z / math.sqrt(2))) for z in (0.5, -2.0, -1.5)]
    assert found == pytest.approx(phi, abs=1e-6)


def test_chances_are_how_often_an_expert_gets_in_when_its_own_noise_is_drawn_again() -> None:
    generator = torch.Generator().manual_seed(2)
    clean, noisy = torch.randn(1, 5, generator=generator), torch.randn(1, 5, generator=generator)
    deviation = torch.rand(1, 5, generator=generator) + 0.2
    found = _chances(clean, noisy, deviation, 2)[0]
    for expert in range(5):
        drawn = noisy.repeat(20_000, 1)
        drawn[:, expert] = clean[0, expert] + deviation[0, expert] * torch.randn(20_000, generator=generator)
        share = (drawn.topk(2).indices == expert).any(dim=1).float().mean()
        assert share.item() == pytest.approx(found[expert].item(), abs=0.015)


def test_all_experts_are_certain_when_all_work() -> None:
    assert (router(k=4).train()(torch.randn(5, 8)).soft_load == 1).all()


def test_both_matrices_learn_through_the_load(tokens: Tensor) -> None:
    one = router().train()
    load = one(tokens).soft_load
    assert load is not None
    load.sum(dim=0).var().backward()
    assert one.weight.grad is not None
    assert one.noise.grad is not None
    assert one.noise.grad.abs().max() > 0
