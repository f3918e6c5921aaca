"""Proof that tokens lie row by row on the grid: a patch moves over the image, and the tokens tell where it is."""

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

LEAST_FIT = 0.25
"""Chance gives fits around 0, up to 0.2 on 16 tokens; untrained deep networks 0.3 to 0.6, trained ones 0.6 to 0.9."""

PROBED = 4
"""How many rows, and how many columns, the patch visits at most."""


def check_row_major(encoder: VisionEncoder, facts: EncoderFacts) -> None:
    """Tokens lie row by row: where the image changes, the tokens of that place change more than elsewhere.

    A deep network spreads a change over all tokens, and some tokens react more than others to anything. So no single
    patch decides: the reactions of all tokens to all places are compared with nearness on the grid, after what is
    peculiar to a token or to a place is taken out. The order row by row must fit that better than every order of
    :data:`ORDERS`, and better than chance.

    A network that sees the whole image from each token has no places left on a grid of 2 × 2. Check it on 4 × 4.
    """
    grid = facts.shape.grid
    if grid is None or grid.tokens == 1:
        return
    name = type(encoder).__name__
    cells = [(row, col) for row in _spread(grid.rows) for col in _spread(grid.cols)]
    reaction = _reaction(encoder, facts, grid, cells)
    expect(
        bool(reaction.isfinite().all()), f"{name}: a bright patch on the image changes no token, or none to a number"
    )
    fits = {order: _fit(grid, cells, reaction, index) for order, index in ORDERS.items()}
    best = max(fits, key=lambda order: fits[order])
    advice = " If its grid is smaller than 4x4, check it with a larger image." if grid.tokens < 16 else ""
    expect(
        fits[ROW_MAJOR] >= LEAST_FIT or fits[best] >= LEAST_FIT,
        f"{name}'s tokens do not lie {ROW_MAJOR}: where the image changes has nothing to do with which of them change "
        f"(fit {fits[ROW_MAJOR]:.2f}, expected at least {LEAST_FIT}).{advice}",
    )
    expect(
        fits[ROW_MAJOR] >= fits[best],
        f"{name}'s tokens lie {best}, not {ROW_MAJOR}: that order fits the changes of the image best "
        f"({fits[best]:.2f} against {fits[ROW_MAJOR]:.2f}).{advice}",
    )


def _spread(count: int) -> list[int]:
    """Up to four indices from first to last, evenly."""
    probed = min(PROBED, count)
    return [place * (count - 1) // max(1, probed - 1) for place in range(probed)]


def _reaction(
    encoder: VisionEncoder, facts: EncoderFacts, grid: Grid, cells: list[Cell]
) -> Float[Tensor, "cells tokens"]:
    """Logarithm of how far each token moves when one cell turns bright or dark, as the mean over four images.

    The logarithm is bounded below, because tokens that look at their own patch only do not move at all elsewhere.
    """
    height, width = facts.image_size
    reactions = []
    for seed, brightness in ((0, 3.0), (1, -3.0), (2, 3.0), (3, -3.0)):
        images = 0.5 * random_pixels(facts, 1, seed=seed).repeat(1 + len(cells), 1, 1, 1)
        for image, (row, col) in zip(images[1:], cells, strict=True):
            rows = slice(row * height // grid.rows, (row + 1) * height // grid.rows)
            cols = slice(col * width // grid.cols, (col + 1) * width // grid.cols)
            image[:, rows, cols] += brightness
        values = torch.cat([encode(encoder, image[None]).values for image in images]).double()
        moved = (values[1:] - values[:1]).norm(dim=-1)
        reactions.append((moved / moved.mean() + 1e-3).log())
    return torch.stack(reactions).mean(dim=0)


def _fit(
    grid: Grid, cells: list[Cell], reaction: Float[Tensor, "cells tokens"], index: Callable[[Grid, int, int], int]
) -> float:
    """Correlation, from -1 to 1, of the reactions with the nearness of cell and token, if tokens had this order."""
    places = grid.coords().double()
    order = [index(grid, row, col) for row, col in grid.coords().tolist()]
    nearness = _centred((-torch.cdist(torch.tensor(cells).double(), places)).exp())
    reordered = _centred(reaction[:, order])
    return ((reordered * nearness).sum() / (reordered.norm() * nearness.norm()).clamp_min(1e-12)).item()


def _centred(values: Float[Tensor, "cells tokens"]) -> Float[Tensor, "cells tokens"]:
    """Take out the mean of each cell and of each token."""
    return values - values.mean(dim=0, keepdim=True) - values.mean(dim=1, keepdim=True) + values.mean()
