"""Both encoders keep their contract, depend on their options alone, and compute what can be worked out by hand."""

from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from PIL import Image
from polyvex_basics import ColorGrid, ColorGridOptions, Patchify, PatchifyOptions, register_encoders

from polyvex.encoders import EncoderOptions, VisionEncoder
from polyvex.testing import check_encoder


def test_the_entry_point_offers_both_encoders():
    [point] = entry_points(group="polyvex", name="basics")

    assert point.load().register_encoders() == register_encoders() == {"patchify": Patchify, "color-grid": ColorGrid}


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        (Patchify, PatchifyOptions()),
        (Patchify, PatchifyOptions(image_size=24, patch_size=3, dim=5, seed=7)),
        (Patchify, PatchifyOptions(image_size=4, patch_size=4, dim=1)),
        (ColorGrid, ColorGridOptions()),
        (ColorGrid, ColorGridOptions(image_size=32, rows=2, cols=8)),
        (ColorGrid, ColorGridOptions(image_size=8, rows=1, cols=1)),
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
    ],
)
def test_sizes_that_do_not_divide_are_refused(encoder: type[VisionEncoder], options: EncoderOptions, told: str):
    with pytest.raises(ValueError, match=told):
        encoder.describe(options)
    with pytest.raises(ValueError, match=told):
        encoder(options)


def test_patchify_is_a_function_of_its_options():
    torch.manual_seed(1)
    first = Patchify(PatchifyOptions(seed=3)).projection
    state = torch.get_rng_state()
    second = Patchify(PatchifyOptions(seed=3)).projection

    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state), "building must not draw from the global random state"
    assert not torch.equal(first, Patchify(PatchifyOptions(seed=4)).projection)


def test_patchify_reports_the_digest_of_its_values():
    reports = [Patchify(PatchifyOptions(seed=seed)).load_pretrained() for seed in (0, 0, 1)]

    assert reports[0].source == "(computed from the seed)"
    assert reports[0].sha256 == reports[1].sha256 != reports[2].sha256


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
