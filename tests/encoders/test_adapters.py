"""Adapters are heard in every mode, and go into the layers that were asked for alone."""

import pytest
import torch
from torch import nn

from polyvex.adapters import LoRA
from polyvex.encoders.tuning import adapt


def changed(module: nn.Module, lora: LoRA | None = None) -> list[str]:
    """Layers that got an adapter; its values are set far from zero."""
    adapt(module, lora or LoRA())  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.fill_(0.5)
    return sorted({name.split(".lora_")[0] for name, _ in module.named_parameters() if ".lora_" in name})


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_adapter_is_heard_in_training_and_in_answers_alike(norm_first: bool) -> None:
    # Without gradients torch's own layer takes a fast path, which reads the weights of its linear layers past them.
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    network = nn.ModuleDict({"layer": layer, "last": nn.Linear(8, 8)}).eval()
    assert changed(network) == ["last"]
    tokens = torch.randn(1, 3, 8)
    with torch.no_grad():
        answered = network["last"](network["layer"](tokens))
    trained = network["last"](network["layer"](tokens))
    assert torch.allclose(answered, trained, atol=1e-5)


def test_a_layer_at_the_top_does_not_take_others_of_its_name_along() -> None:
    attention = nn.MultiheadAttention(8, 2)
    assert changed(nn.ModuleDict({"out_proj": nn.Linear(8, 8), "attention": attention})) == ["out_proj"]
    assert type(attention.out_proj).__name__ == "NonDynamicallyQuantizableLinear"
