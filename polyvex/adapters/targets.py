"""Which linear layers of a module an adapter goes into."""

from collections.abc import Sequence

from torch import nn

READING_PAST = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Modules that read the weights of their linear layers past these, always or only without gradients: an adapter in
such a layer would not be heard."""


def linear_layers(module: nn.Module, targets: Sequence[str], *, key: str) -> list[str]:
    """Names of the linear layers that ``targets`` fit, by name or its last parts; of all of them without targets.

    Args:
        key: what the recipe calls ``targets``.

    Raises:
        ValueError: if a target fits no linear layer, or there is none. Names those that there are.
    """
    reading_past = {name for name, part in module.named_modules() if isinstance(part, READING_PAST)}
    linear = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and name.rpartition(".")[0] not in reading_past
    ]
    kinds = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    if not linear:
        raise ValueError("it has no linear layer that an adapter could go into")
    for target in targets:
        if not any(fits(name, target) for name in linear):
            raise ValueError(f"{key}: '{target}' fits no linear layer. Those that there are end in: {kinds}")
    return [name for name in linear if not targets or any(fits(name, target) for target in targets)]


def fits(name: str, target: str) -> bool:
    """Whether a layer's name, or its last parts, is ``target``."""
    return name == target or name.endswith(f".{target}")
