"""The visual tokens of a sample where they lie on its image, each with the expert that it asks for first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from polyvex.data.base import Sample
from polyvex.encoders.images import open_image, size_of
from polyvex.encoders.tiling import View
from polyvex.tokens import Grid, SequenceLayout


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenView:
    """What one encoder saw of an image, and where its tokens went.

    ``encoder`` is its name, or ``a+b`` for the tokens that a fusion made of several encoders'. ``view`` counts the
    views: the whole image, then its tiles put together. ``pixels`` is what the encoder saw, None if it cannot be shown.
    ``experts`` gives for each decoder layer with experts the first choice at each place of the grid; -1 where no token
    is.
    """

    encoder: str
    view: int
    pixels: UInt8[np.ndarray, "height width 3"] | None
    experts: dict[int, Int[np.ndarray, "rows cols"]]


def token_views(
    model: Any, sample: Sample, layout: SequenceLayout, firsts: Mapping[int, Int[Tensor, " T"]], *, names: Sequence[str]
) -> list[TokenView]:
    """The views of a sample's first image whose tokens have a place on it; none behind a fusion that leaves no grid.

    Args:
        layout: of the sample alone, one row.
        firsts: by decoder layer, the first choice of each token of that row.
        names: of the visual sources, by number.
    """
    found = []
    for source, name in enumerate(names):
        encoder = model.encoder_names[source]
        for view in sorted(set(layout.view[layout.source == source].tolist())):
            own = (layout.source == source) & (layout.view == view)
            here = own & (layout.image == 0) & (layout.coords[..., 1] >= 0)
            coords = layout.coords[here].cpu()
            if not len(coords):
                continue
            rows, cols = (int(most) + 1 for most in coords.amax(dim=0))
            experts = {}
            for layer, expert in firsts.items():
                grid = np.full((rows, cols), -1, dtype=np.int64)
                grid[coords[:, 0], coords[:, 1]] = expert[here.reshape(-1).cpu()].numpy()
                experts[layer] = grid
            pixels = _seen(model, encoder, sample, view)
            found.append(TokenView(encoder=name, view=view, pixels=pixels, experts=experts))
    return found


def _seen(model: Any, encoder: str, sample: Sample, number: int) -> UInt8[np.ndarray, "height width 3"] | None:
    """What an encoder sees in one of its views of a sample's first image, brought to 0…255; borders are left out."""
    image, views = open_image(sample.images[0]), model.views_of[encoder]
    of = views.of(size_of(image))
    start = sum(view.tiles for view in of[:number])
    tiles = views.inputs(model.encoders[encoder], image)[start : start + of[number].tiles]
    if not all(isinstance(tile, Tensor) and tile.ndim == 3 and len(tile) == 3 for tile in tiles):
        return None
    return _shown(torch.stack([tile.float().cpu() for tile in tiles]), of[number])


def _shown(tiles: Tensor, view: View) -> UInt8[np.ndarray, "height width 3"]:
    """Tiles [tiles 3 height width] put together, without borders, their least value as 0 and their largest as 255."""
    height, width = tiles.shape[2:]
    whole = tiles.unflatten(0, (view.rows, view.cols)).permute(2, 0, 3, 1, 4).reshape(3, view.rows * height, -1)
    whole = whole[:, *view.shown(Grid(rows=height, cols=width))]
    low, high = whole.min(), whole.max()
    scaled = (whole - low) / (high - low).clamp(min=1e-6) * 255
    return scaled.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
