"""Images of any kind become upright RGB; what cannot be read is an error with its path."""

import io
import math
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from polyvex.encoders.images import (
    FORMATS,
    LIMITS,
    MOST_PIXELS,
    ImageLimits,
    normalize,
    open_image,
    resize_square,
    size_of,
    size_of_file,
    to_rgb,
)
from polyvex.errors import DataError

ORIENTATION = 274  # EXIF tag


def noise(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


WIDE = {"I;16": (np.uint16, 65535), "I": (np.int32, 65535), "F": (np.float32, 1)}
"""Type of the pixels of a mode, and its white."""


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode in WIDE:
        kind, white = WIDE[mode]
        image = Image.fromarray((np.asarray(noise().convert("L")) / 255.0 * white).astype(kind))
    else:
        image = noise().convert(mode)
    rgb = to_rgb(image)
    assert (rgb.mode, rgb.size) == ("RGB", (40, 30))
    assert np.asarray(rgb).std() > 10


def test_rgb_keeps_its_pixels() -> None:
    assert to_rgb(noise()).tobytes() == noise().tobytes()


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_16_bits_are_scaled_not_clipped(mode: str) -> None:
    # PIL's own conversion clips at 255, so that 300 and 65535 would both be white. 20 000 · 255 / 65 535 = 77.8.
    assert grey(mode, [0, 300, 20_000, 65_535]) == [0, 1, 78, 255]


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_the_type_decides_what_is_white_and_not_the_brightest_pixel(mode: str) -> None:
    # Of two images of one data set, the dark one stays dark: 255 · 255 / 65 535 = 0.99.
    assert grey(mode, [0, 100, 255]) == [0, 0, 1]


def grey(mode: str, values: list[float]) -> list[int]:
    """One row of values in a wide mode, as 8 bits."""
    image = Image.fromarray(np.array([values]).astype(WIDE[mode][0]))
    assert image.mode == mode
    return np.asarray(to_rgb(image))[0, :, 0].tolist()


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1.001, 1.4, -0.001, 0.0])
def test_one_odd_float_leaves_the_others_as_they_are(odd: float, tmp_path: Path) -> None:
    expected = {math.nan: 0, math.inf: 255, -math.inf: 0, 1.001: 255, 1.4: 255, -0.001: 0, 0.0: 0}[odd]
    assert grey("F", [odd, 0.0, 0.25, 0.5, 1.0]) == [expected, 0, 64, 128, 255]
    Image.fromarray(np.array([[odd, 0.0, 0.25, 1.0]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [expected, 0, 64, 255]


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("F", [0.0, 128.0, 255.0]),
        ("F", [-1.0, 0.0, 1.0]),
        ("F", [math.nan, math.inf]),
        ("I", [0, 65_536]),
        ("I", [-1, 5]),
        ("I", [2**31 - 1]),
    ],
)
def test_values_outside_of_the_types_range_are_refused(mode: str, values: list[float], tmp_path: Path) -> None:
    # Scaling each image by its own values would give one data set several scales.
    with pytest.raises(DataError) as caught:
        grey(mode, values)
    assert caught.value.code == "image-values"
    Image.fromarray(np.array([values]).astype(WIDE[mode][0])).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif") as caught:
        open_image(tmp_path / "a.tif")
    assert caught.value.code == "image-values"


def test_16_bit_files_of_several_formats_look_alike(tmp_path: Path) -> None:
    # Pillow reads 16-bit PNG and TIFF as I;16, and PGM as I.
    values = np.array([[0, 300, 20_000, 65_535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    for name in ("a.png", "a.tif", "a.pgm"):
        assert np.asarray(open_image(tmp_path / name))[0, :, 0].tolist() == [0, 1, 78, 255], name


def test_transparency_goes_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert [to_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_a_palettes_transparent_colour_goes_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    rgb = open_image(tmp_path / "a.png")
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int, tmp_path: Path) -> None:
    # Each of the eight orientations must give the same upright picture.
    upright = Image.new("RGB", (16, 8), "black")
    upright.paste((255, 255, 255), (0, 0, 8, 4))  # white at top left
    operations = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for operation in operations.get(orientation, []):
        stored = stored.transpose(operation)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert open_image(tmp_path / "a.png").tobytes() == upright.tobytes()


@pytest.mark.parametrize("kind", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", [*range(10), 99])
def test_the_size_is_that_of_the_upright_image(kind: str, orientation: int, tmp_path: Path) -> None:
    # Visual tokens are counted from it before the pixels are read. Pillow turns TIFFs itself; 0, 9 and 99 turn nothing.
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"picture.{kind}"
    noise().save(path, exif=exif)
    upright = open_image(path)
    with Image.open(path) as image:
        assert size_of(image) == size_of_file(path) == (upright.height, upright.width)
        image.load()
        assert size_of(image) == (upright.height, upright.width)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_image(tmp_path / "none.png")
    assert str(caught.value) == f"no image at {tmp_path / 'none.png'}"


def png() -> bytes:
    stream = io.BytesIO()
    noise().save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        png()[:20],
        png()[:200],
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"II*\x00" + bytes(30),
    ],
    ids=["empty", "html", "header", "truncated", "zeros", "tiff"],
)
def test_what_is_no_image_is_told_with_its_path(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"cannot read the image {path}: ")


def refusal(path: Path, limits: ImageLimits = LIMITS) -> str:
    """The code with which both readers refuse a file."""
    codes = set()
    for read in (open_image, size_of_file):
        with pytest.raises(DataError) as caught:
            read(path, limits)
        assert str(path) in str(caught.value)
        codes.add(caught.value.code)
    (code,) = codes
    return code


@pytest.mark.parametrize("kind", ["EPS", "PDF", "DDS", "TGA", "ICO", "PCX", "SGI"])
def test_other_formats_that_pillow_knows_are_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    noise().save(path, kind)
    assert refusal(path) == "image-format"


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list_is_read(kind: str, tmp_path: Path) -> None:
    noise().save(tmp_path / "picture", kind)
    assert open_image(tmp_path / "picture").size == (40, 30)


def test_what_is_no_regular_file_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png", Path("/dev/zero")):
        assert refusal(path) == "file-kind"


def test_a_bomb_is_refused_before_its_pixels_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1 MB of PNG holds 100 million black pixels, and may hold many more.
    path = tmp_path / "bomb.png"
    Image.new("1", (10_000, 10_000)).save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert refusal(path) == "image-too-large"


def test_more_pixels_than_pillow_opens_are_too_large(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content + struct.pack(">I", 10) + b"IDAT")
    assert refusal(tmp_path / "a.png", ImageLimits(pixels=MOST_PIXELS)) == "image-too-large"


def test_limits_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise().save(path)
    size = path.stat().st_size
    assert open_image(path, ImageLimits(bytes=size, pixels=1200)).size == (40, 30)
    assert refusal(path, ImageLimits(bytes=size, pixels=1199)) == "image-too-large"
    assert refusal(path, ImageLimits(bytes=size - 1, pixels=1200)) == "file-too-large"


def test_a_text_chunk_that_swells_is_refused(tmp_path: Path) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("bomb", "A" * 2**26, zip=True)
    noise().save(tmp_path / "a.png", pnginfo=notes)
    assert refusal(tmp_path / "a.png") == "image-damaged"


def test_the_first_of_several_frames_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        frames[0].save(tmp_path / kind, kind, save_all=True, append_images=frames[1:])
        red, _, blue = np.asarray(open_image(tmp_path / kind))[0, 0]
        assert red > 200 > blue, kind


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_damaged_files_never_raise_anything_else(kind: str, tmp_path: Path) -> None:
    # One odd file among a million must be skipped and counted, not end the run.
    stream = io.BytesIO()
    noise().save(stream, kind)
    random = np.random.default_rng(0)
    for trial in range(40):
        content = bytearray(stream.getvalue())
        if trial % 2:
            del content[int(random.integers(len(content))) :]
        else:
            for place in random.integers(0, min(len(content), 120), 4):
                content[int(place)] = int(random.integers(256))
        (tmp_path / "x").write_bytes(content)
        try:
            open_image(tmp_path / "x")
        except DataError:
            continue


def test_resizing_gives_a_square_and_cuts_nothing() -> None:
    image = Image.new("RGB", (100, 20), "black")
    image.paste((255, 255, 255), (0, 0, 50, 20))
    square = resize_square(image, 10)
    assert square.size == (10, 10)
    assert [square.getpixel((x, 5)) for x in (0, 9)] == [(255, 255, 255), (0, 0, 0)]


def test_normalizing_by_hand() -> None:
    # (255/255 - 0.5) / 0.5 = 1; (0 - 0.25) / 0.25 = -1; (51/255 - 0) / 2 = 0.1.
    pixels = normalize(Image.new("RGB", (2, 3), (255, 0, 51)), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    assert pixels.shape == (3, 3, 2)
    assert pixels.dtype == torch.float32
    assert pixels[:, 0, 0].tolist() == pytest.approx([1.0, -1.0, 0.1])


def test_normalizing_is_torchvisions() -> None:
    from torchvision.transforms.v2 import functional

    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    theirs = functional.normalize(functional.to_dtype(functional.pil_to_tensor(noise()), scale=True), mean, std)
    assert torch.allclose(normalize(noise(), mean=mean, std=std), theirs, atol=1e-6)


def test_floats_from_0_to_1_are_brightness_and_not_black() -> None:
    image = to_rgb(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))
    assert [image.getpixel((column, 0)) for column in range(3)] == [(value,) * 3 for value in (0, 128, 255)]
