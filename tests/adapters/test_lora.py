"""Plain adapters in fused weights, and how what they learned becomes part of the weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyvex.adapters import LoRA, merged, put_lora
from polyvex.moe.experts import GatedExperts
from polyvex.moe.routing import Routing


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.ModuleDict({"first": nn.Linear(4, 4), "second": nn.Linear(4, 4)})
        self.experts = GatedExperts(num_experts=2, dim=4, hidden=8, act=F.silu, backend="loop")

    def forward(self, tokens: Tensor) -> Tensor:
        expert = torch.arange(len(tokens))[:, None] % 2
        probs = torch.full((len(tokens), 2), 0.5)
        routing = Routing(expert=expert, weight=torch.ones_like(expert).float(), logits=probs, probs=probs)
        return self.experts(self.inside["second"](F.silu(self.inside["first"](tokens))), routing)


def adapted() -> Block:
    torch.manual_seed(0)
    block = Block()
    put_lora(block, LoRA(rank=2), layers=["inside.first"], weights=["experts.gate_up_proj", "experts.down_proj"])
    return block


def learn(block: nn.Module) -> None:
    for name, weight in block.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight)


def test_layers_and_each_expert_get_updates_of_their_own() -> None:
    found = {name: tuple(value.shape) for name, value in adapted().named_parameters() if "lora_A" in name}
    assert found == {
        "inside.first.lora_A.default.weight": (2, 4),
        "experts.base_layer.lora_A.default.weight": (2 * 2, 4),
        "experts.lora_A.default.weight": (2 * 2, 8),
    }


@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes_at_first_and_merging_keeps_what_was_learned(training: bool) -> None:
    tokens = torch.randn(6, 4)
    torch.manual_seed(0)
    before, block = Block()(tokens), adapted().train(training)
    assert torch.allclose(block(tokens), before, atol=1e-6)
    learn(block)
    said = block(tokens)
    assert not torch.allclose(said, before, atol=1e-2)
    bare = merged(block)
    assert bare is block
    assert {name for name, _ in bare.named_parameters()} == {name for name, _ in Block().named_parameters()}
    assert torch.allclose(bare(tokens), said, atol=1e-5)


def test_an_adapter_itself_becomes_what_it_adapted() -> None:
    block = adapted()
    layer = block.inside["first"]
    assert merged(layer) is layer.base_layer


def test_dropout_is_what_the_update_does_not_see() -> None:
    torch.manual_seed(0)
    block = Block()
    put_lora(block, LoRA(rank=2), layers=["inside.first"], dropout=0.5)
    learn(block)
    tokens = torch.randn(6, 4)
    assert not torch.equal(block(tokens), block(tokens))
    block.eval()
    assert torch.equal(block(tokens), block(tokens))
