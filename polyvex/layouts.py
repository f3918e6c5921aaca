"""How many visual tokens an image gives, and where each comes from: known from its size before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from polyvex.encoders.base import VisionEncoder
from polyvex.encoders.tiling import Size, View
from polyvex.encoders.views import EncoderViews, alike
from polyvex.errors import ContractError
from polyvex.fusion.base import Fusion
from polyvex.hooks.registry import Registry
from polyvex.reducers.base import Reducer
from polyvex.tokens import TEXT, Layouts, TokenShape, VisualLayout

KEPT = 256
"""Layouts of image sizes that are kept; one of AnyRes takes about 100 kB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunViews:
    """A run of tokens that comes out of the fusion: what one tile gives, and the views that tiles are put together to.

    ``source`` is the index of its encoder.
    """

    source: int
    tile: TokenShape
    views: EncoderViews

    def has_newline(self, view: View) -> bool:
        """Whether rows of ``view`` end with a token of their own; the view of the whole image has none."""
        tiling = self.views.tiling
        return tiling is not None and tiling.newline and self.tile.grid is not None and view.tiled

    def layout(self, size: Size) -> VisualLayout:
        """The layout of this run for an image of ``size``."""
        parts = [
            VisualLayout.on(self._coords(view), source=self.source, view=index)
            for index, view in enumerate(self.views.of(size))
        ]
        return VisualLayout.joined(parts)

    def _coords(self, view: View) -> Int[Tensor, "tokens 2"]:
        if self.tile.grid is None:
            return torch.full((self.tile.tokens * view.tiles, 2), TEXT)
        rows, cols = view.shown(self.tile.grid)
        return grid_coords(rows.stop - rows.start, cols.stop - cols.start, newline=self.has_newline(view))


def grid_coords(rows: int, cols: int, *, newline: bool) -> Int[Tensor, "tokens 2"]:
    """Row and column of each token of a grid, row by row; the token that ends a row has the column -1."""
    across = torch.arange(cols + newline)
    if newline:
        across[-1] = TEXT
    grid = torch.meshgrid(torch.arange(rows), across, indexing="ij")
    return torch.stack(grid, dim=-1).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How the runs of an image come together: one behind the other, or the tokens of each place side by side.

    ``separator`` is the number of tokens between two runs.
    """

    interleaved: bool = False
    separator: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Arranged:
    """The tokens of an image as the language model reads them.

    ``order`` says where each of them is among the tokens of all runs, one behind the other, and the separators behind
    these; None where they are in this order already.
    """

    layout: VisualLayout
    order: Int[Tensor, " tokens"] | None


class ImageLayouts:
    """The layouts of images of all sizes, for one recipe."""

    def __init__(self, runs: Sequence[RunViews], arrangement: Arrangement = Arrangement()):
        self.runs = list(runs)
        self.arrangement = arrangement
        self._known: dict[Size, Arranged] = {}

    @cached_property
    def fixed(self) -> bool:
        """Whether all images are laid out alike, so that no image size need be known."""
        return all(run.views.fixed for run in self.runs)

    @cached_property
    def untiled(self) -> bool:
        """Whether each encoder sees an image as one picture."""
        return all(run.views.tiling is None for run in self.runs)

    @cached_property
    def _fixed_arranged(self) -> Arranged:
        return self._make((1, 1))

    def of(self, size: Size | None = None) -> VisualLayout:
        """The layout of an image.

        Args:
            size: its height and width; not needed if all images are laid out alike.

        Raises:
            ContractError: if the size is needed and missing.
        """
        return self.arranged(size).layout

    def arranged(self, size: Size | None = None) -> Arranged:
        """As :meth:`of`, with the order of the tokens."""
        if self.fixed:
            return self._fixed_arranged
        if size is None:
            raise ContractError(
                "this model's visual tokens depend on the image's size (an encoder has tiles or drops padding). Pass "
                "image_sizes [images 2], each height and width, as the processor does"
            )
        if size not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[size] = self._make(size)
        return self._known[size]

    def of_all(self, sizes: Sequence[Size] | None) -> Layouts:
        """The layout that all images share, or one for each of ``sizes``."""
        if self.fixed:
            return self._fixed_arranged.layout
        return [self.of(size) for size in sizes or ()]

    def tokens(self, size: Size | None = None) -> int:
        """Visual tokens of an image of ``size``, separators among them."""
        return self.of(size).tokens

    def widest(self) -> VisualLayout:
        """A layout that has every view and column that any image has: what tables of learned columns are made for."""
        if self.fixed:
            return self._fixed_arranged.layout
        return VisualLayout.joined([layout for run in self.runs for layout in _widest(run)])

    def _make(self, size: Size) -> Arranged:
        parts = [run.layout(size) for run in self.runs]
        if self.arrangement.interleaved:
            return _interleaved(parts)
        if not self.arrangement.separator or len(parts) == 1:
            return Arranged(layout=VisualLayout.joined(parts), order=None)
        return _separated(parts, self.arrangement.separator)


def _interleaved(parts: Sequence[VisualLayout]) -> Arranged:
    """Tokens of one place side by side, by view, row and column; the tokens that end a row stay behind it."""
    joined = VisualLayout.joined(parts)
    column = joined.coords[:, 1].masked_fill(joined.coords[:, 1] == TEXT, int(joined.coords[:, 1].max()) + 1)
    order = torch.arange(joined.tokens)
    for key in (joined.source, column, joined.coords[:, 0], joined.view):  # stable, so the last one counts most
        order = order[key[order].argsort(stable=True)]
    layout = joined.pick(order)
    return Arranged(layout=replace(layout, run=torch.zeros_like(layout.run)), order=order)


def _separated(parts: Sequence[VisualLayout], separator: int) -> Arranged:
    """Runs one behind the other, with ``separator`` tokens between each two."""
    layouts, order, start = [], [], 0
    behind = sum(part.tokens for part in parts)
    for index, part in enumerate(parts):
        if index:
            layouts.append(VisualLayout.separator(separator))
            order.append(behind + (index - 1) * separator + torch.arange(separator))
        layouts.append(part)
        order.append(start + torch.arange(part.tokens))
        start += part.tokens
    return Arranged(layout=VisualLayout.joined(layouts), order=torch.cat(order))


def _widest(run: RunViews) -> list[VisualLayout]:
    """Of each view of a run, the most columns that it can have."""
    tiling = run.views.tiling
    across = [] if tiling is not None and not tiling.base else [1]
    if tiling is not None:
        across.append(max(cols for _, cols in tiling.grids))
    coords = [
        torch.full((1, 2), TEXT) if run.tile.grid is None else grid_coords(1, cols * run.tile.grid.cols, newline=False)
        for cols in across
    ]
    return [VisualLayout.on(one, source=run.source, view=view) for view, one in enumerate(coords)]


Built = tuple[type[VisionEncoder], Any]
"""An encoder's class, and its table with the keys that every encoder has."""


