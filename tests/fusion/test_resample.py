"""One grid for all encoders, on maps small enough to work out by hand."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from polyvex.fusion import register_fusions
from polyvex.fusion.resample import GridOptions, Method, common_grid, resample
from polyvex.tokens import Grid, TokenShape, VisualTokens

TWO_BY_TWO = torch.tensor([[0.0], [1.0], [2.0], [3.0]])[None]  # rows are 0 1 and 2 3


def shape(rows: int, cols: int) -> TokenShape:
    return TokenShape(tokens=rows * cols, dim=3, grid=Grid(rows=rows, cols=cols))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # Centres of four places on two: at -.25 (the border holds), .25, .75 and 1.25.
        ("bilinear", [0.0, 0.25, 0.75, 1.0]),
        ("nearest", [0.0, 0.0, 1.0, 1.0]),
        ("area", [0.0, 0.0, 1.0, 1.0]),
    ],
)
def test_a_row_of_two_becomes_a_row_of_four(method: Method, expected: list[float]) -> None:
    row = torch.tensor([[[0.0], [1.0]]])
    larger = resample(row, Grid(rows=1, cols=2), Grid(rows=1, cols=4), method)
    assert larger.flatten().tolist() == expected


@pytest.mark.parametrize(("method", "expected"), [("area", 1.5), ("bilinear", 1.5), ("bicubic", 1.5), ("nearest", 3.0)])
def test_a_map_becomes_one_place(method: Method, expected: float) -> None:
    # The mean of 0, 1, 2, 3; the place whose square holds the centre is the last.
    assert resample(TWO_BY_TWO, Grid(rows=2, cols=2), Grid(rows=1, cols=1), method).item() == pytest.approx(expected)


def test_rows_and_columns_are_not_taken_for_each_other() -> None:
    # Rows stay two, columns become one: means of 0 1 and of 2 3.
    assert resample(TWO_BY_TWO, Grid(rows=2, cols=2), Grid(rows=2, cols=1), "area").flatten().tolist() == [0.5, 2.5]
    assert resample(TWO_BY_TWO, Grid(rows=2, cols=2), Grid(rows=1, cols=2), "area").flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("method", ["bilinear", "area", "nearest", "bicubic"])
def test_the_same_grid_changes_nothing(method: Method) -> None:
    assert resample(TWO_BY_TWO, Grid(rows=2, cols=2), Grid(rows=2, cols=2), method) is TWO_BY_TWO


@pytest.mark.parametrize("method", ["bilinear", "area", "nearest", "bicubic"])
def test_a_constant_map_stays_constant(method: Method) -> None:
    other = resample(torch.full((2, 15, 3), 0.7), Grid(rows=3, cols=5), Grid(rows=4, cols=2), method)
    assert other.shape == (2, 8, 3)
    assert torch.allclose(other, torch.tensor(0.7))


def test_the_common_grid_is_the_one_that_all_have_or_that_is_named() -> None:
    assert common_grid(GridOptions(), [shape(2, 3), shape(2, 3)]) == Grid(rows=2, cols=3)
    assert common_grid(GridOptions(grid=4), [shape(2, 3), shape(1, 1)]) == Grid(rows=4, cols=4)
    assert common_grid(GridOptions(grid=[4, 5]), [shape(2, 3), shape(1, 1)]) == Grid(rows=4, cols=5)


def test_several_grids_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"grids of 2x3, 4x4, and this fusion needs one\. Name it: grid = \[2, 3\]"):
        common_grid(GridOptions(), [shape(2, 3), shape(4, 4)])


def test_an_encoder_without_a_grid_is_refused_even_where_one_is_named() -> None:
    with pytest.raises(ValueError, match="encoder #2 gives 6 tokens without a grid"):
        common_grid(GridOptions(grid=4), [shape(2, 3), TokenShape(tokens=6, dim=3)])


@pytest.mark.parametrize("grid", [0, [4], [4, 4, 4], [4, 0], "4"])
def test_what_is_no_grid_is_refused(grid: Any) -> None:
    with pytest.raises(ValidationError):
        GridOptions(grid=grid)


def test_bicubic_goes_beyond_its_places_as_torchs_does() -> None:
    step = torch.tensor([[[0.0], [0.0], [1.0], [1.0]]])
    wider = resample(step, Grid(rows=1, cols=4), Grid(rows=1, cols=8), "bicubic").flatten()
    assert wider.max() > 1.01
    expected = torch.nn.functional.interpolate(step.mT[..., None, :], size=(1, 8), mode="bicubic").flatten()
    assert torch.equal(wider, expected)


@pytest.mark.parametrize(("rows", "cols"), [(2, 5), (7, 3), (4, 4)])
def test_aligned_corners_by_the_formula(rows: int, cols: int) -> None:
    """Place i of n reads the line at i · (m - 1) / (n - 1) of m places, along each axis."""
    source = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))

    def line(size: int, to: int) -> torch.Tensor:
        weight = torch.zeros(to, size)
        for place in range(to):
            at = place * (size - 1) / (to - 1)
            low = min(int(at), size - 2)
            weight[place, low], weight[place, low + 1] = 1 - (at - low), at - low
        return weight

    expected = line(3, rows) @ source @ line(4, cols).T
    found = resample(
        source.reshape(1, 12, 1), Grid(rows=3, cols=4), Grid(rows=rows, cols=cols), "bilinear", align_corners=True
    )
    assert torch.allclose(found.reshape(rows, cols), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["area", "nearest"])
def test_aligned_corners_need_interpolation(method: Method) -> None:
    with pytest.raises(ValidationError, match="align_corners = true has no effect"):
        GridOptions(resample=method, align_corners=True)


@pytest.mark.parametrize("use", ["channel", "gated", "interleave", "sva", "routed"])
def test_every_fusion_on_a_grid_aligns_corners(use: str) -> None:
    kind: Any = register_fusions()[use]
    inputs = [
        TokenShape(tokens=9, dim=4, grid=Grid(rows=3, cols=3)),
        TokenShape(tokens=6, dim=4, grid=Grid(rows=2, cols=3)),
    ]
    parts = [VisualTokens.on_grid(torch.randn(2, one.tokens, 4), one.grid) for one in inputs]
    found = []
    for aligned in (False, True):
        torch.manual_seed(0)
        options = kind.Options.model_validate({**kind.Options.example().model_dump(), "grid": [4, 4]})
        fusion = kind(options.model_copy(update={"align_corners": aligned}), inputs=inputs, dim=8).eval()
        with torch.no_grad():
            for weight in fusion.parameters():
                torch.nn.init.normal_(weight, std=0.3)
            found.append(fusion(parts).values)
    assert not torch.allclose(*found)
