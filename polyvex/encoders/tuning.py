"""Whether an encoder learns with the model: not, whole, or through low-rank adapters (LoRA, arXiv:2106.09685)."""

import re
from typing import Literal

from pydantic import Field
from torch import nn

from polyvex.encoders.base import VisionEncoder
from polyvex.options import Options

Tune = Literal["frozen", "trainable", "lora"]

ADAPTER = "lora_"
"""How PEFT's adapter weights are called, among them those of the layer that they adapt."""

READING_PAST = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Modules that read the weights of their linear layers past these, always or only without gradients: an adapter in
such a layer would not be heard."""


class LoRA(Options):
    """``lora`` of an encoder's table: PEFT's low-rank adapters. They start without effect."""

    rank: int = Field(default=8, ge=1, description="Rank of the update of each adapted layer.")
    alpha: float = Field(default=16.0, gt=0, description="The update is scaled by alpha / rank.")
    targets: list[str] = Field(
        default=[],
        description="Linear layers to adapt, by name or its last parts, such as qkv or attn.proj; empty for all.",
    )


def adapt(encoder: VisionEncoder, lora: LoRA) -> VisionEncoder:
    """Put adapters into the encoder's linear layers, through PEFT. Tokens stay what they were until they are trained.

    Raises:
        ValueError: if a target fits no linear layer, or there is none. Names those that there are.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = "|".join(map(re.escape, _adapted(encoder, lora.targets)))  # of a list, PEFT takes names that end alike too
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=names)  # type: ignore[arg-type]
    inject_adapter_in_model(config, encoder)
    return encoder


def _adapted(encoder: nn.Module, targets: list[str]) -> list[str]:
    """Names of the linear layers that ``targets`` fit; of all of them without targets."""
    reading_past = {name for name, module in encoder.named_modules() if isinstance(module, READING_PAST)}
    linear = [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[0] not in reading_past
    ]
    kinds = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    if not linear:
        raise ValueError("it has no linear layer that an adapter could go into. Set tune = 'trainable' or 'frozen'")
    for target in targets:
        if not any(_fits(name, target) for name in linear):
            raise ValueError(f"lora.targets: '{target}' fits no linear layer. Those that there are end in: {kinds}")
    return [name for name in linear if not targets or any(_fits(name, target) for target in targets)]


def _fits(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def may_learn(parameter: str, tune: Tune) -> bool:
    """Whether a stage may train an encoder's parameter of this name."""
    return tune == "trainable" or (tune == "lora" and ADAPTER in parameter)
