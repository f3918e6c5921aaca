"""The views that an encoder has of an image: one picture, or tiles, known from the image's size alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from polyvex.encoders.base import EncoderInputs, VisionEncoder
from polyvex.encoders.tiling import Size, Tiling, View, cut, tiled_view, view_of

EXTREMES: tuple[Size, ...] = ((1, 4096), (4096, 1))
"""Sizes of images that no square picture can hold without padding or stretching."""


@dataclass(frozen=True, kw_only=True)
class EncoderViews:
    """How one encoder of a recipe looks at images: by its own transform, or with ``tiling``."""

    kind: type[VisionEncoder]
    options: Any
    tiling: Tiling | None = None

    @cached_property
    def picture(self) -> Size:
        """Height and width of one tile in pixels."""
        return self.kind.describe(self.options).image_size

    @cached_property
    def fixed(self) -> bool:
        """Whether all images have the same views, so that no image size need be known."""
        if self.tiling is not None and len(self.tiling.grids) == 1 and self.tiling.fit != "unpad":
            return not self.tiling.base or self.fills
        return self.tiling is None and self.fills

    @cached_property
    def fills(self) -> bool:
        """Whether the transform fills its picture whatever the image; asked of two extremes."""
        return all(view_of(self.kind.content(self.options, size), self.picture) == View() for size in EXTREMES)

    def of(self, size: Size) -> list[View]:
        """The views of an image of ``size``: the whole image, then its tiles."""
        # Most fill their picture, and then none is asked per image: encoders may read files to describe themselves.
        whole = View() if self.fills else view_of(self.kind.content(self.options, size), self.picture)
        if self.tiling is None:
            return [whole]
        tiles = tiled_view(self.tiling, size, self.picture)
        return [whole, tiles] if self.tiling.base else [tiles]

    def tiles(self, size: Size) -> int:
        """How many times the encoder runs on an image of ``size``."""
        return sum(view.tiles for view in self.of(size))

    def inputs(self, encoder: VisionEncoder, image: Image.Image) -> list[EncoderInputs]:
        """What ``encoder`` looks at for an image: its own transform of the whole, and of each tile."""
        pictures = [image] if self.tiling is None or self.tiling.base else []
        if self.tiling is not None:
            pictures += cut(image, self.tiling, self.picture)
        return [encoder.transform(picture) for picture in pictures]


def alike(views: Sequence[EncoderViews]) -> bool:
    """Whether several encoders cut every image into the same tiles, so that these correspond to each other."""
    first, pictures = views[0], {one.picture for one in views}
    if any(one.tiling != first.tiling for one in views):
        return False
    if first.tiling is not None and len(pictures) > 1 and (len(first.tiling.grids) > 1 or first.tiling.fit == "unpad"):
        return False
    return all(one.fills for one in views) or (len(pictures) == 1 and all(_padded_alike(first, one) for one in views))


def _padded_alike(left: EncoderViews, right: EncoderViews) -> bool:
    """Whether two encoders pad alike: of one kind, and by options that agree on two extremes."""
    return left.kind is right.kind and all(
        left.kind.content(left.options, size) == right.kind.content(right.options, size) for size in EXTREMES
    )
