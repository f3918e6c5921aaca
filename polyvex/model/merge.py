"""Put the views of each image together behind the fusion: tiles to one picture, borders left out, rows ended."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from polyvex.encoders.tiling import Size, View
from polyvex.errors import ContractError
from polyvex.layouts import ImageLayouts, RunViews


class MergeViews(nn.Module):
    """From runs of tokens of single tiles to one sequence per image, as :class:`ImageLayouts` lays it out.

    Rows of tiles end with a learned token where the recipe's ``tiling.newline`` says so: one for each run, normal
    with deviation 1/√dim as LLaVA-1.6's ``image_newline``.
    """

    def __init__(self, layouts: ImageLayouts, *, dim: int):
        super().__init__()
        self.layouts = layouts
        ended = [
            index
            for index, run in enumerate(layouts.runs)
            if run.views.tiling is not None and run.views.tiling.newline and run.tile.grid is not None
        ]
        self.newlines = nn.ParameterDict({str(index): nn.Parameter(torch.randn(dim) / dim**0.5) for index in ended})

    def forward(
        self, runs: Sequence[Float[Tensor, "tiles tokens dim"]], sizes: Sequence[Size]
    ) -> Float[Tensor, "all dim"]:
        """The tokens of all images, one image behind the other.

        Args:
            runs: for each run, the tokens of all tiles of all images.
            sizes: height and width of each image.

        Raises:
            ContractError: if there are more or fewer tiles than these images have.
        """
        parts = [self._by_image(index, run, sizes) for index, run in enumerate(runs)]
        return torch.cat([part for of_image in zip(*parts, strict=True) for part in of_image])

    def _by_image(
        self, index: int, values: Float[Tensor, "tiles tokens dim"], sizes: Sequence[Size]
    ) -> list[Float[Tensor, "all dim"]]:
        run = self.layouts.runs[index]
        views = [run.views.of(size) for size in sizes]
        counts = [view.tiles for of_image in views for view in of_image]
        if sum(counts) != len(values):
            raise ContractError(
                f"got {len(values)} tiles of encoder #{run.source + 1} for {len(sizes)} images, expected "
                f"{sum(counts)} for their sizes. Do image_sizes belong to these images?"
            )
        tiles = iter(values.split(counts))
        return [
            torch.cat([self._put_together(index, run, next(tiles), view) for view in of_image]) for of_image in views
        ]

    def _put_together(
        self, index: int, run: RunViews, tiles: Float[Tensor, "tiles tokens dim"], view: View
    ) -> Float[Tensor, "all dim"]:
        grid = run.tile.grid
        if grid is None:
            return tiles.flatten(0, 1)
        whole = rearrange(
            tiles, "(R C) (r c) dim -> (R r) (C c) dim", R=view.rows, C=view.cols, r=grid.rows, c=grid.cols
        )
        shown = whole[view.shown(grid)]
        if run.has_newline(view):
            ends = self.newlines[str(index)].to(shown.dtype).expand(shown.shape[0], 1, -1)
            shown = torch.cat([shown, ends], dim=1)
        return shown.flatten(0, 1)
