"""Slots: against the formulas written out, and by law."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polyvex.moe.experts import GatedExperts
from polyvex.moe.routers import SoftOptions, SoftRouter


@pytest.fixture
def router() -> SoftRouter:
    torch.manual_seed(0)
    made = SoftRouter(SoftOptions(slots=3), dim=8, num_experts=4)
    with torch.no_grad():
        made.scale.fill_(5.0)
    return made


@pytest.fixture
def experts() -> GatedExperts:
    torch.manual_seed(1)
    made = GatedExperts(num_experts=4, dim=8, hidden=12, act=F.silu, backend="loop")
    with torch.no_grad():
        for weights in made.parameters():
            weights.normal_()
    return made


def one(experts: GatedExperts, index: int, values: Tensor) -> Tensor:
    gate, up = F.linear(values, experts.gate_up_proj[index]).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, experts.down_proj[index])


def test_it_is_the_papers_formula(router: SoftRouter, experts: GatedExperts, tokens: Tensor) -> None:
    logits = F.normalize(tokens, dim=1) @ (5.0 * F.normalize(router.phi, dim=0))
    slots = logits.softmax(dim=0).T @ tokens
    worked = torch.cat([one(experts, index, slots[3 * index : 3 * index + 3]) for index in range(4)])
    expected = logits.softmax(dim=1) @ worked
    assert torch.allclose(experts(tokens, router(tokens)), expected, atol=1e-5)


def test_mixtures_sum_to_one(router: SoftRouter, tokens: Tensor) -> None:
    routing = router(tokens)
    assert routing.into.shape == routing.back.shape == (12, 12)
    assert torch.allclose(routing.into.sum(dim=0), torch.ones(12))
    assert torch.allclose(routing.back.sum(dim=1), torch.ones(12))
    assert torch.allclose(routing.weight.sum(dim=1), torch.ones(12))


def test_rows_and_padding_do_not_mix(router: SoftRouter, experts: GatedExperts, tokens: Tensor) -> None:
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, :2] = False
    together = experts(tokens, router(tokens, valid))
    for rows in (slice(0, 6), slice(8, 12)):
        assert torch.allclose(together[rows], experts(tokens[rows], router(tokens[rows])), atol=1e-5)


def test_a_later_token_changes_an_earlier_one(router: SoftRouter, experts: GatedExperts, tokens: Tensor) -> None:
    """Why it is refused in a language model unless asked for."""
    assert not router.causal
    alone = experts(tokens[:6], router(tokens[:6]))
    assert not torch.allclose(experts(tokens, router(tokens))[:6], alone, atol=1e-3)


def test_decisions_of_some_tokens_can_still_be_read(router: SoftRouter, tokens: Tensor) -> None:
    routing, real = router(tokens), torch.arange(12) < 7
    some = routing.masked(real)
    assert torch.equal(some.weight, routing.weight[real])
    assert torch.equal(some.probs, routing.probs[real])