def token_shapes(encoders: Sequence[Built], reducers: Registry[Reducer]) -> list[TokenShape]:
    """What reaches the fusion from one tile of each encoder: its tokens, or what its reducer leaves of them.

    Raises:
        ValueError: if a reducer cannot work on its encoder's tokens. Says which, the numbers and a way out.
    """
    shapes = []
    for index, (kind, table) in enumerate(encoders):
        shape = kind.describe(table).shape
        if table.reduce is not None:
            try:
                shape = reducers[table.reduce.use].describe(table.reduce, shape=shape)
            except ValueError as error:
                raise ValueError(f"reduce of encoder #{index + 1} ({table.use}): {error}") from None
        shapes.append(shape)
    return shapes


def image_layouts(
    encoders: Sequence[Built],
    fusion: tuple[type[Fusion], Any],
    *,
    shapes: Sequence[TokenShape],
    dim: int,
    separator: int = 0,
) -> ImageLayouts:
    """The layouts that encoders and a fusion give together, for a language model of width ``dim``.

    Args:
        shapes: what reaches the fusion from each encoder, as :func:`token_shapes` tells it.
        separator: tokens between two runs.

    Raises:
        ValueError: if the encoders cannot be fused with these options, or tiles do not go with them. Says a way out.
    """
    kind, options = fusion
    views = [EncoderViews(kind=one, options=table, tiling=table.tiling) for one, table in encoders]
    tiles = kind.describe(options, inputs=shapes, dim=dim)
    for index, ((one, table), shape) in enumerate(zip(encoders, tiles if kind.separate else shapes, strict=True)):
        _check_tiling(index, one, table, shape)
    if kind.separate:
        runs = [RunViews(source=index, tile=tile, views=views[index]) for index, tile in enumerate(tiles)]
        return ImageLayouts(runs, Arrangement(interleaved=kind.interleaves, separator=separator))
    if not alike(views):
        raise ValueError(
            f"the fusion '{options.use}' merges encoders, so they must see each image in the same pieces. Give all of "
            f"them the same tiling (AnyRes also the same image_size), or none, and keep padding if one has it"
        )
    runs = [RunViews(source=index, tile=tile, views=views[0]) for index, tile in enumerate(tiles)]
    return ImageLayouts(runs, Arrangement(separator=separator))


def _check_tiling(index: int, kind: type[VisionEncoder], table: Any, tile: TokenShape) -> None:
    tiling = table.tiling
    if tiling is None:
        return
    where = f"encoder #{index + 1} ({table.use})"
    if kind.describe(table).crops:
        raise ValueError(
            f"{where}: its transform cuts the border off, so tiles would have gaps. Set resize = 'squash', "
            f"or take tiling out"
        )
    if tiling.newline and tile.grid is None:
        raise ValueError(f"{where}: its tokens have no grid, so no row can end. Set tiling.newline = false")
    if tiling.fit == "unpad" and tile.grid is None:
        raise ValueError(f"{where}: its tokens have no grid, so no border can be left out. Set tiling.fit = 'pad'")
