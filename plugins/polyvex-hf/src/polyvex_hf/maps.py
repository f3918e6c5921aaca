"""Networks that give out maps: their axes are proved by an image that grows, before a token of them is trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from polyvex_hf.families import FAMILIES
from polyvex_hf.reading import all_states

SIDE = 1024
"""Side in pixels of the image that a network is tried with: no window is larger, and all strides divide it."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where a network keeps its stages, how many there are, and how many pixels a place of each one's map covers."""

    path: str
    count: int
    strides: tuple[int, ...]


def find_stages(network: Any, name: str, model_type: str) -> Stages:
    """Look at what a network on ``meta`` gives out, for three images.

    If the image is twice as high, each map must be twice as high and nothing else; the same for its width. Then rows
    are rows and columns are columns, whatever the network is.

    Raises:
        ValueError: if it does not give out maps, or its stages cannot be told.
    """
    lists = [(path, len(part)) for path, part in network.named_modules() if isinstance(part, nn.ModuleList)]
    square = _maps(network, SIDE, SIDE, name, model_type)
    fitting = [path for path, count in lists if count == len(square)]
    depth = min((path.count(".") for path in fitting), default=0)
    highest = [path for path in fitting if path.count(".") == depth]
    if len(highest) != 1:
        raise ValueError(
            f"'{name}' ({model_type}) gives out {len(square)} maps, but which part makes each cannot be told. "
            f"{_known()}"
        )
    high, wide = _maps(network, 2 * SIDE, SIDE, name, model_type), _maps(network, SIDE, 2 * SIDE, name, model_type)
    for one, taller, wider in zip(square, high, wide, strict=True):
        _, dim, rows, cols = one
        if taller != (1, dim, 2 * rows, cols) or wider != (1, dim, rows, 2 * cols) or rows != cols or SIDE % rows:
            raise ValueError(
                f"'{name}' ({model_type}): its maps do not grow as the image does, so that rows and columns cannot be "
                f"told: {one}, {taller} for twice the height, {wider} for twice the width. {_known()}"
            )
    return Stages(path=highest[0], count=len(square), strides=tuple(SIDE // shape[2] for shape in square))


def _maps(network: Any, height: int, width: int, name: str, model_type: str) -> Sequence[tuple[int, ...]]:
    """Shapes of all maps but the first, which is the image's embedding."""
    pixels = torch.empty(1, 3, height, width, device="meta")
    try:
        with torch.no_grad():
            found = all_states(network, pixels)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{name}' ({model_type}) cannot be tried with an image of {height}x{width} pixels: "
            f"{' '.join(str(error).split())[:200]}. {_known()}"
        ) from None
    if not found or any(state.ndim != 4 for state in found):
        raise ValueError(
            f"'{name}' ({model_type}) gives out sequences, and which of their tokens are patches is not known for this "
            f"family. {_known()}"
        )
    return [tuple(state.shape) for state in found]


def _known() -> str:
    return f"Families whose sequences are known: {', '.join(FAMILIES)}"
