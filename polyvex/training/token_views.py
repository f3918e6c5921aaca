"""The visual tokens of a sample where they lie on its image, each with the expert that it asks for first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from polyvex.data.base import Sample
from polyvex.encoders.base import VisionEncoder
from polyvex.encoders.images import LIMITS, ImageLimits, open_image, size_of
from polyvex.encoders.inputs import pixels_of
from polyvex.encoders.tiling import View, cut
from polyvex.encoders.views import EncoderViews
from polyvex.tokens import Grid, SequenceLayout


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenView:
    """What one encoder saw of an image, and where its tokens went.

    ``encoder`` is its name, or ``a+b`` for the tokens that a fusion made of several encoders'. ``view`` counts the
    views: the whole image, then its tiles put together. ``pixels`` is the part of the original image that the view
    shows, in its own colors and 0…255, resized as for the encoder. ``experts`` gives for each decoder layer with
    experts the first choice at each place of the grid; -1 where no token is.
    """

    encoder: str
    view: int
    pixels: UInt8[np.ndarray, "height width 3"]
    experts: dict[int, Int[np.ndarray, "rows cols"]]


def token_views(
    model: Any,
    sample: Sample,
    layout: SequenceLayout,
    firsts: Mapping[int, Int[Tensor, " T"]],
    *,
    names: Sequence[str],
    limits: ImageLimits = LIMITS,
) -> list[TokenView]:
    """The views of a sample's first image whose tokens have a place on it; none behind a fusion that leaves no grid.

    Args:
        layout: of the sample alone, one row.
        firsts: by decoder layer, the first choice of each token of that row.
        names: of the visual sources, by number.
        limits: the largest image file that is opened.
    """
    image = open_image(sample.images[0], limits)
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
            pixels = picture(image, model.encoders[encoder], model.views_of[encoder], view)
            found.append(TokenView(encoder=name, view=view, pixels=pixels, experts=experts))
    return found


def picture(
    image: Image.Image, encoder: VisionEncoder, views: EncoderViews, number: int
) -> UInt8[np.ndarray, "height width 3"]:
    """The part of an RGB image that one of an encoder's views shows; borders are left out.

    It is made from the image and not from the encoder's inputs: these may be normalized in any way, with the channels
    in any order.
    """
    size = size_of(image)
    view = views.of(size)[number]
    if view.tiled and views.tiling is not None:
        shown = _joined(cut(image, views.tiling, views.picture), view)
    elif views.kind.describe(views.options).crops:
        height, width = views.picture
        shown = image.resize((width, height), box=cropped_box(encoder, size))
    else:
        content = views.kind.content(views.options, size)
        shown = image.resize((content.width, content.height))
    return np.array(shown)


def _joined(tiles: Sequence[Image.Image], view: View) -> Image.Image:
    """Tiles put together, row by row, without the borders that the view leaves out."""
    width, height = tiles[0].size
    whole = Image.new("RGB", (view.cols * width, view.rows * height))
    for index, tile in enumerate(tiles):
        whole.paste(tile, (index % view.cols * width, index // view.cols * height))
    rows, cols = view.shown(Grid(rows=height, cols=width))
    return whole.crop((cols.start, rows.start, cols.stop, rows.stop))


def cropped_box(encoder: VisionEncoder, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the part of an image that an encoder's transform keeps, in pixels.

    Encoders do not state how they crop, so it is measured: gradients from black to white go through the transform,
    and each pixel of the result shows by its brightness, between that of a black and of a white image, where it comes
    from. This is exact to about 1/255 of the image.

    Args:
        size: height and width of the image.
    """
    height, width = size
    rows = (np.arange(height) + 0.5)[:, None] / height * np.ones((1, width))
    cols = (np.arange(width) + 0.5)[None] / width * np.ones((height, 1))
    black, white = (_transformed(encoder, np.full(size, value)) for value in (0.0, 1.0))
    vertical, horizontal = ((_transformed(encoder, one) - black) / (white - black) for one in (rows, cols))
    left, right = _ends(horizontal.mean(axis=0))
    top, bottom = _ends(vertical.mean(axis=1))
    return left * width, top * height, right * width, bottom * height


def _transformed(encoder: VisionEncoder, grey: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "rows cols"]:
    """What an encoder's transform makes of a grey image of values from 0 to 1, as the mean of its channels."""
    image = Image.fromarray(np.rint(grey * 255).astype(np.uint8)).convert("RGB")
    return pixels_of(encoder.transform(image)).double().mean(dim=0).cpu().numpy()


def _ends(places: Float[np.ndarray, " pixels"]) -> tuple[float, float]:
    """Where a row of pixels begins and ends, from the places of their centres: on the line that fits them best."""
    slope, start = np.polyfit(np.arange(len(places)), places, 1)
    return max(start - slope / 2, 0.0), min(start + slope * (len(places) - 0.5), 1.0)
