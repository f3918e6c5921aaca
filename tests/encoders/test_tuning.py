"""Adapters in the linear layers of an encoder."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from polyvex.adapters import LoRA
from polyvex.encoders.tuning import adapt, may_learn


class Eye(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"qkv": nn.Linear(4, 4), "proj": nn.Linear(4, 2)})
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.block["proj"](self.block["qkv"](pixels))


def adapted(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return adapt(Eye(), LoRA(**options))  # type: ignore[arg-type]


def adapters(eye: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in eye.named_parameters() if may_learn(name, "lora")}


def test_all_linear_layers_but_those_whose_weight_is_read_past_them() -> None:
    assert adapters(adapted(rank=3)) == {
        "block.qkv.lora_A.default.weight": (3, 4),
        "block.qkv.lora_B.default.weight": (4, 3),
        "block.proj.lora_A.default.weight": (3, 4),
        "block.proj.lora_B.default.weight": (2, 3),
    }


@pytest.mark.parametrize("target", ["proj", "block.proj"])
def test_targets_are_names_or_their_last_parts(target: str) -> None:
    assert {name.split(".lora")[0] for name in adapters(adapted(targets=[target]))} == {"block.proj"}


def test_the_update_by_hand() -> None:
    # alpha 6 over rank 2 scales by 3: W x + 3 · B A x.
    eye: Any = adapted(rank=2, alpha=6.0, targets=["proj"])
    layer, x = eye.block["proj"], torch.randn(5, 4)
    first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert torch.equal(layer(x), layer.base_layer(x))  # B starts at zero
    nn.init.normal_(second)
    assert torch.allclose(layer(x), layer.base_layer(x) + 3 * (x @ first.T) @ second.T, atol=1e-6)


def test_what_fits_no_layer_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'query' fits no linear layer\. Those that there are end in: qkv, proj"):
        adapted(targets=["query"])
    with pytest.raises(ValueError, match="no linear layer that an adapter could go into"):
        adapt(nn.Conv2d(1, 1, 1), LoRA())  # type: ignore[arg-type]


@pytest.mark.parametrize(("tune", "names"), [("frozen", []), ("trainable", ["x.lora_A", "x"]), ("lora", ["x.lora_A"])])
def test_what_a_stage_may_train(tune: Any, names: list[str]) -> None:
    assert [name for name in ("x.lora_A", "x") if may_learn(name, tune)] == names


@pytest.mark.parametrize("options", [{"rank": 0}, {"alpha": 0.0}, {"drop": 1}])
def test_impossible_adapters_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoRA(**options)
