"""An encoder that differs from the library of its weights fails, with the image and the place."""

import pytest
import torch
from PIL import Image as Images
from PIL.Image import Image
from torch import Tensor

from polyvex.encoders import normalize, resize_square
from polyvex.testing import check_upstream
from polyvex.testing.pictures import noise

from .good import HALF, SIDE, Good, GoodOptions

IMAGES = [noise(), noise(20, 60, seed=1)]


def encoder(kind: type[Good] = Good) -> Good:
    made = kind(GoodOptions())
    made.load_pretrained()
    return made


def library(images: list[Image]) -> Tensor:
    """What the makers of these weights would publish: written without polyvex's transform and forward."""
    model = encoder().eval()
    pixels = torch.stack([normalize(resize_square(image, SIDE), mean=HALF, std=HALF) for image in images])
    return model.norm(model.conv(pixels)).flatten(2).mT


class ResizesOtherwise(Good):
    def transform(self, image: Image) -> Tensor:
        return normalize(image.resize((SIDE, SIDE), Images.Resampling.BILINEAR), mean=HALF, std=HALF)


class NormalisesOtherwise(Good):
    def transform(self, image: Image) -> Tensor:
        return super().transform(image) + 1e-3


class DropsAToken(Good):
    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels)[:, 1:]

    def forward(self, pixels: Tensor):
        from polyvex.tokens import VisualTokens

        return VisualTokens.on_grid(self.features(pixels), None)


def test_the_same_tokens_pass():
    check_upstream(encoder(), IMAGES, library)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (ResizesOtherwise, r"image #1 of 53 × 37 differs from upstream by .* at token \d+, channel \d+"),
        (NormalisesOtherwise, "image #1 of 53 × 37 differs from upstream"),
        (DropsAToken, r"gives tokens of shape \(2, 15, 12\); upstream gives \(2, 16, 12\)"),
    ],
)
def test_other_tokens_fail(kind: type[Good], told: str):
    with pytest.raises(AssertionError, match=told) as caught:
        check_upstream(encoder(kind), IMAGES, library)

    assert kind.__name__ in str(caught.value)


def test_the_image_and_the_place_are_named():
    def other(images: list[Image]) -> Tensor:
        tokens = library(images).detach()
        tokens[1, 7, 3] += 0.5
        return tokens

    with pytest.raises(AssertionError, match=r"image #2 of 20 × 60 .* by 0\.5 .* at token 7, channel 3"):
        check_upstream(encoder(), IMAGES, other)


def test_the_tolerance_is_a_share_of_the_largest_value():
    check_upstream(encoder(NormalisesOtherwise), IMAGES, library, tolerance=0.1)


def test_a_library_may_change_its_images():
    def spoils(images: list[Image]) -> Tensor:
        given = library(images)
        for image in images:
            image.paste(0, (0, 0, *image.size))
        return given

    check_upstream(encoder(), IMAGES, spoils)


def test_a_library_that_gives_no_numbers_proves_nothing():
    with pytest.raises(AssertionError, match="upstream gives values that are not finite for Good's images"):
        check_upstream(encoder(), IMAGES, lambda images: library(images) / 0)


def test_no_image_proves_nothing():
    with pytest.raises(AssertionError, match="got no images"):
        check_upstream(encoder(), [], library)
