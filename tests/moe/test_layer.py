"""The MoE layer as a whole: it takes a dense FFN's place, token by token."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from polyvex.context import TokenContext, TokenKinds
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
    gate, up = F.linear(hidden, layer.experts.gate_up_proj[0]).chunk(2, dim=-1)
    dense = F.linear(F.silu(gate) * up, layer.experts.down_proj[0])
    assert torch.allclose(layer(hidden), dense, atol=1e-4)


def test_nothing_is_kept_on_the_module(layer: MoEFeedForward) -> None:
    before = set(layer.__dict__) | set(layer.router.__dict__) | set(layer.experts.__dict__)
    layer(torch.randn(2, 5, 8))
    assert set(layer.__dict__) | set(layer.router.__dict__) | set(layer.experts.__dict__) == before


def test_answers_teach_the_router_when_two_experts_are_weighed(layer: MoEFeedForward) -> None:
    layer(torch.randn(2, 5, 8)).square().sum().backward()
    assert layer.router.weight.grad is not None
    assert layer.router.weight.grad.abs().max() > 0


def full(*, context: TokenContext | None = None) -> MoEFeedForward:
    torch.manual_seed(0)
    made = MoEFeedForward(
        router=TopKRouter(TopKOptions(k=1, init_std=1.0, capacity=0.5), dim=8, num_experts=2),
        experts=GatedExperts(num_experts=2, dim=8, hidden=12, act=F.silu, backend="loop"),
        context=context,
    )
    with torch.no_grad():
        for weights in made.experts.parameters():
            weights.normal_()
    return made.train()


def test_padding_takes_no_room_where_the_model_tells_of_it() -> None:
    context = TokenContext()
    layer, hidden = full(context=context), torch.randn(2, 6, 8)
    padded = torch.cat([hidden[:1, :1].expand(2, 3, 8), hidden], dim=1)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[:, :3] = False
    expected = layer(hidden)
    with context.telling(TokenKinds(valid=valid, source=torch.full(valid.shape, -1))):
        told = layer(padded)
    assert torch.allclose(told[:, 3:], expected, atol=1e-5)
    assert not told[:, :3].any()
    assert not torch.allclose(layer(padded)[:, 3:], expected, atol=1e-5)  # untold, padding takes room


def test_a_layer_that_checkpointing_runs_again_knows_padding_as_the_first_time() -> None:
    context = TokenContext()
    layer, hidden = full(context=context), torch.randn(1, 8, 8)
    valid = torch.arange(8)[None] >= 3
    gradients = []
    for again in (False, True):
        values = hidden.clone().requires_grad_()
        with context.telling(TokenKinds(valid=valid, source=torch.full(valid.shape, -1))):
            output = (
                checkpoint(layer, values, use_reentrant=False, context_fn=context.remembered)
                if again
                else layer(values)
            )
        output.square().sum().backward()
        gradients.append(values.grad)
    assert torch.allclose(gradients[0], gradients[1])
    assert context.now is None
