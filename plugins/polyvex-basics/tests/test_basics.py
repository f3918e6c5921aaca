"""The encoders keep their contract, depend on their options alone, and compute what can be worked out by hand."""

import hashlib
import math
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from PIL import Image
from polyvex_basics import (
    ColorGrid,
    ColorGridOptions,
    Patchify,
    PatchifyOptions,
    RandomFeatures,
    RandomFeaturesOptions,
    register_encoders,
)

from polyvex.encoders import EncoderOptions, VisionEncoder
from polyvex.testing import check_encoder


def test_the_entry_point_offers_all_encoders():
    [point] = entry_points(group="polyvex", name="basics")

    wanted = {"patchify": Patchify, "color-grid": ColorGrid, "random-features": RandomFeatures}
    assert point.load().register_encoders() == register_encoders() == wanted


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        (Patchify, PatchifyOptions()),
        (Patchify, PatchifyOptions(image_size=24, patch_size=3, dim=5, seed=7)),
        (Patchify, PatchifyOptions(image_size=4, patch_size=4, dim=1)),
        (ColorGrid, ColorGridOptions()),
        (ColorGrid, ColorGridOptions(image_size=32, rows=2, cols=8)),
        (ColorGrid, ColorGridOptions(image_size=8, rows=1, cols=1)),
        (RandomFeatures, RandomFeaturesOptions()),
        (RandomFeatures, RandomFeaturesOptions(image_size=32, depth=3, dim=16, seed=5)),
        (RandomFeatures, RandomFeaturesOptions(image_size=24, depth=1, dim=1)),
    ],
    ids=str,
)
def test_contract(encoder: type[VisionEncoder], options: EncoderOptions):
    check_encoder(encoder, options)
    check_encoder(encoder, options, pretrained=True)


@pytest.mark.parametrize(
    ("encoder", "options", "told"),
    [
        (Patchify, PatchifyOptions(image_size=64, patch_size=10), "image_size 64 is not a multiple of patch_size 10"),
        (ColorGrid, ColorGridOptions(rows=5), "image_size 64 is not a multiple of rows, which is 5"),
        (ColorGrid, ColorGridOptions(cols=7), "image_size 64 is not a multiple of cols, which is 7"),
        (ColorGrid, ColorGridOptions(image_size=4, rows=8), "image_size 4 is not a multiple of rows, which is 8"),
        (
            RandomFeatures,
            RandomFeaturesOptions(image_size=40),
            "image_size 40 is not a multiple of 2.depth, which is 16",
        ),
    ],
)
def test_sizes_that_do_not_divide_are_refused(encoder: type[VisionEncoder], options: EncoderOptions, told: str):
    with pytest.raises(ValueError, match=told):
        encoder.describe(options)
    with pytest.raises(ValueError, match=told):
        encoder(options)


SEEDED = [(Patchify, PatchifyOptions), (RandomFeatures, RandomFeaturesOptions)]


@pytest.mark.parametrize(("encoder", "options"), SEEDED)
def test_values_are_a_function_of_the_options(encoder: type[VisionEncoder], options: type[EncoderOptions]):
    def values(seed: int) -> torch.Tensor:
        return torch.cat([value.flatten() for value in encoder(options(seed=seed)).parameters()])

    torch.manual_seed(1)
    first = values(3)
    state = torch.get_rng_state()
    second = values(3)

    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state), "building must not draw from the global random state"
    assert not torch.equal(first, values(4))


@pytest.mark.parametrize(("encoder", "options"), SEEDED)
def test_the_digest_is_of_the_values(encoder: type[VisionEncoder], options: type[EncoderOptions]):
    reports = [encoder(options(seed=seed)).load_pretrained() for seed in (0, 0, 1)]

    assert reports[0].source == "(computed from the seed)"
    assert reports[0].sha256 == reports[1].sha256 != reports[2].sha256


def test_values_of_a_seed_stay_what_they_are():
    """Tokens are cached by the digest, so another order of drawing would be another encoder."""
    encoder = Patchify(PatchifyOptions(seed=3, dim=5))
    wanted = torch.randn(5, 3 * 16 * 16, generator=torch.Generator().manual_seed(3)) / (3 * 16 * 16) ** 0.5

    assert torch.equal(encoder.projection, wanted)
    assert encoder.load_pretrained().sha256 == hashlib.sha256(wanted.numpy().tobytes()).hexdigest()


