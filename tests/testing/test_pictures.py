"""The kit's checks of transforms: each broken one fails for its own reason."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Images
from PIL import ImageOps
from PIL.Image import Image
from torch import Tensor

from polyvex.encoders import Box, EncoderFacts, EncoderOptions, normalize, resize_square
from polyvex.testing import check_encoder
from polyvex.testing.content import check_border
from polyvex.testing.pictures import odd_images, twins

from .good import HALF, SIDE, Good, GoodOptions


class TakesFirstThreeChannels(Good):
    """CMYK's cyan, magenta and yellow are the negative of red, green and blue."""

    def transform(self, image: Image) -> Tensor:
        return super().transform(Images.merge("RGB", image.split()[:3]) if image.mode == "CMYK" else image)


class ClipsSixteenBits(Good):
    def transform(self, image: Image) -> Tensor:
        return super().transform(image.convert("RGB") if image.mode == "I;16" else image)


class IgnoresExif(Good):
    def transform(self, image: Image) -> Tensor:
        return super().transform(Images.fromarray(np.asarray(image)) if image.mode == "RGB" else image)


class TakesTheLastFrame(Good):
    def transform(self, image: Image) -> Tensor:
        if (frames := getattr(image, "n_frames", 1)) == 1:
            return super().transform(image)
        image.seek(frames - 1)
        pixels = super().transform(image)
        image.seek(0)
        return pixels


class LeavesTheFirstFrame(Good):
    def transform(self, image: Image) -> Tensor:
        image.seek(getattr(image, "n_frames", 1) - 1)
        return super().transform(image)


class GivesNamesWithoutPixels(Good):
    def transform(self, image: Image) -> Any:
        return {"values": super().transform(image)}


class OtherNamesForGrey(Good):
    def transform(self, image: Image) -> Any:
        pixels = super().transform(image)
        return {"pixels": pixels, "grey" if image.mode == "L" else "colour": pixels}


class RefusesLongImages(Good):
    def transform(self, image: Image) -> Tensor:
        if image.width > 4096:
            raise ValueError("too wide")
        return super().transform(image)


class NormalisesEachImage(Good):
    def transform(self, image: Image) -> Tensor:
        pixels = super().transform(image)
        return (pixels - pixels.mean()) / (pixels.std() + 1e-5)


class TakesEachImagesMean(Good):
    def transform(self, image: Image) -> Tensor:
        pixels = super().transform(image)
        return pixels - pixels.mean()


class LosesAChannel(Good):
    def transform(self, image: Image) -> Tensor:
        return super().transform(image) * torch.tensor([1.0, 1.0, 0.0])[:, None, None]


class GammaCurve(Good):
    def transform(self, image: Image) -> Tensor:
        return (super().transform(image) / 2 + 0.5) ** 2.2


class Vignette(Good):
    def transform(self, image: Image) -> Tensor:
        return super().transform(image) * torch.linspace(0.5, 1, SIDE)


class CutsTheBorder(Good):
    def transform(self, image: Image) -> Tensor:
        square = resize_square(image, SIDE + 4)
        return normalize(square.crop((2, 2, SIDE + 2, SIDE + 2)), mean=HALF, std=HALF)


class SaysThatItCuts(CutsTheBorder):
    @classmethod
    def describe(cls, options: EncoderOptions) -> EncoderFacts:
        facts = super().describe(options)
        return EncoderFacts(**{**vars(facts), "crops": True})


