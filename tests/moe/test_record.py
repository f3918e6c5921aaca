"""Reading the routers' decisions while a forward runs."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from polyvex.moe import TopKRouter, record
from polyvex.moe.record import record_routing
from polyvex.moe.routers import TopKOptions


@pytest.fixture
def routers() -> nn.Sequential:
    class Through(nn.Module):
        """A router in the middle of a network: routes, and passes its input on."""

        def __init__(self) -> None:
            super().__init__()
            self.router = TopKRouter(TopKOptions(k=1), dim=4, num_experts=3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            self.router(tokens)
            return tokens + 1

    return nn.Sequential(Through(), Through())


def test_decisions_come_in_the_order_of_the_layers(routers: nn.Sequential) -> None:
    tokens = torch.randn(5, 4)
    with record_routing(routers) as found:
        routers(tokens)
    assert len(found) == 2
    assert torch.equal(found[0].logits, routers[0].router(tokens).logits)
    assert torch.equal(found[1].logits, routers[1].router(tokens + 1).logits)


def test_nothing_is_recorded_outside_the_block(routers: nn.Sequential) -> None:
    with record_routing(routers) as found:
        pass
    routers(torch.randn(5, 4))
    assert found == []


def test_hooks_are_taken_off_after_an_error(routers: nn.Sequential) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), record_routing(routers):
        raise RuntimeError("on purpose")
    assert all(not module._forward_hooks for module in routers.modules())


def test_blocks_may_be_nested(routers: nn.Sequential) -> None:
    with record_routing(routers) as outer:
        routers(torch.randn(5, 4))
        with record_routing(routers) as inner:
            routers(torch.randn(5, 4))
    assert (len(outer), len(inner)) == (4, 2)


SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "num_experts_per_tok": 2,
}
FAMILIES: dict[str, Any] = {
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4)),
    "olmoe": lambda: OlmoeForCausalLM(OlmoeConfig(**SIZES, num_experts=4)),
    "qwen2_moe": lambda: Qwen2MoeForCausalLM(Qwen2MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=8)),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=8, head_dim=8)
    ),
}


def enlivened(lm: nn.Module) -> Any:
    torch.manual_seed(0)
    for weight in lm.parameters():
        nn.init.normal_(weight, std=0.5)
    return lm.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_routers_of_transformers_are_read_too(name: str) -> None:
    lm, ids = enlivened(FAMILIES[name]()), torch.arange(12).reshape(2, 6)
    assert list(record.routers(lm)) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    with torch.no_grad(), record_routing(lm) as found:
        theirs = lm(input_ids=ids, output_router_logits=True).router_logits
    for routing, logits in zip(found, theirs, strict=True):
        assert torch.equal(routing.logits, logits.float())
        assert torch.allclose(routing.probs, logits.float().softmax(dim=-1))
        best = routing.probs.topk(2)
        assert torch.equal(routing.expert, best.indices)
        shares = [one / one.sum(dim=-1, keepdim=True) for one in (routing.weight, best.values)]
        assert torch.allclose(*shares, atol=1e-6)


def test_routers_that_say_something_else_are_left_alone() -> None:
    from transformers.models.llama4.modeling_llama4 import Llama4Router, Llama4TextConfig

    assert not record.is_router(Llama4Router(Llama4TextConfig(hidden_size=8, num_local_experts=2)))


def test_deepseeks_scores_are_sigmoids() -> None:
    sizes = {**SIZES, "num_key_value_heads": 2}
    config = DeepseekV3Config(
        **sizes,
        n_routed_experts=4,
        moe_intermediate_size=8,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
    )
    lm = enlivened(DeepseekV3ForCausalLM(config))
    assert list(record.routers(lm)) == ["model.layers.1.mlp"]
    with torch.no_grad(), record_routing(lm) as found:
        lm(input_ids=torch.arange(6)[None])
    (routing,) = found
    scores = routing.logits.sigmoid()
    assert torch.allclose(routing.probs, scores / scores.sum(dim=-1, keepdim=True))
    assert (routing.weight[:, 0] >= routing.weight[:, 1]).all()
