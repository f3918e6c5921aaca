"""Grids, shapes and layouts: small enough to write out."""

import dataclasses

import pytest
import torch

from polyvex.errors import ContractError
from polyvex.tokens import TEXT, Grid, TokenShape, VisualLayout, VisualTokens


def test_grid_counts_its_places() -> None:
    assert Grid(rows=2, cols=3).tokens == 6


def test_grid_reads_rows_by_columns() -> None:
    assert str(Grid(rows=2, cols=3)) == "2x3"


def test_grid_is_row_major() -> None:
    # Two rows of three: the column runs fastest.
    assert Grid(rows=2, cols=3).coords().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_tokens_without_a_grid_have_no_place() -> None:
    assert TokenShape(tokens=3, dim=5).coords().tolist() == [[TEXT, TEXT]] * 3


def test_layout_of_two_encoders_is_side_by_side_in_order() -> None:
    layout = VisualLayout.of([TokenShape(tokens=2, dim=4, grid=Grid(rows=1, cols=2)), TokenShape(tokens=1, dim=9)])
    assert layout.source.tolist() == [0, 0, 1]
    assert layout.coords.tolist() == [[0, 0], [0, 1], [TEXT, TEXT]]
    assert layout.tokens == 3


def test_tokens_on_a_grid_carry_its_coordinates() -> None:
    grid = Grid(rows=2, cols=2)
    tokens = VisualTokens.on_grid(torch.zeros(5, 4, 3), grid)
    assert torch.equal(tokens.layout.coords, grid.coords())
    assert tokens.layout.source.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "value",
    [
        Grid(rows=1, cols=1),
        TokenShape(tokens=1, dim=1),
        VisualLayout.of([TokenShape(tokens=1, dim=1)]),
        VisualTokens.on_grid(torch.zeros(1, 1, 1), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_frozen(value: object) -> None:
    name = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


def test_tokens_that_do_not_fill_their_grid_are_refused_with_both_numbers() -> None:
    with pytest.raises(ContractError, match="got 5 tokens for a 2x2 grid, expected 4"):
        VisualTokens.on_grid(torch.zeros(1, 5, 3), Grid(rows=2, cols=2))
