"""Pixels are those of segment-anything's own transform, and their box is where the image lies."""

import numpy as np
import pytest
import torch
from PIL import Image
from polyvex_sam import SamEncoder, SamOptions
from polyvex_sam.square import box_in_square, into_square
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from polyvex.encoders import Box

EXIF_ORIENTATION = 0x0112


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def upstream(sam: Sam, image: Image.Image) -> torch.Tensor:
    """What segment-anything's predictor does before the image encoder."""
    resized = ResizeLongestSide(sam.image_encoder.img_size).apply_image(np.asarray(image))
    return sam.preprocess(torch.as_tensor(resized).permute(2, 0, 1)[None])[0]


@pytest.mark.parametrize(
    "size", [(90, 70), (70, 90), (128, 128), (500, 301), (301, 500), (1, 1), (128, 60), (2000, 33), (129, 127)]
)
def test_pixels_are_those_of_segment_anything(size: tuple[int, int], sam: Sam, tiny: type[SamEncoder]) -> None:
    image = noise(*size)
    with torch.device("meta"):
        encoder = tiny(SamOptions(image_size=128))
    assert (encoder.transform(image) - upstream(sam, image)).abs().max() <= 1e-5


def test_boxes_are_rounded_as_segment_anything_rounds() -> None:
    random = np.random.default_rng(2)
    sizes = [(height, width) for height in range(1, 60) for width in range(1, 60)]
    sizes += [tuple(int(side) for side in random.integers(1, 9000, 2)) for _ in range(3000)]
    for side in (64, 336, 1024):
        for height, width in sizes:
            wanted = ResizeLongestSide.get_preprocess_shape(height, width, side)
            box = box_in_square((height, width), side)
            if 0 not in wanted:
                assert (box.height, box.width) == wanted, (height, width, side)
            assert max(box.height, box.width) == side


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [((1, 1), 1024, 1024), ((20, 20000), 1, 1024), ((9, 20000), 1, 1024), ((20000, 1), 1024, 1)],
)
def test_a_thin_image_keeps_a_pixel(size: tuple[int, int], height: int, width: int, tiny: type[SamEncoder]) -> None:
    assert tiny.content(SamOptions(), size) == Box(top=0, left=0, height=height, width=width)


@pytest.mark.parametrize("size", [(20000, 20), (20000, 9), (9, 20000), (1, 1)])
def test_a_thin_image_has_pixels_in_its_box_and_zeros_beside_it(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "white")
    pixels = into_square(image, 1024)
    box = box_in_square((image.height, image.width), 1024)
    assert pixels.shape == (3, 1024, 1024)
    assert (pixels[:, : box.height, : box.width] > 2).all()
    assert pixels[:, box.height :].abs().sum() + pixels[:, :, box.width :].abs().sum() == 0


@pytest.mark.parametrize("size", [(90, 70), (70, 90), (128, 128), (3, 128), (700, 29)])
def test_the_box_holds_the_image_and_nothing_else(size: tuple[int, int], tiny: type[SamEncoder]) -> None:
    options = SamOptions(image_size=64)
    with torch.device("meta"):
        encoder = tiny(options)
    pixels = encoder.transform(Image.new("RGB", size, (255, 1, 255)))
    box = tiny.content(options, (size[1], size[0]))
    shown = (pixels != 0).all(dim=0)
    assert shown[: box.height, : box.width].all()
    assert shown.sum() == box.height * box.width


def test_grey_palette_and_transparent_images_become_rgb(tiny: type[SamEncoder]) -> None:
    with torch.device("meta"):
        transform = tiny(SamOptions(image_size=64)).transform
    grey = noise(50, 40).convert("L")
    wanted = transform(grey.convert("RGB"))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = Image.new("RGBA", (50, 40), (9, 9, 9, 0))
    assert deep.mode == "I;16"
    assert torch.equal(transform(grey), wanted)
    assert torch.equal(transform(grey.convert("P")), wanted)
    assert torch.equal(transform(deep), wanted)
    assert torch.equal(transform(clear), transform(Image.new("RGB", (50, 40), "white")))
    ink = Image.new("CMYK", (50, 40), (0, 255, 255, 0))
    assert torch.equal(transform(ink), transform(Image.new("RGB", (50, 40), "red")))


def test_a_turned_image_stands_upright_in_the_box_of_its_upright_size(tiny: type[SamEncoder]) -> None:
    upright = noise(40, 80)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[EXIF_ORIENTATION] = 6  # show it turned by a quarter, clockwise
    options = SamOptions(image_size=64)
    with torch.device("meta"):
        encoder = tiny(options)
    pixels = encoder.transform(turned)
    box = tiny.content(options, (80, 40))
    assert torch.equal(pixels, encoder.transform(upright))
    assert (box.height, box.width) == (64, 32)
    assert pixels[:, :, box.width :].abs().sum() == 0
