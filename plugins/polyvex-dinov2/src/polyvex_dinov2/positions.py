"""Bring the position embeddings, trained on one grid, to another one."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from polyvex.tokens import Grid

POSITIONS = "pos_embed"
TRAINED_GRID = Grid(rows=37, cols=37)


def resample_positions(state: dict[str, Tensor], grid: Grid) -> dict[str, Tensor]:
    """Resample the patches' positions to ``grid``, bicubic without antialias; the class token's stays.

    Positions of any other number than 1 + 37 × 37 are left alone, so that strict loading names them.
    """
    positions = state.get(POSITIONS)
    if grid == TRAINED_GRID or positions is None or positions.shape[1] != 1 + TRAINED_GRID.tokens:
        return state
    table = rearrange(positions[:, 1:], "1 (rows cols) dim -> 1 dim rows cols", rows=TRAINED_GRID.rows)
    table = F.interpolate(table, size=(grid.rows, grid.cols), mode="bicubic", align_corners=False, antialias=False)
    resampled = rearrange(table, "1 dim rows cols -> 1 (rows cols) dim")
    return {**state, POSITIONS: torch.cat([positions[:, :1], resampled], dim=1)}
