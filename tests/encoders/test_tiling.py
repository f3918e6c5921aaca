"""Tiles: LLaVA-1.6's counts and choices, the order of tiles, and what of them shows the image."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.modeling_llava_next import unpad_image
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from polyvex.encoders.base import Box
from polyvex.encoders.tiling import Tiling, View, choose_grid, cut, resized_size, tiled_view, view_of
from polyvex.tokens import Grid

TILE = (336, 336)
CLIP = Grid(rows=24, cols=24)
PINPOINTS = [[672, 336], [336, 672], [672, 672], [336, 1008], [1008, 336]]
"""LLaVA-1.6's resolutions as (height, width), in its order."""


def shown(view: View, grid: Grid = CLIP) -> tuple[int, int]:
    rows, cols = view.shown(grid)
    return rows.stop - rows.start, cols.stop - cols.start


@pytest.mark.parametrize(
    ("width", "height", "grid", "tokens"),
    [
        # Counts of LLaVA-1.6: 576 of the base view, and a newline for each row.
        (336, 336, (24, 24), 1176),
        (640, 480, (36, 48), 2340),
        (480, 640, (48, 36), 2352),
        (672, 672, (48, 48), 2928),
        (1920, 1080, (28, 48), 1948),
        (1000, 300, (22, 72), 2182),
        (2000, 400, (14, 72), 1598),
    ],
)
def test_counts_of_llava(width: int, height: int, grid: tuple[int, int], tokens: int) -> None:
    rows, cols = shown(tiled_view(Tiling(), (height, width), TILE))
    assert (rows, cols) == grid
    assert 576 + rows * (cols + 1) == tokens


def sizes(count: int) -> list[tuple[int, int]]:
    numbers = random.Random(0)
    return [(numbers.randint(1, 2500), numbers.randint(1, 2500)) for _ in range(count)]


ROUND = [(40 * height, 40 * width) for height in range(1, 101) for width in range(1, 101)]
"""Sizes that people choose, where exact arithmetic and floats differ most often."""


def transformers_tokens(size: tuple[int, int], rows: int, cols: int) -> tuple[int, int]:
    """Rows and columns of tokens that transformers keeps of ``rows`` × ``cols`` tiles; 0 of the thinnest images."""
    total, newlines = LlavaNextProcessor._get_unpadded_features(
        None,  # type: ignore[arg-type]  # the method does not use its instance
        *size,
        CLIP.rows,
        CLIP.cols,
        rows,
        cols,
    )
    return newlines, total // newlines if newlines else cols * CLIP.cols


def test_grids_pixels_and_tokens_are_those_of_transformers_for_20_000_sizes() -> None:
    for size in sizes(10_000) + ROUND:
        full = select_best_resolution(size, PINPOINTS)
        view = tiled_view(Tiling(), size, TILE)
        assert (view.rows, view.cols) == (full[0] // 336, full[1] // 336), size
        image = np.broadcast_to(np.uint8(0), (*size, 1))
        assert resized_size(size, full) == get_patch_output_size(image, full, ChannelDimension.LAST), size
        expected = transformers_tokens(size, view.rows, view.cols)
        if min(expected) > 0:  # of the thinnest images transformers keeps nothing; polyvex keeps what is in the middle
            assert shown(view) == expected, size


@pytest.mark.parametrize(
    ("size", "resized"), [((375, 500), (505, 672)), ((500, 375), (672, 505)), ((336, 336), (672, 672))]
)
def test_resized_sizes_are_rounded_as_floats(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert resized_size(size, (672, 672)) == resized


def test_a_tiled_image_covers_the_rows_that_llava_gives_it() -> None:
    # 375 · (672 / 500) = 504.00000000000006 in floats: 505 rows of white between 83 and 84 black ones.
    tiles = cut(Image.new("RGB", (500, 375), "white"), Tiling(grids=[[2, 2]]), TILE)
    column = [tile.getpixel((0, row)) for tile in (tiles[0], tiles[2]) for row in range(336)]
    assert [column.index((255, 255, 255)), column.count((255, 255, 255))] == [83, 505]


def test_borders_are_those_that_transformers_leaves_out() -> None:
    for size in sizes(300):
        view = tiled_view(Tiling(), size, TILE)
        whole = torch.arange(view.rows * 24 * view.cols * 24.0).reshape(1, view.rows * 24, view.cols * 24)
        rows, cols = view.shown(CLIP)
        expected = unpad_image(whole, size)
        if expected.numel():  # of the thinnest images LLaVA leaves nothing; we keep what is in the middle
            assert torch.equal(whole[:, rows, cols], expected), size


def test_borders_of_joined_patches_by_hand() -> None:
    # Four patches of a row are one token, so 640 x 480 in 2 x 2 tiles has 48 x 12 of them: rows 6 to 41 show it.
    rows, cols = tiled_view(Tiling(), (480, 640), TILE).shown(Grid(rows=24, cols=6))
    assert (rows, cols) == (slice(6, 42), slice(0, 12))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 20000), (20000, 20), (1, 20000)])
