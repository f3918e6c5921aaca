"""Put each image's tokens together behind the fusion: tiles to one picture, rows ended, runs in their order."""

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

    Tokens between runs are learned, one vector for each gap, or given. Rows of tiles end with a learned token where
    the recipe's ``tiling.newline`` says so, one for each run. All of them start normal, with deviation 1/√dim as
    LLaVA-1.6's ``image_newline``.
    """

    def __init__(self, layouts: ImageLayouts, *, dim: int, learned: bool = False):
        """``learned``: the tokens between runs are vectors of this module, not given to its forward."""
        super().__init__()
        self.layouts = layouts
        ended = [
            index
            for index, run in enumerate(layouts.runs)
            if run.views.tiling is not None and run.views.tiling.newline and run.tile.grid is not None
        ]
        self.newlines = nn.ParameterDict({str(index): nn.Parameter(torch.randn(dim) / dim**0.5) for index in ended})
        gaps = len(layouts.runs) - 1 if learned else 0
        self.separators = nn.Parameter(torch.randn(gaps, dim) / dim**0.5) if gaps else None

    def whole(
        self,
        runs: Sequence[Float[Tensor, "images tokens dim"]],
        between: Float[Tensor, "separator dim"] | None = None,
    ) -> Float[Tensor, "images all dim"]:
        """The tokens of images that are all laid out alike and have no tiles; arguments as for :meth:`forward`."""
        order = self.layouts.arranged().order
        if order is None:
            return torch.cat(list(runs), dim=1)
        ends = [one.expand(len(runs[0]), -1, -1) for one in self._separators(runs[0], between)]
        return torch.cat([*runs, *ends], dim=1).index_select(1, order.to(runs[0].device))

    def forward(
        self,
        runs: Sequence[Float[Tensor, "tiles tokens dim"]],
        sizes: Sequence[Size],
        between: Float[Tensor, "separator dim"] | None = None,
    ) -> Float[Tensor, "all dim"]:
        """The tokens of all images, one image behind the other.

        Args:
            runs: for each run, the tokens of all tiles of all images.
            sizes: height and width of each image.
            between: what stands between two runs, if that is text.

        Raises:
            ContractError: if there are more or fewer tiles than these images have.
        """
        parts = [self._by_image(index, run, sizes) for index, run in enumerate(runs)]
        separators = self._separators(runs[0], between)
        images = []
        for size, of_image in zip(sizes, zip(*parts, strict=True), strict=True):
            order = self.layouts.arranged(size).order
            tokens = torch.cat(of_image if order is None else [*of_image, *separators])
            images.append(tokens if order is None else tokens[order.to(tokens.device)])
        return torch.cat(images)

    def _separators(
        self, like: Tensor, between: Float[Tensor, "separator dim"] | None
    ) -> list[Float[Tensor, "separators dim"]]:
        """The tokens between runs, gap by gap; none where there are no gaps."""
        if self.layouts.arrangement.interleaved or not self.layouts.arrangement.separator:
            return []
        if self.separators is not None:
            return [self.separators.to(like.dtype)]
        if between is None:
            raise ContractError("runs are separated by text, but its embeddings were not given")
        return [between.to(like.dtype)] * (len(self.layouts.runs) - 1)

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
