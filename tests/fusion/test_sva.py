"""Cambrian-1's aggregator: by hand with weights of one, and that a query sees its own windows and nothing else."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from polyvex.fusion import SVAFusion
from polyvex.fusion.sva import SVAOptions
from polyvex.tokens import Grid, TokenShape, VisualTokens

SMALL: dict[str, Any] = {"layers": 2, "hidden": 8, "heads": 2, "ffn": 16}
LARGE = TokenShape(tokens=16, dim=5, grid=Grid(rows=4, cols=4))
FLAT = TokenShape(tokens=6, dim=3, grid=Grid(rows=2, cols=3))


def fuse(inputs: Sequence[TokenShape], dim: int = 6, **options: Any) -> SVAFusion:
    torch.manual_seed(0)
    return SVAFusion(SVAOptions(**{**SMALL, **options}), inputs=inputs, dim=dim)


def random_parts(inputs: Sequence[TokenShape], images: int = 1) -> list[VisualTokens]:
    torch.manual_seed(1)
    return [
        VisualTokens.on_grid(torch.randn(images, one.tokens, one.dim, requires_grad=True), one.grid) for one in inputs
    ]


def of_ones(inputs: Sequence[TokenShape], query: float, **options: Any) -> SVAFusion:
    """Numbers instead of vectors: no norm, maps that change nothing, a feed-forward network that adds nothing."""
    fusion = fuse(inputs, dim=1, hidden=1, heads=1, ffn=1, layers=1, **options)
    fusion.norms = nn.ModuleList(nn.Identity() for _ in inputs)
    fusion.out = nn.Sequential()
    layer = fusion.layers[0]
    layer.norm, layer.ffn = nn.Identity(), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        fusion.queries.fill_(query)
        for one in (layer.query, *layer.keys, *layer.values, layer.out):
            one.weight.fill_(1.0)
        layer.ffn.weight.zero_()
    return fusion


def test_one_softmax_weighs_the_windows_of_all_encoders() -> None:
    # One query x = ln 3; encoder 1 has the places 1 and 0 in a window (2 × 2: 1 0 / 0 0), encoder 2 the place 1.
    # Scores are x · k: ln 3, 0, 0, 0 and ln 3; their softmax is (3, 1, 1, 1, 3) / 9; values are (1, 0, 0, 0, 1).
    # The query becomes x + (3 + 3) / 9.
    square = TokenShape(tokens=4, dim=1, grid=Grid(rows=2, cols=2))
    point = TokenShape(tokens=1, dim=1, grid=Grid(rows=1, cols=1))
    fusion = of_ones([square, point], math.log(3.0), grid=1, window=[2, 1])
    parts = [
        VisualTokens.on_grid(torch.tensor([1.0, 0, 0, 0]).reshape(1, 4, 1), square.grid),
        VisualTokens.on_grid(torch.ones(1, 1, 1), point.grid),
    ]
    assert fusion(parts).values.item() == pytest.approx(math.log(3.0) + 6 / 9)


def test_a_query_of_zero_takes_the_mean_of_its_window() -> None:
    # A map of 2 × 4 numbers 0 … 7, queries on 1 × 2: windows are 0 1 4 5 and 2 3 6 7, with means 2.5 and 4.5.
    wide = TokenShape(tokens=8, dim=1, grid=Grid(rows=2, cols=4))
    fusion = of_ones([wide], 0.0, grid=[1, 2], window=2)
    part = VisualTokens.on_grid(torch.arange(8.0).reshape(1, 8, 1), wide.grid)
    assert fusion([part]).values.flatten().tolist() == pytest.approx([2.5, 4.5])


@pytest.mark.parametrize("query", range(4))
def test_a_query_sees_its_own_windows_only(query: int) -> None:
    # Queries on 2 × 2; of the map of 4 × 4 each has a window of 2 × 2, of the map of 2 × 2 one place.
    small = TokenShape(tokens=4, dim=3, grid=Grid(rows=2, cols=2))
    fusion = fuse([LARGE, small], grid=2, window=[2, 1])
    parts = random_parts([LARGE, small])
    fusion(parts).values[0, query].sum().backward()
    seen = [part.values.grad[0].abs().amax(dim=-1) > 0 for part in parts]  # type: ignore[index]
    top, left = 2 * (query // 2), 2 * (query % 2)
    assert seen[0].nonzero().flatten().tolist() == [4 * (top + r) + left + c for r in range(2) for c in range(2)]
    assert seen[1].nonzero().flatten().tolist() == [query]


def test_maps_of_other_grids_are_brought_to_the_windows() -> None:
    fusion = fuse([LARGE, FLAT], grid=[2, 3], window=[3, 1])
    assert fusion.shapes == [TokenShape(tokens=6, dim=6, grid=Grid(rows=2, cols=3))]
    assert fusion(random_parts([LARGE, FLAT], images=3)).values.shape == (3, 6, 6)


def test_each_place_has_a_query_of_its_own() -> None:
    # A map that is the same everywhere still gives tokens that differ by place.
    constant = VisualTokens.on_grid(torch.ones(1, 16, 5), LARGE.grid)
    values = fuse([LARGE])([constant]).values[0]
    assert torch.cdist(values, values).add(torch.eye(16)).min() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": [1, 2, 3]}, "window has 3 numbers for 2 encoders. Give one number, or one per encoder"),
        ({"heads": 3}, "heads = 3 does not divide hidden = 8"),
        ({"grid": None}, "grids of 4x4, 2x3"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse([LARGE, FLAT], **{"grid": 2, **options})


def test_maps_are_brought_to_the_windows_by_the_method_that_is_asked_for() -> None:
    parts = random_parts([FLAT])
    near, smooth = (fuse([FLAT], grid=[4, 4], resample=method)(parts).values for method in ("nearest", "bilinear"))
    assert not torch.allclose(near, smooth, atol=1e-4)
