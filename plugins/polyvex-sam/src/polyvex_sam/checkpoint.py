"""Read a SAM checkpoint, and bring its positions to the grid in use."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from polyvex.encoders import read_weights
from polyvex.errors import WeightsError
from polyvex.tokens import Grid
from polyvex_sam.structure import VIT_B, VIT_H, VIT_L, Structure

PREFIX = "image_encoder."
OTHER_PARTS = ("prompt_encoder.", "mask_decoder.", "pixel_mean", "pixel_std")
"""What else a SAM checkpoint holds: the other two networks, and in some files the constants of the transform."""

POSITIONS = "pos_embed"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file's tensors: the image encoder's without their prefix, all others under their own names.

    ``skipped`` are the keys that ``structure`` has no place for by design, ``reshaped`` those that were resampled.
    """

    state: dict[str, Tensor]
    skipped: list[str]
    reshaped: list[str]


def read_checkpoint(path: Path, structure: Structure) -> Checkpoint:
    """Read a file, and resample its positions where ``structure`` has another grid.

    Raises:
        WeightsError: if the file cannot be read, holds no image encoder of SAM, or one of another width.
    """
    state = {key.removeprefix(PREFIX): value for key, value in _read(path).items()}
    _check_width(path, state, structure)
    resampled = _resample(state, structure)
    return Checkpoint(state=state | resampled, skipped=_skipped(state, structure), reshaped=sorted(resampled))


def _read(path: Path) -> dict[str, Tensor]:
    state = read_weights(path)
    if any(key.startswith(PREFIX) for key in state):
        return state
    hint = (
        "These are the names of transformers; take a checkpoint of segment-anything itself"
        if any(key.startswith("vision_encoder.") for key in state)
        else "Take a checkpoint as segment-anything saves it, with the whole of SAM in it"
    )
    shown = ", ".join(sorted(state)[:3]) or "nothing"
    raise WeightsError(f"{path}: holds no image encoder of SAM; expected keys {PREFIX}*, got {shown}. {hint}")


def _check_width(path: Path, state: Mapping[str, Tensor], structure: Structure) -> None:
    """Name the right encoder, rather than a hundred keys that differ. What is not that clear is left to loading."""
    wanted = structure.variant
    width = state[POSITIONS].shape[-1] if POSITIONS in state else wanted.dim
    if width != wanted.dim:
        right = next((f". Use {variant.name}" for variant in (VIT_B, VIT_L, VIT_H) if variant.dim == width), "")
        raise WeightsError(
            f"{path}: weights of another architecture; {wanted.name} is {wanted.dim} wide, they are {width} wide{right}"
        )


def _skipped(state: Mapping[str, Tensor], structure: Structure) -> list[str]:
    later = (f"blocks.{block}." for block in range(structure.blocks, structure.variant.depth))
    prefixes = (*OTHER_PARTS, *later, *(() if structure.neck else ("neck.",)))
    return [key for key in state if key.startswith(prefixes)]


def _resample(state: Mapping[str, Tensor], structure: Structure) -> dict[str, Tensor]:
    """Positions that have another size than the grid asks for, resampled to it.

    Tables of blocks that attend within windows do not depend on the grid: another size there is another architecture.
    """
    grid = structure.grid
    resampled = {}
    positions = state.get(POSITIONS)
    if positions is not None and positions.ndim == 4 and positions.shape[1:3] != (grid.rows, grid.cols):
        resampled[POSITIONS] = resample_grid(positions, grid)
    for block in structure.variant.global_blocks:
        for key in (f"blocks.{block}.attn.rel_pos_h", f"blocks.{block}.attn.rel_pos_w"):
            table = state.get(key)
            if block < structure.blocks and table is not None and len(table) != 2 * grid.rows - 1:
                resampled[key] = resample_table(table, 2 * grid.rows - 1)
    return resampled


def resample_grid(
    positions: Float[Tensor, "1 rows cols dim"], grid: Grid
) -> Float[Tensor, "1 grid_rows grid_cols dim"]:
    """Resample absolute positions to ``grid``: bicubic without antialias, corners not aligned.

    segment-anything itself refuses other sizes. This is what detectron2's ViTDet does (``get_abs_pos``), whose network
    SAM's encoder is.
    """
    maps = rearrange(positions, "1 rows cols dim -> 1 dim rows cols").to(torch.float32)
    maps = F.interpolate(maps, size=(grid.rows, grid.cols), mode="bicubic", align_corners=False)
    return rearrange(maps, "1 dim rows cols -> 1 rows cols dim").to(positions.dtype)


def resample_table(table: Float[Tensor, "distances dim"], length: int) -> Float[Tensor, "length dim"]:
    """Resample a table of relative positions: linear, corners not aligned, as ``get_rel_pos`` of segment-anything."""
    line = F.interpolate(table.t()[None].to(torch.float32), size=length, mode="linear", align_corners=False)
    return line[0].t().contiguous().to(table.dtype)
