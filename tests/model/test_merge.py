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
from polyvex.layouts import Arrangement, ImageLayouts, RunViews
from polyvex.model.merge import MergeViews
from polyvex.tokens import TEXT, Grid, TokenShape

PINPOINTS = [[96, 48], [48, 96], [96, 96], [48, 144], [144, 48]]
SIZES = [(30, 40), (48, 48), (200, 60), (60, 200), (30, 110), (96, 96), (90, 70)]
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


def test_the_tokens_of_each_place_come_side_by_side(registries: Registries) -> None:
    small = TokenShape(tokens=4, dim=1, grid=Grid(rows=2, cols=2))
    runs = [RunViews(source=index, tile=small, views=views(registries, None)) for index in range(2)]
    layouts = ImageLayouts(runs, Arrangement(interleaved=True))
    merged = MergeViews(layouts, dim=1).whole(
        [torch.tensor([[[1.0], [2], [3], [4]]]), torch.tensor([[[5.0], [6], [7], [8]]])]
    )
    assert merged.flatten().tolist() == [1, 5, 2, 6, 3, 7, 4, 8]
    layout = layouts.of()
    assert layout.source.tolist() == [0, 1] * 4
    assert layout.run.tolist() == [0] * 8
    assert layout.coords.tolist() == [[r, c] for r in range(2) for c in range(2) for _ in range(2)]


def test_the_ends_of_rows_stay_behind_their_rows_when_encoders_are_interleaved(registries: Registries) -> None:
    tile, tiling = TokenShape(tokens=36, dim=DIM, grid=GRID), Tiling()
    runs = [RunViews(source=index, tile=tile, views=views(registries, tiling)) for index in range(2)]
    plain, mixed = ImageLayouts(runs), ImageLayouts(runs, Arrangement(interleaved=True))
    tiles = tiles_for(plain, SIZES)
    merge, woven = MergeViews(plain, dim=DIM), MergeViews(mixed, dim=DIM)
    woven.load_state_dict(merge.state_dict())
    apart = merge(tiles, SIZES).split([plain.tokens(size) for size in SIZES])
    together = woven(tiles, SIZES).split([mixed.tokens(size) for size in SIZES])
    for size, one, both in zip(SIZES, apart, together, strict=True):
        half = len(one) // 2
        assert torch.equal(both[0::2], one[:half])
        assert torch.equal(both[1::2], one[half:])
        layout = mixed.of(size)
        assert torch.equal(layout.coords[0::2], plain.of(size).coords[:half])
        assert layout.source.tolist() == [0, 1] * half


@pytest.mark.parametrize("tiled", [False, True])
def test_learned_separators_stand_between_runs_and_learn(tiled: bool, registries: Registries) -> None:
    tile = TokenShape(tokens=36, dim=DIM, grid=GRID)
    tiling = Tiling(grids=[[1, 2]]) if tiled else None
    runs = [RunViews(source=index, tile=tile, views=views(registries, tiling)) for index in range(3)]
    layouts = ImageLayouts(runs, Arrangement(separator=1))
    merge = MergeViews(layouts, dim=DIM, learned=True)
    tiles = tiles_for(layouts, SIZES[:2])
    merged = merge(tiles, SIZES[:2]) if tiled else merge.whole(tiles).flatten(0, 1)
    layout = layouts.of(SIZES[0])
    gaps = (layout.run == TEXT).nonzero().flatten()
    assert len(gaps) == 2
    assert layout.run.unique_consecutive().tolist() == [0, TEXT, 1, TEXT, 2]
    assert torch.equal(merged[gaps], merge.separators)
    assert len(merged) == sum(layouts.tokens(size) for size in SIZES[:2])
    merged[gaps].sum().backward()
    assert merge.separators.grad.tolist() == [[1.0] * DIM] * 2


def test_text_between_runs_is_what_it_is_given(registries: Registries) -> None:
    tile = TokenShape(tokens=36, dim=DIM, grid=GRID)
    runs = [RunViews(source=index, tile=tile, views=views(registries, None)) for index in range(2)]
    merge = MergeViews(ImageLayouts(runs, Arrangement(separator=3)), dim=DIM)
    tiles, text = tiles_for(merge.layouts, SIZES[:2]), torch.randn(3, DIM)
    merged = merge.whole(tiles, text)
    assert torch.equal(merged[1], torch.cat([tiles[0][1], text, tiles[1][1]]))
    assert list(merge.parameters()) == []
    with pytest.raises(ContractError, match="separated by text, but its embeddings were not given"):
        merge.whole(tiles)


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


def test_four_tiles_make_a_square(registries: Registries) -> None:
    layouts = layouts_of(registries, Tiling(grids=[[2, 2]], base=False, newline=False))
    places = layouts.runs[0].tile.grid.coords().float()  # type: ignore[union-attr]
    corners = torch.tensor([[0.0, 0.0], [0.0, 6.0], [6.0, 0.0], [6.0, 6.0]])  # row by row
    merged = MergeViews(layouts, dim=2)([torch.stack([places + corner for corner in corners])], [(96, 96)])
    assert torch.equal(merged, layouts.of((96, 96)).coords.float())
    assert merged.tolist() == [[row, col] for row in range(12) for col in range(12)]


def test_rows_of_a_single_tile_end_too(registries: Registries) -> None:
    """As in LLaVA: what counts is whether a view is cut into tiles, be it into one."""
    layouts = layouts_of(registries, Tiling(grids=[[1, 1]]))
    assert layouts.of((48, 48)).tokens == 36 + 36 + 6


def test_the_widest_image_has_the_columns_of_the_widest_grid(registries: Registries) -> None:
    widest = layouts_of(registries, Tiling(grids=[[1, 3], [4, 1]])).widest()
    assert [int(widest.coords[widest.view == view, 1].max()) + 1 for view in (0, 1)] == [6, 18]
    alone = layouts_of(registries, Tiling(grids=[[1, 3]], base=False)).widest()
    assert alone.view.unique().tolist() == [0]
    assert int(alone.coords[:, 1].max()) + 1 == 18


def test_separators_start_apart(registries: Registries) -> None:
    tile = TokenShape(tokens=36, dim=DIM, grid=GRID)
    runs = [RunViews(source=index, tile=tile, views=views(registries, None)) for index in range(3)]
    merge = MergeViews(ImageLayouts(runs, Arrangement(separator=1)), dim=DIM, learned=True)
    assert merge.separators is not None
    assert merge.separators[0].any()
    assert not torch.equal(merge.separators[0], merge.separators[1])
