"""Position schemes on sequences small enough to count by hand."""

import pytest
import torch
from torch import Tensor

from polyvex.positions import PositionOptions, PositionScheme, register_position_schemes
from polyvex.positions.schemes import ShareRowCol
from polyvex.sequence import lay_out
from polyvex.tokens import Grid, SequenceLayout, TokenShape, VisualLayout

SCHEMES = register_position_schemes()
SHARING = [name for name in SCHEMES if name != "sequential"]
# An image is 2 × 3 tokens of encoder 0, 2 × 1 of encoder 1, and two tokens without a grid of encoder 2.
LAYOUT = VisualLayout.of(
    [
        TokenShape(tokens=6, dim=4, grid=Grid(rows=2, cols=3)),
        TokenShape(tokens=2, dim=4, grid=Grid(rows=2, cols=1)),
        TokenShape(tokens=2, dim=4),
    ]
)
IMAGE = "x" * LAYOUT.tokens


def make(name: str, layout: VisualLayout = LAYOUT) -> PositionScheme:
    return SCHEMES[name](SCHEMES[name].Options(), layout=layout, dim=4)


def laid(*rows: str, layout: VisualLayout = LAYOUT) -> SequenceLayout:
    """``x`` is a placeholder, ``.`` padding, all else text."""
    marks = torch.tensor([[mark == "x" for mark in row] for row in rows])
    valid = torch.tensor([[mark != "." for mark in row] for row in rows])
    return lay_out(marks, valid, layout)


def ids(name: str, *rows: str, layout: VisualLayout = LAYOUT) -> Tensor:
    return make(name, layout).assign(laid(*rows, layout=layout)).ids


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # t  | encoder 0: row 0, row 1      | encoder 1: rows | encoder 2 | t t
        ("sequential", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("share_all", [0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5]),
        ("share_row", [0, 1, 1, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7]),
        ("share_row_col", [0, 1, 1, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7]),
    ],
)
def test_ids_by_hand(name: str, expected: list[int]) -> None:
    assert ids(name, f"t{IMAGE}tt").tolist() == [expected]


@pytest.mark.parametrize(("name", "used"), [("sequential", 4096), ("share_row", 64), ("share_all", 1)])
def test_sams_positions_shrink_as_in_mousis_abstract(name: str, used: int) -> None:
    # arXiv 2401.17221, abstract: from 4096 to 64 or even 1.
    sam = VisualLayout.of([TokenShape(tokens=4096, dim=4, grid=Grid(rows=64, cols=64))])
    assert len(ids(name, "x" * 4096, layout=sam).unique()) == used


@pytest.mark.parametrize("name", SCHEMES)
def test_text_alone_is_counted_as_usual(name: str) -> None:
    assert ids(name, "ttttt").tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("row", [f"tt{IMAGE}t", f"{IMAGE}tt", f"t{IMAGE}{IMAGE}t", f"t{IMAGE}t{IMAGE}"])
def test_padding_on_either_side_changes_nothing(name: str, row: str) -> None:
    plain = ids(name, row)[0]
    padded = ids(name, f"...{row}", f"{row}...")
    assert torch.equal(padded[0, 3:], plain)
    assert torch.equal(padded[1, :-3], plain)


@pytest.mark.parametrize("name", SCHEMES)
def test_padding_gets_position_zero(name: str) -> None:
    padded = ids(name, f"..t{IMAGE}", f"t{IMAGE}..")
    assert padded[0, :2].tolist() == [0, 0]
    assert padded[1, -2:].tolist() == [0, 0]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("row", [f"t{IMAGE}tt", f"t{IMAGE}", f"{IMAGE}", f"t{IMAGE}{IMAGE}t", "tt"])
def test_decoding_goes_on_right_behind_the_last_token(name: str, row: str) -> None:
    positions = make(name).assign(laid(row))
    assert positions.next_id.tolist() == [int(positions.ids.max()) + 1]
    # generate() counts on from the last token's id, so that must be the greatest.
    assert positions.next_id.tolist() == [int(positions.ids[0, -1]) + 1]


