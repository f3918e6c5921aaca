"""Position schemes on runs small enough to count by hand."""

import pytest
import torch
from pydantic import ValidationError

from polyvex.positions import PositionAssigner, PositionScheme, register_position_schemes
from polyvex.positions.schemes import ShareRowCol
from polyvex.positions.steps import RandomStride, RandomStrideOptions
from polyvex.tokens import Grid, TokenShape, VisualLayout

SCHEMES = register_position_schemes()
# An image is 2 × 3 tokens of encoder 0, 2 × 1 of encoder 1, and two tokens without a grid of encoder 2.
LAYOUT = VisualLayout.of(
    [
        TokenShape(tokens=6, dim=4, grid=Grid(rows=2, cols=3)),
        TokenShape(tokens=2, dim=4, grid=Grid(rows=2, cols=1)),
        TokenShape(tokens=2, dim=4),
    ]
)


def make(name: str, layout: VisualLayout = LAYOUT, **options: object) -> PositionScheme:
    return SCHEMES[name](SCHEMES[name].Options(**options), layout=layout, dim=4).eval()


def line(rows: int, cols: int) -> VisualLayout:
    return VisualLayout.of([TokenShape(tokens=rows * cols, dim=4, grid=Grid(rows=rows, cols=cols))])


def within(name: str, run: int = 0, layout: VisualLayout = LAYOUT, **options: object) -> tuple[list[float], float]:
    found = make(name, layout, **options).within(layout.pick(layout.run == run), image=layout)
    return found.offsets.tolist(), found.extent


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("sequential", [([0, 1, 2, 3, 4, 5], 6), ([0, 1], 2), ([0, 1], 2)]),
        ("share_encoder", [([0, 1, 2, 3, 4, 5], 6), ([0, 1], 2), ([0, 1], 2)]),
        ("share_all", [([0, 0, 0, 0, 0, 0], 1), ([0, 0], 1), ([0, 0], 1)]),
        ("share_row", [([0, 0, 0, 1, 1, 1], 2), ([0, 1], 2), ([0, 0], 1)]),
        ("share_row_col", [([0, 0, 0, 1, 1, 1], 2), ([0, 1], 2), ([0, 0], 1)]),
        ("stride", [([-0.75, -0.5, -0.25, 0, 0.25, 0.5], 1.5), ([-0.75, -0.5], 0.5), ([-0.75, -0.5], 0.5)]),
    ],
)
def test_offsets_by_hand(name: str, runs: list[tuple[list[float], float]]) -> None:
    assert [within(name, run) for run in range(3)] == runs


@pytest.mark.parametrize(("name", "used"), [("sequential", 4096), ("share_row", 64), ("share_all", 1)])
def test_sams_positions_shrink_as_in_mousis_abstract(name: str, used: int) -> None:
    # arXiv 2401.17221, abstract: from 4096 to 64 or even 1.
    assert within(name, layout=line(64, 64))[1] == used


@pytest.mark.parametrize(
    ("name", "positions"), [("sequential", 6404), ("share_row", 166), ("share_row_col", 166), ("share_all", 6)]
)
def test_the_six_encoders_of_mousi_take_up_these_positions(name: str, positions: int) -> None:
    # CLIP 24 × 24, DINOv2 16 × 16, LayoutLMv3 14 × 14, MAE 16 × 16, SAM 64 × 64, ConvNeXt 32 × 32.
    sides = [24, 16, 14, 16, 64, 32]
    layout = VisualLayout.of([TokenShape(tokens=side * side, dim=4, grid=Grid(rows=side, cols=side)) for side in sides])
    assert layout.tokens == 6404
    ids, extent = PositionAssigner(make(name, layout)).of_image(layout)
    assert extent == len(ids.unique()) == positions


def test_with_a_common_base_six_encoders_take_what_the_longest_takes() -> None:
    layout = VisualLayout.of(
        [TokenShape(tokens=side * side, dim=4, grid=Grid(rows=side, cols=side)) for side in (24, 16, 14, 16, 64, 32)]
    )
    for name, positions in (("sequential", 4096), ("share_row", 64), ("share_all", 1)):
        assert PositionAssigner(make(name, layout, base="common")).of_image(layout)[1] == positions
    assert PositionAssigner(make("share_encoder", layout)).of_image(layout)[1] == 4096


