"""Images of any kind become upright RGB; what cannot be read is an error with its path."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polyvex.encoders.images import normalize, open_image, resize_square, size_of, size_of_file, to_rgb
from polyvex.errors import DataError

ORIENTATION = 274  # EXIF tag


def noise(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(noise().convert("L"), dtype=np.uint16) * 257)
    else:
        image = noise().convert(mode)
    rgb = to_rgb(image)
    assert (rgb.mode, rgb.size) == ("RGB", (40, 30))
    assert np.asarray(rgb).std() > 10


def test_rgb_keeps_its_pixels() -> None:
    assert to_rgb(noise()).tobytes() == noise().tobytes()


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_16_bits_are_scaled_not_clipped(mode: str) -> None:
    # PIL's own conversion clips at 255, so that 300 and 65535 would both be white. 20 000 · 255 / 65 535 = 77.8.
    values = np.array([[0, 300, 20_000, 65_535]])
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    rgb = to_rgb(Image.fromarray(values.astype(kind)))
    assert np.asarray(rgb)[0, :, 0].tolist() == [0, 1, 77, 255]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_8_bit_values_in_a_wide_mode_stay(mode: str) -> None:
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    rgb = to_rgb(Image.fromarray(np.array([[0, 100, 255]]).astype(kind)))
    assert np.asarray(rgb)[0, :, 0].tolist() == [0, 100, 255]


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


def test_a_format_that_pillow_has_no_words_for_is_told_like_any_other(tmp_path: Path) -> None:
    """Here a NotImplementedError; damaged AVIF files raise RuntimeError. One such file must not end a run."""
    stream = io.BytesIO()
    noise().save(stream, "DDS")
    content = bytearray(stream.getvalue())
    content[80:84] = (128).to_bytes(4, "little")  # flags of the pixels
    path = tmp_path / "odd.dds"
    path.write_bytes(content)
    for read in (open_image, size_of_file):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value) == f"cannot read the image {path}: Unknown pixel format flags 128"


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the image"):
        open_image(tmp_path)


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
    assert [image.getpixel((column, 0)) for column in range(3)] == [(value,) * 3 for value in (0, 127, 255)]
