"""Adapters in a language model: where its configuration asks for them, and none are yet."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from polyvex.adapters import (
    ADAPTER,
    PARTIAL,
    LanguageModelLoRA,
    PartialLoRA,
    PartialLoRATable,
    put_lora,
    put_partial_lora,
)
from polyvex.adapters.targets import fits
from polyvex.context import TokenContext
from polyvex.moe.families import why_unread
from polyvex.moe.record import is_router
from polyvex.options import Options

INSIDE = ".base_layer"
"""In the names of what an adapter adapts."""


class Adapters(Options):
    """What ``adapters`` of a model's configuration holds."""

    lora: LanguageModelLoRA | None = None
    partial_lora: PartialLoRATable | None = None


def adapt_language_model(lm: Any, adapters: Adapters, *, encoders: int, context: TokenContext) -> None:
    """Put adapters in: plain ones first, Partial LoRA around them. Layers that have theirs are left alone.

    So it is called once a model is built, and again after its networks became experts, which are new.

    Args:
        encoders: their number, for updates of their own.
    """
    if (lora := adapters.lora) is not None:
        bare = [name for name in block_layers(lm) if isinstance(lm.get_submodule(name), nn.Linear)]
        put_lora(
            lm,
            lora,
            layers=_chosen(bare, lora.targets),
            weights=_chosen(fused_weights(lm), lora.targets),
            dropout=lora.dropout,
        )
    if (partial := adapters.partial_lora) is not None:
        free = [name for name in block_layers(lm) if not isinstance(lm.get_submodule(name), PartialLoRA)]
        put_partial_lora(
            lm,
            partial,
            layers=_chosen(free, partial.targets),
            sources=encoders if partial.per_encoder else 1,
            context=context,
        )


def block_layers(lm: Any) -> list[str]:
    """Names of the linear layers of a language model's blocks, adapted or not.

    The head is none of them, nor are routers, nor what weighs a network against the experts that it stands beside.
    """
    head = lm.get_output_embeddings()
    linear = [name for name, part in lm.named_modules() if isinstance(part, nn.Linear) and part is not head]
    outer = dict.fromkeys(name.partition(INSIDE)[0] for name in linear if f".{ADAPTER}" not in name)
    choosing = tuple(name for name, part in lm.named_modules() if is_router(part) or why_unread(part))
    return [
        name
        for name in outer
        if not name.endswith(".weigh") and not any(name == one or name.startswith(f"{one}.") for one in choosing)
    ]


def fused_weights(lm: Any) -> list[str]:
    """Names of the weights of experts, fused into one tensor of three dimensions, that have no adapter yet."""
    weights = [name for name, weight in lm.named_parameters() if weight.ndim == 3]
    return [name for name in weights if INSIDE not in name and PARTIAL not in name]


def unheard_targets(lm: Any, adapters: Adapters) -> dict[tuple[str, str], str]:
    """Targets that no layer of a language model fits as it is now, by table and target, with what to say of each."""
    layers = block_layers(lm)
    experts = [name.replace(INSIDE, "") for name, weight in lm.named_parameters() if weight.ndim == 3]
    there = {"lora": [*layers, *(name for name in experts if PARTIAL not in name)], "partial_lora": layers}
    found = {}
    for key, names in there.items():
        table = getattr(adapters, key)
        kinds = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
        for target in table.targets if table is not None else []:
            if not any(fits(name, target) for name in names):
                found[key, target] = (
                    f"[lm.{key}]: the target '{target}' fits no layer of {type(lm).__name__}. There are: {kinds}"
                )
    return found


def _chosen(names: Sequence[str], targets: Sequence[str]) -> list[str]:
    return [name for name in names if not targets or any(fits(name, target) for target in targets)]
