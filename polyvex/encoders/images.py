"""Open images of any kind as RGB, and the usual steps of a transform."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from polyvex.errors import DataError

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that lay the image on its side. Others, among them ones that EXIF does not know, turn nothing."""


def open_image(path: str | Path) -> Image.Image:
    """Open an image file as 8-bit RGB, upright: EXIF rotation is applied, transparency goes on white.

    Raises:
        DataError: if the file is missing, or is not an image that can be read. The path is named.
    """
    with _named_errors(path), Image.open(path) as image:
        image.load()
        return to_rgb(image)


def size_of(image: Image.Image) -> tuple[int, int]:
    """Height and width of an image of any kind once it is upright. Its pixels are not needed for most formats."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
    if turned and image.format == "TIFF":  # Pillow turns these itself, the size before the pixels
        image.load()
        turned = False
    return (image.width, image.height) if turned else (image.height, image.width)


def size_of_file(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file, upright.

    Raises:
        DataError: as :func:`open_image`, for what shows without decoding the pixels.
    """
    with _named_errors(path), Image.open(path) as image:
        return size_of(image)


@contextmanager
def _named_errors(path: str | Path) -> Iterator[None]:
    """Name the file in whatever Pillow says of it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"no image at {path}") from None
    except Exception as error:  # each of Pillow's formats has its own: OSError, SyntaxError, RuntimeError and more
        raise DataError(f"cannot read the image {path}: {str(error) or type(error).__name__}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any PIL image as 8-bit RGB, upright."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _to_8_bit(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale to 0–255 the range that the values are in: PIL would clip 16 bits to white, and cut 0–1 to black."""
    values = np.asarray(image, dtype=np.float32)
    highest = values.max(initial=0)
    unit = image.mode == "F" and highest <= 1
    top = 1.0 if unit else 65535.0 if highest > 255 else 255.0
    return Image.fromarray((values.clip(0, top) * (255.0 / top)).astype(np.uint8))


def resize_square(image: Image.Image, side: int) -> Image.Image:
    """Resize to ``side`` × ``side`` pixels, bicubic with antialias. The aspect ratio is not kept, nothing is cut."""
    return to_rgb(image).resize((side, side), Image.Resampling.BICUBIC)


def normalize(
    image: Image.Image, *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "3 height width"]:
    """Scale RGB values from 0–255 to 0–1, subtract ``mean`` and divide by ``std``, channel by channel."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0).permute(2, 0, 1)
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