def test_patchify_multiplies_each_patch_channel_by_channel_and_row_by_row():
    encoder = Patchify(PatchifyOptions(image_size=4, patch_size=2, dim=3))
    pixels = torch.arange(48.0).reshape(1, 3, 4, 4)
    # The patch at row 0, column 1: rows 0 and 1, columns 2 and 3, of each channel (16 numbers further on).
    patch = torch.tensor([2.0, 3, 6, 7, 18, 19, 22, 23, 34, 35, 38, 39])

    values = encoder(pixels).values

    assert torch.allclose(values[0, 1], encoder.projection @ patch)


def test_patchify_keeps_the_size_of_values():
    """White noise of deviation 1 stays so, whatever the patch size."""
    encoder = Patchify(PatchifyOptions(image_size=128, patch_size=8, dim=256))

    values = encoder(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))).values

    assert values.std().item() == pytest.approx(1.0, abs=0.05)


def test_color_grid_by_hand():
    """Left half red; right half of columns black, white, black, white: mean 0.5, deviation 0.5 in each channel."""
    array = np.zeros((4, 8, 3), dtype=np.uint8)
    array[:, :4] = (255, 0, 0)
    array[:, 5::2] = 255
    encoder = ColorGrid(ColorGridOptions(image_size=8, rows=1, cols=2))

    values = encoder(encoder.transform(Image.fromarray(array).resize((8, 8), Image.Resampling.NEAREST))[None]).values[0]

    assert torch.allclose(values[0], torch.tensor([1.0, 0, 0, 0, 0, 0]), atol=1e-6)
    assert torch.allclose(values[1], torch.full((6,), 0.5), atol=1e-6)


def test_color_grid_has_no_weights():
    encoder = ColorGrid(ColorGridOptions())
    other = ColorGrid(ColorGridOptions(rows=2))

    assert encoder.state_dict() == {}
    assert encoder.load_pretrained().sha256 != other.load_pretrained().sha256


def test_random_features_by_hand():
    """One filter copies the pixel above in green, the other its negative. ReLU keeps one sign, pooling the mean."""
    encoder = RandomFeatures(RandomFeaturesOptions(image_size=4, depth=1, dim=2))
    with torch.no_grad():
        encoder.filters[0].zero_()
        encoder.filters[0][0, 1, 0, 1] = 1.0
        encoder.filters[0][1, 1, 0, 1] = -1.0
    pixels = torch.zeros(1, 3, 4, 4)
    pixels[0, 1] = torch.tensor([[4.0, -8, 0, 0], [0, 0, 0, 0], [0, 0, 0, 12], [0, 0, 0, 0]])

    values = encoder(pixels).values[0]

    # Rows move down by one, and the first is padded with zero: 4 and -8 stay in the upper left, 12 in the lower right.
    assert values.tolist() == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [3.0, 0.0]]


def test_each_layer_of_random_features_sees_further():
    """A token is a mean over 2, whose filters see 1 more on either side: 4 pixels. Then 2·4 + 2, and 2·10 + 2."""
    for depth, reach in ((1, 4), (2, 10), (3, 22)):
        encoder = RandomFeatures(RandomFeaturesOptions(image_size=64, depth=depth, dim=8))
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        middle = encoder.grid.tokens // 2 + encoder.grid.cols // 2
        encoder(pixels).values[0, middle].sum().backward()
        assert pixels.grad is not None
        assert (pixels.grad.abs().sum(dim=(0, 1, 2)) > 0).sum() == reach


def test_random_features_keep_the_size_of_values():
    """He's deviation keeps the mean square of white noise at 1 through filter and ReLU; its mean is then 1/√π, so
    the mean over four has the mean square 1/π + (1 - 1/π)/4."""
    encoder = RandomFeatures(RandomFeaturesOptions(image_size=128, depth=1, dim=256))

    values = encoder(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))).values

    assert values.square().mean().item() == pytest.approx(1 / math.pi + (1 - 1 / math.pi) / 4, rel=0.05)


def test_every_option_of_random_features_has_an_effect():
    options = ({}, {"image_size": 128}, {"depth": 3}, {"dim": 32}, {"seed": 1})
    pixels = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    outputs = []
    for changed in options:
        encoder = RandomFeatures(RandomFeaturesOptions(**changed))
        side = encoder.options.image_size
        outputs.append(encoder(pixels[..., :side, :side]).values)

    assert [tuple(output.shape[1:]) for output in outputs] == [(16, 64), (64, 64), (64, 64), (16, 32), (16, 64)]
    assert not torch.allclose(outputs[0], outputs[4], atol=0.1)