def test_the_thinnest_image_is_shown_by_a_token(height: int, width: int) -> None:
    for grid in (CLIP, Grid(rows=1, cols=1), Grid(rows=7, cols=7)):
        assert min(shown(tiled_view(Tiling(), (height, width), TILE), grid)) >= 1
    assert all(tile.size == (28, 14) for tile in cut(Image.new("RGB", (width, height)), Tiling(), (14, 28)))


def test_one_grid_is_a_fixed_tiling() -> None:
    fixed = Tiling(grids=[[2, 3]])
    assert {choose_grid(fixed, size, TILE) for size in sizes(20)} == {(2, 3)}


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_nothing_is_left_out_unless_asked(fit: str) -> None:
    view = tiled_view(Tiling(fit=fit), (100, 900), TILE)  # type: ignore[arg-type]
    assert view == View(rows=1, cols=3, tiled=True)
    assert shown(view) == (24, 72)


def quarters() -> Image.Image:
    """Red, green / blue, white."""
    image = Image.new("RGB", (64, 64), "white")
    for corner, color in (((0, 0), "red"), ((32, 0), "lime"), ((0, 32), "blue")):
        image.paste(color, (*corner, corner[0] + 32, corner[1] + 32))
    return image


def test_tiles_come_row_by_row() -> None:
    tiles = cut(quarters(), Tiling(grids=[[2, 2]]), (16, 16))
    assert [tile.getpixel((8, 8)) for tile in tiles] == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def test_what_does_not_fill_its_tiles_is_centred_on_black() -> None:
    white = Image.new("RGB", (64, 32), "white")
    [tile] = cut(white, Tiling(grids=[[1, 1]]), (32, 32))
    rows = [tile.getpixel((16, row)) for row in range(32)]
    assert rows == [(0, 0, 0)] * 8 + [(255, 255, 255)] * 16 + [(0, 0, 0)] * 8
    [stretched] = cut(white, Tiling(grids=[[1, 1]], fit="squash"), (32, 32))
    assert stretched.getextrema() == ((255, 255),) * 3


def test_a_box_of_padding_is_rounded_outwards() -> None:
    # 100 x 75 pixels of a picture of 100 x 100, 10 x 10 tokens: rows 0 to 7, since row 7 shows half a row of image.
    view = view_of(Box(top=0, left=0, height=75, width=100), (100, 100))
    assert view.shown(Grid(rows=10, cols=10)) == (slice(0, 8), slice(0, 10))
    assert not view.tiled
    assert view_of(Box(top=0, left=0, height=100, width=100), (100, 100)) == View()
    last = view_of(Box(top=99, left=0, height=1, width=100), (100, 100))
    assert last.shown(Grid(rows=3, cols=1)) == (slice(2, 3), slice(0, 1))


@pytest.mark.parametrize("grids", [[], [[0, 1]], [[1]], [[1, 2, 3]], [[1, 65]]])
def test_grids_that_are_none_are_refused(grids: list[list[int]]) -> None:
    with pytest.raises(ValidationError):
        Tiling(grids=grids)
