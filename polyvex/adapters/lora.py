"""Low-rank adapters through PEFT (LoRA, arXiv:2106.09685): into linear layers, and into fused weights of experts."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field
from torch import nn

from polyvex.options import Options

ADAPTER = "lora_"
"""How PEFT's adapter weights are called, among them those of the layer that they adapt."""


class LoRA(Options):
    """Options of PEFT's low-rank adapters. They start without effect."""

    rank: int = Field(default=8, ge=1, description="Rank of the update of each adapted layer.")
    alpha: float = Field(default=16.0, gt=0, description="The update is scaled by alpha / rank.")
    targets: list[str] = Field(
        default=[],
        description="Linear layers to adapt, by name or its last parts, such as qkv or attn.proj; empty for all.",
    )


class LanguageModelLoRA(LoRA):
    """``lora`` of ``[lm]``: adapters in the language model's blocks, and in its experts."""

    rank: int = Field(default=16, ge=1, description="Rank of the update of each adapted layer, and of each expert.")
    alpha: float = Field(default=32.0, gt=0, description="The update is scaled by alpha / rank.")
    targets: list[str] = Field(
        default=[],
        description="Layers of its blocks to adapt, by name or its last parts, such as q_proj, or experts.down_proj "
        "for the fused weights of experts; empty for all.",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of a linear layer's input that the update does not see in training."
    )


def put_lora(
    module: nn.Module, lora: LoRA, *, layers: Sequence[str], weights: Sequence[str] = (), dropout: float = 0.0
) -> None:
    """Put adapters into a module. What it says stays what it was until they are trained.

    Args:
        layers: names of the linear layers.
        weights: names of parameters of more dimensions, such as fused experts', each of which gets its own update.
        dropout: share of a layer's input that the update does not see while training; that of ``weights`` sees all.
    """
    from peft import LoraConfig

    for part, names in _parts(module, layers) if layers else ():
        whole = "|".join(map(re.escape, names))  # of a list, PEFT takes names that end alike too
        _inject(part, LoraConfig(target_modules=whole, lora_dropout=dropout, **_sizes(lora)))
    for part, names in _parts(module, weights) if weights else ():
        _inject(part, LoraConfig(target_modules=[], target_parameters=names, **_sizes(lora)))


def _sizes(lora: LoRA) -> dict[str, Any]:
    return {"r": lora.rank, "lora_alpha": lora.alpha}


def _inject(module: nn.Module, config: Any) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, module)
    vars(module).pop("peft_config", None)  # a note to itself, which a second call would take for another adapter


def _parts(module: nn.Module, names: Sequence[str]) -> Iterator[tuple[nn.Module, list[str]]]:
    """Parts that hold the layers of these names, none of which is a model of transformers, with the names inside them.

    In a whole mixture of transformers PEFT would take gate_proj and the like for its experts' fused weights.
    """
    if not hasattr(module, "config"):
        yield module, list(names)
        return
    for child_name, child in module.named_children():
        inside = [name.removeprefix(f"{child_name}.") for name in names if name.startswith(f"{child_name}.")]
        if inside:
            yield from _parts(child, inside)


def merged(module: Any) -> Any:
    """Add what adapters learned to the weights that they adapt, and take them out; says the same, up to rounding.

    Returns:
        The module, or, if it is an adapter itself, what that adapted.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    while isinstance(module, BaseTunerLayer):
        module.merge()
        module = getattr(module, "base_layer")  # noqa: B009 - not declared by PEFT
    for name, child in list(module.named_children()):
        if (bare := merged(child)) is not child:
            setattr(module, name, bare)
    return module
