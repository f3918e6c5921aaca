"""Open images of any kind as RGB, and the usual steps of a transform."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from polyvex.errors import DataError
from polyvex.reading import clip, open_regular

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that lay the image on its side. Others, among them ones that EXIF does not know, turn nothing."""


FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read, as Pillow names them. Some of its others start programs (EPS) or are rarely tested."""

MOST_PIXELS = 178_956_970
"""Pixels above which Pillow refuses to open an image, whatever the limit here."""

OVERSHOOT = 0.5
"""How far floating-point values may lie outside of 0 to 1, as resampling leaves them, before the image is refused."""


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """The largest image file that is read: its bytes, and its pixels, known from the header before any is decoded."""

    bytes: int = 256 * 2**20
    pixels: int = 64_000_000


LIMITS = ImageLimits()


def open_image(path: str | Path, limits: ImageLimits = LIMITS) -> Image.Image:
    """Open an image file as 8-bit RGB, upright: EXIF rotation is applied, transparency goes on white.

    The first frame of a file with several is taken. Values of more than 8 bits are scaled as :func:`to_rgb` describes.

    Raises:
        DataError: if the file is missing, is no image in one of :data:`FORMATS`, is damaged, or exceeds ``limits``.
            The path is named. Codes: those of :func:`~polyvex.reading.open_regular`, ``image-format``,
            ``image-too-large``, ``image-values`` and ``image-damaged``.
    """
    with _opened(path, limits) as image:
        image.load()
        return to_rgb(image)


def size_of(image: Image.Image) -> tuple[int, int]:
    """Height and width of an image of any kind once it is upright. Its pixels are not needed for most formats."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
    if turned and image.format == "TIFF":  # Pillow turns these itself, the size before the pixels
        image.load()
        turned = False
    return (image.width, image.height) if turned else (image.height, image.width)


def size_of_file(path: str | Path, limits: ImageLimits = LIMITS) -> tuple[int, int]:
    """Height and width of an image file, upright.

    Raises:
        DataError: as :func:`open_image`, for what shows without decoding the pixels.
    """
    with _opened(path, limits) as image:
        return size_of(image)


@contextmanager
def _opened(path: str | Path, limits: ImageLimits) -> Iterator[Image.Image]:
    """The image of a file, not yet decoded; whatever Pillow raises becomes a DataError that names the file."""
    named = clip(str(path))
    with open_regular(path, what="image", limit=limits.bytes) as stream:
        try:
            with Image.open(stream, formats=FORMATS) as image:
                _check_pixels(image, limits)
                yield image
        except DataError as error:
            raise DataError(f"cannot read the image {named}: {error}", code=error.code) from None
        except UnidentifiedImageError:
            raise DataError(
                f"cannot read the image {named}: damaged, or in none of the formats {', '.join(FORMATS)}",
                code="image-format",
            ) from None
        except Image.DecompressionBombError:
            raise DataError(
                f"cannot read the image {named}: it has more than {MOST_PIXELS:,} pixels", code="image-too-large"
            ) from None
        except Exception as error:  # each of Pillow's formats has its own: OSError, SyntaxError, RuntimeError and more
            reason = clip(str(error)) or type(error).__name__
            raise DataError(f"cannot read the image {named}: {reason}", code="image-damaged") from None


def _check_pixels(image: Image.Image, limits: ImageLimits) -> None:
    if image.width * image.height > limits.pixels:
        raise DataError(
            f"it has {image.width:,} x {image.height:,} pixels; at most {limits.pixels:,} are read. Resize it, or "
            f"raise data.max_image_pixels",
            code="image-too-large",
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any PIL image as 8-bit RGB, upright.

    The type of the pixels decides which value is white, so that it is the same for all images of a data set:

    - 16-bit integers (modes ``I;16`` and so on): 65535;
    - 32-bit integers (mode ``I``): 65535 too, since Pillow reads 16-bit formats such as PGM into this mode;
    - floats (mode ``F``): 1. Values a little outside of 0 to 1 (:data:`OVERSHOOT`) are clipped; NaN and negative
      infinity become black, infinity white.

    Raises:
        DataError: with the code ``image-values``, if 32-bit integers or floats lie outside of that range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = _scaled(np.asarray(image, dtype=np.float32) / 65535)
    elif image.mode == "I":
        image = _scaled(_in_range(np.asarray(image, dtype=np.float64), low=0, high=65535, white=65535))
    elif image.mode == "F":
        image = _scaled(_in_range(np.asarray(image), low=-OVERSHOOT, high=1 + OVERSHOOT, white=1))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


def _in_range(
    values: Float[np.ndarray, "height width"], *, low: float, high: float, white: int
) -> Float[np.ndarray, "height width"]:
    """The values with ``white`` as 1; those that are not finite do not decide whether they are in range."""
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() < low or finite.max() > high:
        found = f"from {finite.min():g} to {finite.max():g}" if finite.size else "none of which is finite"
        raise DataError(
            f"it has {values.dtype.name if white == 1 else '32-bit'} values {found}; expected 0 (black) to {white} "
            f"(white). Scale them, or store the image with 8 or 16 bits",
            code="image-values",
        )
    return np.nan_to_num(values / white, nan=0.0, posinf=1.0, neginf=0.0)


def _scaled(values: Float[np.ndarray, "height width"]) -> Image.Image:
    """Values from 0 (black) to 1 (white) as 8 bits; Pillow would clip 16 bits to white, and cut 0–1 to black."""
    return Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8))


def resize_square(image: Image.Image, side: int) -> Image.Image:
    """Resize to ``side`` × ``side`` pixels, bicubic with antialias. The aspect ratio is not kept, nothing is cut."""
    return to_rgb(image).resize((side, side), Image.Resampling.BICUBIC)


def normalize(
    image: Image.Image, *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "3 height width"]:
    """Scale RGB values from 0–255 to 0–1, subtract ``mean`` and divide by ``std``, channel by channel."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0).permute(2, 0, 1)
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
