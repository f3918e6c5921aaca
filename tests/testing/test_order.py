"""The proof of the order of tokens, on networks that see much more of the image than one patch."""

import pytest
import torch
from torch import Tensor, nn

from polyvex.encoders import EncoderFacts, EncoderOptions, License, VisionEncoder, WeightsPlace, WeightsReport
from polyvex.testing.order import ORDERS, ROW_MAJOR, check_row_major
from polyvex.tokens import Grid, TokenShape, VisualTokens


class WideView(VisionEncoder):
    """Four 3 × 3 convolutions over patches, and the mean of all places in each, then tokens in a given order."""

    summary = "a test"

    def __init__(self, grid: Grid, order: list[int]):
        super().__init__(EncoderOptions())
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 16, 8, 8))
        for _ in range(4):
            self.net.extend([nn.Conv2d(16, 16, 3, padding=1), nn.GELU()])
        self.grid, self.order = grid, order

    def forward(self, pixels: Tensor) -> VisualTokens:
        tokens = self.net(pixels).flatten(2).transpose(1, 2)
        return VisualTokens.on_grid((tokens + 3 * tokens.mean(dim=1, keepdim=True))[:, self.order], self.grid)

    @classmethod
    def describe(cls, options: EncoderOptions) -> EncoderFacts:
        raise NotImplementedError

    @classmethod
    def weights(cls, options: EncoderOptions) -> WeightsPlace:
        raise NotImplementedError

    def load_pretrained(self) -> WeightsReport:
        raise NotImplementedError

    def transform(self, image: object) -> Tensor:
        raise NotImplementedError


def _facts(grid: Grid | None, tokens: int = 0, size: tuple[int, int] | None = None) -> EncoderFacts:
    shape = TokenShape(tokens=grid.tokens if grid else tokens, dim=16, grid=grid)
    size = size or (8 * grid.rows, 8 * grid.cols)
    return EncoderFacts(
        shape=shape, image_size=size, parameters=0, license=License(name="MIT", commercial=True), source="a test"
    )


def _wrong_order(grid: Grid, order: str) -> list[int]:
    """Indices that bring row-major tokens into a wrong order."""
    places = [ORDERS[order](grid, row, col) for row, col in grid.coords().tolist()]
    return [places.index(index) for index in range(grid.tokens)]


@pytest.mark.parametrize("grid", [Grid(rows=4, cols=4), Grid(rows=3, cols=7), Grid(rows=12, cols=12)], ids=str)
def test_row_major_passes(grid: Grid):
    check_row_major(WideView(grid, list(range(grid.tokens))), _facts(grid))


@pytest.mark.parametrize("order", [order for order in ORDERS if order != ROW_MAJOR])
@pytest.mark.parametrize("grid", [Grid(rows=4, cols=4), Grid(rows=3, cols=7), Grid(rows=12, cols=12)], ids=str)
def test_each_wrong_order_is_named(grid: Grid, order: str):
    with pytest.raises(AssertionError) as caught:
        check_row_major(WideView(grid, _wrong_order(grid, order)), _facts(grid))

    assert order in str(caught.value)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_order_fails(seed: int):
    grid = Grid(rows=8, cols=8)
    order = torch.randperm(grid.tokens, generator=torch.Generator().manual_seed(seed)).tolist()

    with pytest.raises(AssertionError, match="lie row by row"):
        check_row_major(WideView(grid, order), _facts(grid))


def test_a_single_row_and_a_single_column_pass():
    for grid in (Grid(rows=1, cols=6), Grid(rows=6, cols=1)):
        check_row_major(WideView(grid, list(range(6))), _facts(grid))


def test_tokens_without_a_grid_or_alone_are_not_checked():
    encoder = WideView(Grid(rows=1, cols=1), [0])

    check_row_major(encoder, _facts(Grid(rows=1, cols=1)))
    check_row_major(encoder, _facts(None, tokens=4, size=(8, 8)))
