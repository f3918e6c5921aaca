"""Proof that tokens lie row by row on the grid: a bright patch moves over the image, and the tokens tell where it is."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from polyvex.encoders import EncoderFacts, VisionEncoder
from polyvex.testing.probes import encode, expect, random_pixels
from polyvex.tokens import Grid

Cell = tuple[int, int]

ROW_MAJOR = "row by row"

ORDERS: dict[str, Callable[[Grid, int, int], int]] = {
    ROW_MAJOR: lambda grid, row, col: row * grid.cols + col,
    "column by column (rows and columns are exchanged)": lambda grid, row, col: col * grid.rows + row,
    "with the rows from bottom to top": lambda grid, row, col: (grid.rows - 1 - row) * grid.cols + col,
    "with the columns from right to left": lambda grid, row, col: (row + 1) * grid.cols - 1 - col,
    "back to front": lambda grid, row, col: grid.tokens - 1 - (row * grid.cols + col),
    "shifted by one (is a class token left in front?)": lambda grid, row, col: (
        (row * grid.cols + col + 1) % grid.tokens
    ),
}
"""Orders that authors get by mistake: the index of the token at a row and column."""


def check_row_major(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Tokens lie row by row: where the image changes, the token of that place changes.

    Deep networks spread a change over many tokens, so no single patch decides. First, the row-by-row order must
    explain the changes better than the orders of :data:`ORDERS`, taken over all probed places; then, in three of
    four places, the token that changes most must be the one under the patch or next to it.
    """
    grid = facts.shape.grid
    if grid is None or grid.tokens == 1:
        return
    name = type(encoder).__name__
    cells = [(row, col) for row in _spread(grid.rows) for col in _spread(grid.cols)]
    change = _change_per_token(encoder, facts, grid, cells)
    expect(bool((change.sum(dim=1) > 0).all()), f"{name}: a bright patch on the image changes no token at all")
    scores = {order: _score(grid, cells, change, index) for order, index in ORDERS.items()}
    best = max(scores, key=lambda order: scores[order])
    expect(
        scores[ROW_MAJOR] >= 0.999 * scores[best],
        f"{name}'s tokens lie {best}, not {ROW_MAJOR}: a bright patch changes the tokens of that order most",
    )
    far = [
        (cell, seen)
        for cell, seen in zip(cells, _strongest(grid, change), strict=True)
        if max(abs(cell[0] - seen[0]), abs(cell[1] - seen[1])) > 1
    ]
    expect(
        len(far) <= len(cells) / 4,
        f"{name}'s tokens do not lie {ROW_MAJOR} on the grid {grid}: "
        + "; ".join(f"a bright patch at {cell} changes the token at {seen} most" for cell, seen in far[:3]),
    )


def _spread(count: int) -> list[int]:
    """First, middle and last index. The middle one is off the centre, which flips would leave in place."""
    return sorted({0, max(0, (count - 1) // 2 - 1), count - 1})


def _change_per_token(
    encoder: VisionEncoder, facts: EncoderFacts, grid: Grid, cells: list[Cell]
) -> Float[Tensor, "cells tokens"]:
    """How far each token moves when one cell of the image turns bright."""
    height, width = facts.image_size
    images = 0.5 * random_pixels(facts, 1).repeat(1 + len(cells), 1, 1, 1)
    for image, (row, col) in zip(images[1:], cells, strict=True):
        rows = slice(row * height // grid.rows, (row + 1) * height // grid.rows)
        cols = slice(col * width // grid.cols, (col + 1) * width // grid.cols)
        image[:, rows, cols] += 3.0
    values = torch.cat([encode(encoder, image[None]).values for image in images])
    return (values[1:] - values[:1]).norm(dim=-1)


def _score(
    grid: Grid, cells: list[Cell], change: Float[Tensor, "cells tokens"], index: Callable[[Grid, int, int], int]
) -> float:
    """Mean share of the whole change that falls on the token which an order puts under the patch."""
    places = torch.tensor([index(grid, row, col) for row, col in cells])
    share = change / change.sum(dim=1, keepdim=True)
    return share.gather(1, places[:, None]).mean().item()


def _strongest(grid: Grid, change: Float[Tensor, "cells tokens"]) -> list[Cell]:
    """Row and column, as the contract has it, of the token that changes most for each probed cell."""
    return [divmod(place, grid.cols) for place in change.argmax(dim=1).tolist()]