@pytest.mark.parametrize("name", SCHEMES)
def test_decoding_position_does_not_count_right_padding(name: str) -> None:
    assert (
        make(name).assign(laid(f"t{IMAGE}..")).next_id.tolist() == make(name).assign(laid(f"t{IMAGE}")).next_id.tolist()
    )


@pytest.mark.parametrize("name", SHARING)
def test_two_adjacent_images_never_share_a_position(name: str) -> None:
    row = ids(name, IMAGE + IMAGE)[0]
    first, second = row[: LAYOUT.tokens], row[LAYOUT.tokens :]
    assert not set(first.tolist()) & set(second.tolist())


@pytest.mark.parametrize("name", SHARING)
def test_two_adjacent_images_of_one_encoder_never_share_a_position(name: str) -> None:
    # Source and row are the same on both sides of the border; only the image tells it.
    line = VisualLayout.of([TokenShape(tokens=2, dim=4, grid=Grid(rows=1, cols=2))])
    assert ids(name, "txxxxt", layout=line).tolist() == [[0, 1, 1, 2, 2, 3]]


def test_one_row_shared_is_all_shared() -> None:
    line = VisualLayout.of([TokenShape(tokens=5, dim=4, grid=Grid(rows=1, cols=5))])
    assert torch.equal(ids("share_row", "txxxxxt", layout=line), ids("share_all", "txxxxxt", layout=line))


def test_one_column_shared_by_row_is_sequential() -> None:
    line = VisualLayout.of([TokenShape(tokens=5, dim=4, grid=Grid(rows=5, cols=1))])
    assert torch.equal(ids("share_row", "txxxxxt", layout=line), ids("sequential", "txxxxxt", layout=line))


@pytest.mark.parametrize("name", SCHEMES)
def test_ids_never_fall(name: str) -> None:
    assert (ids(name, f"tt{IMAGE}t{IMAGE}{IMAGE}").diff(dim=1) >= 0).all()


@pytest.mark.parametrize("name", ["sequential", "share_all", "share_row"])
def test_embeddings_are_left_alone(name: str) -> None:
    values = torch.randn(2, LAYOUT.tokens, 4)
    assert make(name).embed(values, LAYOUT) is values


def test_column_vectors_start_at_zero() -> None:
    # So that share_row_col begins as share_row.
    values = torch.randn(2, LAYOUT.tokens, 4)
    assert torch.equal(make("share_row_col").embed(values, LAYOUT), values)


def test_each_column_of_each_encoder_has_one_vector() -> None:
    scheme = make("share_row_col")
    assert isinstance(scheme, ShareRowCol)
    with torch.no_grad():
        scheme.columns.copy_(torch.arange(1.0, 5.0)[:, None].expand(4, 4))
    added = scheme.embed(torch.zeros(1, LAYOUT.tokens, 4), LAYOUT)
    # Encoder 0's columns 1, 2, 3 in both rows; 4 is encoder 1's one column; encoder 2 has no grid, so no column.
    assert added[0, :, 0].tolist() == [1, 2, 3, 1, 2, 3, 4, 4, 0, 0]


def test_column_vectors_learn() -> None:
    scheme = make("share_row_col")
    assert isinstance(scheme, ShareRowCol)
    scheme.embed(torch.zeros(3, LAYOUT.tokens, 4), LAYOUT).sum().backward()
    # Three images; each column is in two rows: 3 · 2 = 6 uses.
    assert scheme.columns.grad is not None
    assert scheme.columns.grad[:, 0].tolist() == [6, 6, 6, 6]


def test_column_vectors_are_saved() -> None:
    assert list(make("share_row_col").state_dict()) == ["columns"]


@pytest.mark.parametrize("name", SCHEMES)
def test_no_scheme_has_options_yet(name: str) -> None:
    assert isinstance(SCHEMES[name].Options(), PositionOptions)
    assert SCHEMES[name].Options.model_fields == {}
