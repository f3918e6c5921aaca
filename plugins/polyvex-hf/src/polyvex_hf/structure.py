"""What a network gives for one image, told from a network without memory for weights."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polyvex.tokens import Grid
from polyvex_hf.checkpoint import Checkpoint
from polyvex_hf.families import FAMILIES
from polyvex_hf.network import make_parts, stages_of
from polyvex_hf.reading import stated_size, states

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Grid, width of each layer that is read, and cost.

    ``layers`` counts from 0. ``front`` is the number of tokens before the patches, None where there are maps.
    """

    grid: Grid
    dims: tuple[int, ...]
    layers: tuple[int, ...]
    front: int | None
    parameters: int
    flops: int


@lru_cache(maxsize=64)
def structure_of(checkpoint: Checkpoint, size: Size, layers: tuple[int, ...], norm: bool) -> Structure:
    """Build the network on ``meta`` and look; nothing is read and no weight takes memory.

    Raises:
        ValueError: as :func:`polyvex_hf.network.make_parts`, if the size does not fit, or if the layers have
            different grids.
    """
    with torch.device("meta"):
        parts = make_parts(checkpoint, layers, norm=norm)
        pixels = torch.empty(1, 3, *size)
    _check_size(checkpoint, size, parts.layers)
    parts.network.eval()
    try:  # no_grad, not inference_mode: transformers keeps some tables for later calls, which may have to be trained
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            found = states(parts.network, pixels, parts.layers)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"'{checkpoint.name}' cannot take images of {size[0]}x{size[1]} pixels: {' '.join(str(error).split())}"
        ) from None
    front = _front(checkpoint, parts.network)
    dims = tuple(state.shape[1 if front is None else -1] for state in found)
    _check_norm(checkpoint, parts.norm, dims)
    modules = [parts.network, *([parts.norm] if parts.norm is not None else [])]
    return Structure(
        grid=_common(checkpoint, layers, [_grid(checkpoint, state, size, front) for state in found]),
        dims=dims,
        layers=parts.layers,
        front=front,
        parameters=sum(parameter.numel() for module in modules for parameter in module.parameters()),
        flops=counter.get_total_flops(),
    )


def _front(checkpoint: Checkpoint, network: Any) -> int | None:
    """How many tokens stand before the patches, by the shapes of the parameters that put them there."""
    family = FAMILIES.get(checkpoint.model_type)
    if family is None:
        return None
    named = [getattr(network.embeddings, name) for name in family.front]
    return sum(parameter.numel() // parameter.shape[-1] for parameter in named)


def _grid(checkpoint: Checkpoint, state: Tensor, size: Size, front: int | None) -> Grid:
    if front is None:
        return Grid(rows=state.shape[2], cols=state.shape[3])
    rows, cols = _patch(checkpoint)
    grid = Grid(rows=size[0] // rows, cols=size[1] // cols)
    if state.shape[1] != front + grid.tokens:
        raise ValueError(
            f"'{checkpoint.name}' gives {state.shape[1]} tokens for {size[0]}x{size[1]} pixels; expected {front} in "
            f"front of {grid} patches. Which of them are patches cannot be told"
        )
    return grid


def _common(checkpoint: Checkpoint, layers: tuple[int, ...], grids: list[Grid]) -> Grid:
    if len(set(grids)) > 1:
        raise ValueError(
            f"layers {list(layers)} of '{checkpoint.name}' have the grids {', '.join(map(str, grids))}, which cannot "
            "be joined. Read layers of one grid, or use the encoder twice"
        )
    return grids[0]


def _patch(checkpoint: Checkpoint) -> Size:
    patch = checkpoint.vision.patch_size
    return (patch, patch) if isinstance(patch, int) else (int(patch[0]), int(patch[1]))


def _check_size(checkpoint: Checkpoint, size: Size, layers: tuple[int, ...]) -> None:
    """A side that patches do not divide would be cut or padded without a word."""
    if checkpoint.model_type not in FAMILIES:
        stride = max(stages_of(checkpoint).strides[layer] for layer in layers)
        rows, cols = stride, stride
    elif size == stated_size(checkpoint.vision):
        return  # at its own size, what is left over was left over in training too
    else:
        rows, cols = _patch(checkpoint)
    if size[0] % rows or size[1] % cols:
        fits = (max(1, size[0] // rows) * rows, max(1, size[1] // cols) * cols)
        raise ValueError(
            f"image_size {size[0]}x{size[1]} is not a multiple of the {rows}x{cols} patches of '{checkpoint.name}'; "
            f"{fits[0]}x{fits[1]} is"
        )


def _check_norm(checkpoint: Checkpoint, norm: Any, dims: tuple[int, ...]) -> None:
    if norm is not None and any(norm.normalized_shape != (dim,) for dim in dims):
        raise ValueError(
            f"the final norm of '{checkpoint.name}' is for tokens {norm.normalized_shape[0]} wide, but the layers that "
            f"are read are {', '.join(map(str, dims))} wide; leave norm = false"
        )
