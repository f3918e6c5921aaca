"""The MoE layer as a whole: it takes a dense FFN's place, token by token."""

import pytest
import torch
import torch.nn.functional as F

from polyvex.moe import TopKRouter
from polyvex.moe.experts import GatedExperts
from polyvex.moe.layer import MoEFeedForward
from polyvex.moe.routers import TopKOptions


@pytest.fixture
def layer() -> MoEFeedForward:
    torch.manual_seed(0)
    made = MoEFeedForward(
        router=TopKRouter(TopKOptions(k=2, init_std=1.0), dim=8, num_experts=4),
        experts=GatedExperts(num_experts=4, dim=8, hidden=12, act=F.silu, backend="loop"),
    )
    with torch.no_grad():
        for weights in made.experts.parameters():
            weights.normal_()
    return made


def test_shape_is_kept(layer: MoEFeedForward) -> None:
    assert layer(torch.randn(2, 5, 8)).shape == (2, 5, 8)


def test_a_token_does_not_depend_on_later_ones(layer: MoEFeedForward) -> None:
    hidden = torch.randn(1, 6, 8)
    changed = hidden.clone()
    changed[:, 3:] = torch.randn(1, 3, 8)
    assert torch.allclose(layer(hidden)[:, :3], layer(changed)[:, :3], atol=1e-5)


def test_a_token_does_not_depend_on_padding_or_other_rows(layer: MoEFeedForward) -> None:
    hidden = torch.randn(3, 6, 8)
    padded = torch.cat([torch.zeros(3, 4, 8), hidden], dim=1)
    assert torch.allclose(layer(padded)[1, 4:], layer(hidden[1:2])[0], atol=1e-5)


def test_equal_experts_are_one_ffn(layer: MoEFeedForward) -> None:
    with torch.no_grad():
        for weights in layer.experts.parameters():
            weights.copy_(weights[:1].expand_as(weights))
    hidden = torch.randn(2, 5, 8)
    gate, up = F.linear(hidden, layer.experts.gate_up[0]).chunk(2, dim=-1)
    dense = F.linear(F.silu(gate) * up, layer.experts.down[0])
    assert torch.allclose(layer(hidden), dense, atol=1e-4)


def test_nothing_is_kept_on_the_module(layer: MoEFeedForward) -> None:
    before = set(layer.__dict__) | set(layer.router.__dict__) | set(layer.experts.__dict__)
    layer(torch.randn(2, 5, 8))
    assert set(layer.__dict__) | set(layer.router.__dict__) | set(layer.experts.__dict__) == before


def test_answers_teach_the_router_when_two_experts_are_weighed(layer: MoEFeedForward) -> None:
    layer(torch.randn(2, 5, 8)).square().sum().backward()
    assert layer.router.weight.grad is not None
    assert layer.router.weight.grad.abs().max() > 0