class Pads(Good):
    """Keeps the aspect ratio; the image lies in the upper left corner."""

    @classmethod
    def content(cls, options: EncoderOptions, size: tuple[int, int]) -> Any:
        height, width = (max(1, side * SIDE // max(size)) for side in size)
        return Box(top=0, left=0, height=height, width=width)

    def transform(self, image: Image) -> Tensor:
        height, width = (max(1, side * SIDE // max(image.size)) for side in (image.height, image.width))
        ground = Images.new("RGB", (SIDE, SIDE), (128, 128, 128))
        ground.paste(resize_square(image, SIDE).resize((width, height)))
        return normalize(ground, mean=HALF, std=HALF)


class PadsTurned(Pads):
    """As it should be: upright before it asks for height and width."""

    def transform(self, image: Image) -> Tensor:
        return super().transform(ImageOps.exif_transpose(image))


class HidesItsPadding(PadsTurned):
    @classmethod
    def content(cls, options: EncoderOptions, size: tuple[int, int]) -> Any:
        return Box(top=0, left=0, height=SIDE, width=SIDE)


class LosesAColumn(PadsTurned):
    @classmethod
    def content(cls, options: EncoderOptions, size: tuple[int, int]) -> Any:
        box = super().content(options, size)
        return Box(top=0, left=0, height=box.height, width=max(1, box.width - 1))


class RoundsToNothing(PadsTurned):
    @classmethod
    def content(cls, options: EncoderOptions, size: tuple[int, int]) -> Any:
        height, width = (side * SIDE // max(size) for side in size)
        return Box(top=0, left=0, height=height, width=width)


class LeavesThePixels(PadsTurned):
    @classmethod
    def content(cls, options: EncoderOptions, size: tuple[int, int]) -> Any:
        return Box(top=0, left=1, height=SIDE, width=SIDE)


class GivesFractions(PadsTurned):
    @classmethod
    def content(cls, options: EncoderOptions, size: tuple[int, int]) -> Any:
        height, width = (side * SIDE / max(size) for side in size)
        return Box(top=0, left=0, height=height, width=width)  # type: ignore[arg-type]


class GivesATuple(PadsTurned):
    @classmethod
    def content(cls, options: EncoderOptions, size: tuple[int, int]) -> Any:
        return 0, 0, SIDE, SIDE


BROKEN = {
    TakesFirstThreeChannels: "image of kind 'CMYK' for another picture",
    ClipsSixteenBits: "image of kind '16-bit grey' for another picture",
    IgnoresExif: "image of kind 'turned by EXIF' for another picture",
    TakesTheLastFrame: "image of kind 'animated GIF' for another picture",
    LeavesTheFirstFrame: "changes the image that it is given",
    GivesNamesWithoutPixels: "gives tensors by name without 'pixels'",
    OtherNamesForGrey: "names or shapes differ from image to image",
    RefusesLongImages: "fails on an image of kind '20000 wide and 20 high': too wide",
    NormalisesEachImage: "same pixels for black and for white",
    TakesEachImagesMean: "same pixels for black and for white",
    LosesAChannel: "same values of a channel for black and for white",
    GammaCurve: "bends brightness",
    Vignette: "differ by 0.5 within a channel for an image of one grey",
    CutsTheBorder: "cuts the top border off an image of its own size",
    Pads: "image of kind 'turned by EXIF' for another picture",
    HidesItsPadding: r"for an image of 48 × 64 says Box.*, but 256 pixels in it are the same",
    LosesAColumn: r"for an image of 48 × 64 says Box.*, but 24 pixels beside it depend on the image",
    RoundsToNothing: r"for an image of 3 × 500 says Box\(top=0, left=0, height=0.*expected at least one pixel",
    LeavesThePixels: r"leaves the 32 × 32 pixels that describe promises",
    GivesFractions: "expected whole numbers",
    GivesATuple: "returned tuple; expected Box",
}


@pytest.mark.parametrize("good", [Good, SaysThatItCuts, PadsTurned], ids=lambda good: good.__name__)
def test_good_transforms_pass(good: type[Good]):
    assert isinstance(check_encoder(good, GoodOptions()), good)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_transform_fails_for_its_own_reason(broken: type[Good]):
    with pytest.raises(AssertionError, match=BROKEN[broken]) as caught:
        check_encoder(broken, GoodOptions())

    assert broken.__name__ in str(caught.value)


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_each_side_of_the_border_is_looked_at(side: str):
    """A transform that loses the outermost pixels of one side."""
    lost = {"top": (slice(0, 1), ...), "bottom": (slice(-1, None), ...), "left": (..., slice(0, 1))}
    place = lost.get(side, (..., slice(-1, None)))

    class LosesASide(Good):
        def transform(self, image: Image) -> Tensor:
            pixels = super().transform(image)
            pixels[(slice(None), *place)] = 0
            return pixels

    encoder = LosesASide(GoodOptions())
    with pytest.raises(AssertionError, match=f"cuts the {side} border off"):
        check_border(encoder, LosesASide.describe(GoodOptions()))


def test_odd_images_are_what_they_are_called():
    images = odd_images()

    assert images["16-bit grey"].mode == "I;16"
    assert images["CMYK"].mode == "CMYK"
    assert getattr(images["animated GIF"], "n_frames", 0) == 3
    assert images["20000 wide and 20 high"].size == (20000, 20)


def test_a_picture_turned_by_exif_is_its_twin_once_it_is_upright():
    image, upright = twins()["turned by EXIF"]

    assert image.size == upright.size[::-1]
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), np.asarray(upright))


def test_the_frames_of_the_animation_differ():
    image, first = twins()["animated GIF"]
    assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(first))
    image.seek(2)

    assert not np.array_equal(np.asarray(image.convert("RGB")), np.asarray(first))
