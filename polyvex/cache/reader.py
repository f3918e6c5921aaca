"""What the model needs of the images of a batch: cached tokens or pixels, and sizes where tokens depend on them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from polyvex.cache.encode import TokenCache
from polyvex.data.prompt import Images
from polyvex.encoders.images import LIMITS, ImageLimits, open_image, size_of_file
from polyvex.encoders.tiling import Size
from polyvex.layouts import ImageLayouts

if TYPE_CHECKING:
    from polyvex.model import PolyvexProcessor


@dataclass(frozen=True, kw_only=True)
class TokenCounter:
    """Counts the visual tokens of image files. Files are opened only if the tokens depend on the image's size."""

    layouts: ImageLayouts
    limits: ImageLimits = LIMITS
    sizes: dict[str, Size] = field(default_factory=dict)

    def __call__(self, paths: Sequence[str]) -> Images:
        """The number of images if all are laid out alike, else the visual tokens of each.

        Raises:
            DataError: if the size of a file is needed and cannot be read.
        """
        if self.layouts.fixed:
            return len(paths)
        return [self.layouts.tokens(self.size(path)) for path in paths]

    def size(self, path: str) -> Size:
        """Height and width of an image file, read once."""
        if path not in self.sizes:
            self.sizes[path] = size_of_file(path, self.limits)
        return self.sizes[path]


@dataclass(frozen=True, kw_only=True)
class ImageReader:
    """Reads images for a model whose processor is ``processor``: pixels for encoders that learn, else cached tokens."""

    cache: TokenCache
    processor: "PolyvexProcessor"
    count: TokenCounter

    @classmethod
    def of(cls, cache: TokenCache, processor: "PolyvexProcessor") -> "ImageReader":
        """The reader of a model's inputs."""
        return cls(cache=cache, processor=processor, count=TokenCounter(layouts=processor.layouts, limits=cache.limits))

    def __call__(self, paths: Sequence[str]) -> dict[str, Any]:
        """A batch's entries for these images."""
        inputs: dict[str, Any] = {}
        if self.cache.stores:
            inputs["encoder_tokens"] = self.cache.tokens(paths)
        if live := [name for name in self.processor.encoder_names if name not in self.cache.stores]:
            images = [open_image(path, self.cache.limits) for path in paths]
            inputs["pixel_values"] = self.processor.pixels(images, encoders=live)
        if not self.count.layouts.fixed:
            inputs["image_sizes"] = torch.tensor([self.count.size(path) for path in paths])
        return inputs