def test_one_row_shared_is_all_shared_and_one_column_is_sequential() -> None:
    assert within("share_row", layout=line(1, 5)) == within("share_all", layout=line(1, 5))
    assert within("share_row", layout=line(5, 1)) == within("sequential", layout=line(5, 1))


def test_the_token_that_ends_a_row_has_its_rows_position() -> None:
    coords = torch.tensor([[0, 0], [0, 1], [0, -1], [1, 0], [1, 1], [1, -1]])
    assert within("share_row", layout=VisualLayout.on(coords, source=0)) == ([0, 0, 0, 1, 1, 1], 2)


def test_the_rows_of_each_view_have_positions_of_their_own() -> None:
    grid = Grid(rows=2, cols=2).coords()
    views = VisualLayout.joined([VisualLayout.on(grid, source=0), VisualLayout.on(grid, source=0, view=1)])
    assert within("share_row", layout=views) == ([0, 0, 1, 1, 2, 2, 3, 3], 4)


def test_a_step_of_one_is_sequential() -> None:
    offsets, extent = within("stride", step=1.0)
    assert (offsets, extent) == ([0, 1, 2, 3, 4, 5], 6)


@pytest.mark.parametrize("step", [0.0, 1.5, -0.5])
def test_steps_lie_between_zero_and_one(step: float) -> None:
    with pytest.raises(ValidationError):
        make("stride", step=step)


def test_random_steps_are_drawn_in_training_and_fixed_after() -> None:
    layout = line(1, 4)
    scheme = RandomStride(RandomStrideOptions(steps=[1.0, 0.5, 0.25], step=0.125), layout=layout, dim=4)
    scheme.train()
    torch.manual_seed(0)
    drawn = {float(scheme.within(layout, image=layout).offsets.diff()[0]) for _ in range(60)}
    assert drawn == {1.0, 0.5, 0.25}
    assert scheme.varies
    scheme.eval()
    assert {float(scheme.within(layout, image=layout).offsets.diff()[0]) for _ in range(20)} == {0.125}
    assert not scheme.varies


def test_all_runs_of_an_image_go_by_the_step_that_is_drawn_for_it() -> None:
    layout = VisualLayout.of([TokenShape(tokens=3, dim=4), TokenShape(tokens=3, dim=4)])
    scheme = RandomStride(RandomStrideOptions(base="common"), layout=layout, dim=4)
    assigner = PositionAssigner(scheme).train()
    torch.manual_seed(0)
    drawn = [assigner.of_image(layout)[0] for _ in range(40)]
    assert all(torch.equal(ids[:3], ids[3:]) for ids in drawn)
    assert len({float(ids[1]) for ids in drawn}) > 4


def test_a_budget_is_shared_out_by_tokens() -> None:
    # 10 tokens and 5 positions: half a position each, so 3 for encoder 0 and 1 for each other.
    assert [within("interpolate", run, positions=5)[1] for run in range(3)] == [3, 1, 1]
    assert within("interpolate", 0, positions=5)[0] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert PositionAssigner(make("interpolate", positions=5)).of_image(LAYOUT)[1] == 5


def test_a_budget_that_is_larger_than_the_image_is_not_used_up() -> None:
    assert within("interpolate", 0, positions=1000) == ([0, 1, 2, 3, 4, 5], 6)


def test_share_encoder_has_no_other_base() -> None:
    with pytest.raises(ValidationError):
        make("share_encoder", base="sequential")


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "share_row_col"])
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


def test_views_of_an_encoder_have_column_vectors_of_their_own() -> None:
    parts = [VisualLayout.on(Grid(rows=1, cols=cols).coords(), source=0, view=view) for view, cols in enumerate((2, 3))]
    layout = VisualLayout.joined(parts)
    scheme = ShareRowCol(ShareRowCol.Options(), layout=layout, dim=1)
    with torch.no_grad():
        scheme.columns.copy_(torch.arange(1.0, 6.0)[:, None])
    assert scheme.embed(torch.zeros(5, 1), layout).flatten().tolist() == [1, 2, 3, 4, 5]


def test_the_next_view_begins_a_new_row_though_it_has_the_same_number() -> None:
    parts = [VisualLayout.on(Grid(rows=1, cols=2).coords(), source=0, view=view) for view in range(2)]
    layout = VisualLayout.joined(parts)
    scheme = ShareRowCol(ShareRowCol.Options(), layout=layout, dim=1)
    assert scheme.within(layout, image=layout).offsets.tolist() == [0, 0, 1, 1]
