"""Views put together behind the fusion, held against LLaVA-1.6's own packing in transformers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

from polyvex.encoders.tiling import Tiling
from polyvex.encoders.views import EncoderViews
from polyvex.errors import ContractError
from polyvex.hooks.manager import Registries
from polyvex.layouts import ImageLayouts, RunViews
from polyvex.model.merge import MergeViews
from polyvex.tokens import TEXT, Grid, TokenShape

PINPOINTS = [[96, 48], [48, 96], [96, 96], [48, 144], [144, 48]]
SIZES = [(30, 40), (48, 48), (200, 60), (60, 200), (30, 110)]
DIM = 5
GRID = Grid(rows=6, cols=6)


def views(registries: Registries, tiling: Tiling | None, side: int = 48) -> EncoderViews:
    kind = registries.encoders["patchify"]
    options = kind.Options(image_size=side, patch_size=8)  # type: ignore[call-arg]
    return EncoderViews(kind=kind, options=options, tiling=tiling)


def layouts_of(registries: Registries, *tilings: Tiling | None, grid: Grid | None = GRID) -> ImageLayouts:
    tile = TokenShape(tokens=36, dim=DIM, grid=grid)
    runs = [RunViews(source=index, tile=tile, views=views(registries, one)) for index, one in enumerate(tilings)]
    return ImageLayouts(runs)


def tiles_for(layouts: ImageLayouts, sizes: list[tuple[int, int]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    counts = [sum(run.views.tiles(size) for size in sizes) for run in layouts.runs]
    return [torch.randn(count, 36, DIM, generator=generator) for count in counts]


def llavas_own(tiles: Tensor, size: tuple[int, int], newline: Tensor) -> Tensor:
    vision = SimpleNamespace(image_size=48, patch_size=8)
    itself: Any = SimpleNamespace(config=SimpleNamespace(vision_config=vision, image_grid_pinpoints=PINPOINTS))
    packed, _ = LlavaNextModel.pack_image_features(itself, [tiles], torch.tensor([size]), "full", newline)
    return packed[0]


def test_tokens_are_those_that_llava_packs(registries: Registries) -> None:
    layouts = layouts_of(registries, Tiling())
    merge = MergeViews(layouts, dim=DIM)
    [tiles] = tiles_for(layouts, SIZES)
    merged = merge([tiles], SIZES)
    own = tiles.split([layouts.runs[0].views.tiles(size) for size in SIZES])
    expected = [llavas_own(one, size, merge.newlines["0"]) for one, size in zip(own, SIZES, strict=True)]
    assert torch.equal(merged, torch.cat(expected))


def test_layouts_say_where_each_token_is(registries: Registries) -> None:
    layouts = layouts_of(registries, Tiling(grids=[[1, 2]]))
    merge = MergeViews(layouts, dim=2)
    places = layouts.runs[0].tile.grid.coords().float()  # type: ignore[union-attr]
    # The base view's own places; of the two tiles side by side, the right one starts at column 6.
    tiles = torch.stack([places, places, places + torch.tensor([0.0, 6.0])])
    size = (48, 96)
    merged, layout = merge([tiles], [size]), layouts.of(size)
    assert layout.tokens == len(merged) == 36 + 6 * 13
    ends = layout.coords[:, 1] == TEXT
    assert torch.equal(merged[~ends], layout.coords[~ends].float())
    assert layout.coords[ends].tolist() == [[row, TEXT] for row in range(6)]
    assert torch.equal(merged[ends], merge.newlines["0"].detach().expand(6, 2))
    assert layout.view.tolist() == [0] * 36 + [1] * 78


def test_encoders_may_see_an_image_in_different_pieces(registries: Registries) -> None:
    layouts = layouts_of(registries, None, Tiling(base=False, newline=False))
    sizes = SIZES[:2]
    runs = tiles_for(layouts, sizes)
    merged = MergeViews(layouts, dim=DIM)(runs, sizes)
    first = layouts.of(sizes[0])
    assert torch.equal(merged[:36], runs[0][0])
    assert first.source.unique_consecutive().tolist() == [0, 1]
    assert len(merged) == sum(layouts.tokens(size) for size in sizes)
    assert torch.equal(merged[first.tokens : first.tokens + 36], runs[0][1])


def test_tokens_without_a_grid_come_tile_by_tile(registries: Registries) -> None:
    tiling = Tiling(grids=[[1, 2]], newline=False, fit="squash")
    layouts = layouts_of(registries, tiling, grid=None)
    [tiles] = tiles_for(layouts, [(10, 10)])
    assert torch.equal(MergeViews(layouts, dim=DIM)([tiles], [(10, 10)]), tiles.flatten(0, 1))
    assert layouts.of((10, 10)).coords.unique().tolist() == [TEXT]


def test_newlines_learn_and_only_where_rows_end(registries: Registries) -> None:
    merge = MergeViews(layouts_of(registries, None, Tiling(), Tiling(newline=False)), dim=DIM)
    assert list(merge.newlines) == ["1"]
    runs = tiles_for(merge.layouts, SIZES[:1])
    merge(runs, SIZES[:1]).sum().backward()
    ends = (merge.layouts.of(SIZES[0]).coords[:, 1] == TEXT).sum()
    assert merge.newlines["1"].grad is not None
    assert merge.newlines["1"].grad.tolist() == [ends] * DIM


def test_other_tiles_than_the_sizes_have_are_an_error_with_both_numbers(registries: Registries) -> None:
    merge = MergeViews(layouts_of(registries, Tiling(grids=[[2, 2]])), dim=DIM)
    with pytest.raises(ContractError, match="got 7 tiles of encoder #1 for 1 images, expected 5 for their sizes"):
        merge([torch.zeros(7, 36, DIM)], [(48, 48)])


def test_a_size_that_is_needed_is_asked_for(registries: Registries) -> None:
    with pytest.raises(ContractError, match="depend on the image's size"):
        layouts_of(registries, Tiling()).of()
    assert layouts_of(registries, Tiling(grids=[[2, 2]], fit="squash")).of().tokens == 36 + 12 * 13
