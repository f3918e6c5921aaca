"""Read hidden states out of a transformers network, through its own arguments."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def states(network: Any, pixels: Float[Tensor, "images 3 height width"], layers: Sequence[int]) -> list[Tensor]:
    """transformers' own hidden states behind ``layers``: sequences [images seq dim], or maps [images dim rows cols].

    Positions are interpolated by the network's own rule where the image has another size than its configuration.
    """
    # Newer networks keep only the states that are asked for; older ones, which name the argument, keep all.
    listed = "output_hidden_states" not in inspect.signature(network.forward).parameters
    found = _run(network, pixels, [layer + 1 for layer in layers] if listed else True)
    return [found[layer + 1] for layer in layers]


def all_states(network: Any, pixels: Float[Tensor, "images 3 height width"]) -> list[Tensor]:
    """As :func:`states`, behind every layer. The first, which is the embedding of the image, is left out."""
    return list(_run(network, pixels, True)[1:])


def _run(network: Any, pixels: Tensor, kept: bool | list[int]) -> tuple[Tensor, ...]:
    accepted = inspect.signature(network.forward).parameters
    named: dict[str, Any] = {}
    if "interpolate_pos_encoding" in accepted and tuple(pixels.shape[-2:]) != stated_size(network.config):
        named["interpolate_pos_encoding"] = True
    if "noise" in accepted:
        named["noise"] = _order(network.config.patch_size, pixels)
    output = network(pixel_values=pixels, output_hidden_states=kept, **named)
    return getattr(output, "reshaped_hidden_states", None) or output.hidden_states


def stated_size(config: Any) -> tuple[int, int] | None:
    """Height and width that a configuration states, if any."""
    side = getattr(config, "image_size", None)
    if side is None:
        return None
    return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))


def _order(patch: int, pixels: Tensor) -> Tensor:
    """MAE sorts its patches by noise: numbers that rise leave them in their order."""
    count = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
    return torch.arange(count, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)


def read_tokens(
    network: Any,
    norm: nn.Module | None,
    pixels: Float[Tensor, "images 3 height width"],
    *,
    layers: Sequence[int],
    front: int | None,
) -> Float[Tensor, "images tokens dim"]:
    """Tokens of several layers, joined along the width.

    Args:
        front: how many tokens stand before the patches, and are left out; None where the network gives out maps.
    """
    found = [_tokens(state, front) for state in states(network, pixels, layers)]
    return torch.cat([norm(tokens) if norm is not None else tokens for tokens in found], dim=-1)


def _tokens(state: Tensor, front: int | None) -> Tensor:
    return rearrange(state, "images dim rows cols -> images (rows cols) dim") if front is None else state[:, front:]
