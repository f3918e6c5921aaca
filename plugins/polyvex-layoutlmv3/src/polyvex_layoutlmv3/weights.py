"""Find a checkpoint's files, and read its weights under the names of the network."""

from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from polyvex.encoders import find_in_folder, find_on_hub

POSITIONS = "pos_embed"

PREFIX = "layoutlmv3."
"""What stands before the keys of a network that was saved with a head on it."""

HEADS = ("classifier.", "qa_outputs.")
"""Heads that transformers puts on the network."""


def find_weights(weights: str, repository: str) -> Path | None:
    """The weight file that ``weights`` names, or of the folder that it names; if empty, of the hub's local cache."""
    if not weights:
        return find_on_hub(repository)
    path = Path(weights)
    if path.is_dir():
        return find_in_folder(path)
    return path if path.is_file() else None


def find_beside(weights: str, repository: str, name: str) -> Path | None:
    """Another file of the same checkpoint."""
    if not weights:
        return find_on_hub(repository, [name])
    path = Path(weights)
    return find_in_folder(path if path.is_dir() else path.parent, [name])


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors under its own keys, whether it was saved alone or under a head."""
    return {key.removeprefix(PREFIX): value for key, value in state.items()}


def unused_keys(state: Mapping[str, Tensor], *, depth: int, text: bool) -> list[str]:
    """Keys that have no place by design: heads, later layers, text embeddings if there is no text, old buffers."""
    return [key for key in state if _is_unused(key, depth, text)]


def _is_unused(key: str, depth: int, text: bool) -> bool:
    if key.startswith(HEADS) or (key.startswith("embeddings.") and not text):
        return True
    layer = key.removeprefix("encoder.layer.").partition(".")[0]
    return key.startswith("encoder.layer.") and layer.isdecimal() and int(layer) >= depth


def resample_positions(state: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    """Bring the patches' positions to a grid of ``side`` × ``side``, bicubic; the class token's stays.

    Positions that are no square, or fit already, are left alone; strict loading names those that do not fit.
    """
    positions = state.get(POSITIONS)
    trained = round((positions.shape[1] - 1) ** 0.5) if positions is not None and positions.dim() == 3 else side
    if positions is None or trained in (0, side) or positions.shape[1] != 1 + trained**2:
        return dict(state)
    table = rearrange(positions[:, 1:], "1 (rows cols) dim -> 1 dim rows cols", rows=trained)
    table = F.interpolate(table.float(), size=(side, side), mode="bicubic", align_corners=False).to(positions.dtype)
    patches = rearrange(table, "1 dim rows cols -> 1 (rows cols) dim")
    return {**state, POSITIONS: torch.cat([positions[:, :1], patches], dim=1)}
