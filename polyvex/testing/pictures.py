"""Images to probe transforms with: of every mode, of extreme sizes, and the same picture stored in several ways."""

import io

import numpy as np
from PIL import Image

ORIENTATION, QUARTER_TURN = 0x0112, 6
"""EXIF's tag of orientation, and its value for an image that has to be turned by 90° clockwise to be upright."""


def noise(width: int = 53, height: int = 37, *, seed: int = 0) -> Image.Image:
    """Seeded colour noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def plain(color: tuple[int, int, int] | str, height: int, width: int) -> Image.Image:
    """An image of one colour."""
    return Image.new("RGB", (width, height), color)


def odd_images() -> dict[str, Image.Image]:
    """Images of the kinds that break naive transforms, by name. All are made on the spot."""
    picture = noise()
    clear = picture.convert("RGBA")
    clear.putalpha(128)
    return {
        "RGB": picture,
        "grey": picture.convert("L"),
        "palette": picture.convert("P", palette=Image.Palette.ADAPTIVE),
        "black and white": picture.convert("1"),
        "RGBA": clear,
        "grey with alpha": picture.convert("LA"),
        **{kind: image for kind, (image, _) in twins().items()},
        "1x1": picture.resize((1, 1)),
        "300 wide and 2 high": picture.resize((300, 2)),
        "1 wide and 400 high": picture.resize((1, 400)),
        "20000 wide and 20 high": picture.resize((20000, 20)),
    }


def twins() -> dict[str, tuple[Image.Image, Image.Image]]:
    """Pictures stored in an unusual way, by name, each with the same picture as plain 8-bit RGB."""
    picture = noise()
    grey = picture.convert("L")
    cmyk = picture.convert("CMYK")
    return {
        "16-bit grey": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), grey.convert("RGB")),
        "CMYK": (cmyk, cmyk.convert("RGB")),
        "animated GIF": _animation(),
        "turned by EXIF": (_turned(picture), picture.transpose(Image.Transpose.ROTATE_270)),
    }


def _animation() -> tuple[Image.Image, Image.Image]:
    """A GIF of three frames, and the first of them."""
    frames = [noise(seed=seed).convert("P", palette=Image.Palette.ADAPTIVE) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], loop=0)
    with Image.open(io.BytesIO(file.getvalue())) as first:
        return Image.open(io.BytesIO(file.getvalue())), first.convert("RGB")


def _turned(picture: Image.Image) -> Image.Image:
    """The picture as a camera writes it that was held on its side."""
    exif = Image.Exif()
    exif[ORIENTATION] = QUARTER_TURN
    file = io.BytesIO()
    picture.save(file, format="PNG", exif=exif)
    return Image.open(io.BytesIO(file.getvalue()))
