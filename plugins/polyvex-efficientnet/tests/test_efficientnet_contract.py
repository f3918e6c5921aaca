"""The encoder keeps its contract, with fresh weights and with the real ones, and refuses what cannot work."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from PIL import Image
from polyvex_efficientnet import EfficientNetLite0, EfficientNetLite0Options, register_encoders
from pydantic import ValidationError

from polyvex.testing import check_encoder


def test_the_entry_point_offers_the_encoder():
    [point] = entry_points(group="polyvex", name="efficientnet")

    assert point.load().register_encoders() == register_encoders() == {"efficientnet-lite0": EfficientNetLite0}


def test_importing_the_plugin_imports_nothing_heavy():
    code = "import polyvex_efficientnet, sys; print([m for m in ('timm', 'torchvision') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("stride", "size"), [(8, 32), (16, 64), (32, 128)])
def test_contract_with_the_real_weights(stride: int, size: int):
    options = EfficientNetLite0Options.model_validate({"stride": stride, "image_size": size})

    check_encoder(EfficientNetLite0, options, pretrained=True)


def test_contract_with_fresh_weights():
    check_encoder(EfficientNetLite0, EfficientNetLite0Options(image_size=96))


@pytest.mark.parametrize(("stride", "dim", "grid"), [(8, 40, "28x28"), (16, 112, "14x14"), (32, 320, "7x7")])
def test_facts_by_stride(stride: int, dim: int, grid: str):
    facts = EfficientNetLite0.describe(EfficientNetLite0Options.model_validate({"stride": stride}))

    assert (facts.shape.dim, str(facts.shape.grid)) == (dim, grid)


@pytest.mark.parametrize("size", [100, 48, 33])
def test_an_image_size_that_the_network_cannot_halve_is_refused(size: int):
    with pytest.raises(ValueError, match=f"image_size is {size}; expected a multiple of 32, such as "):
        EfficientNetLite0.describe(EfficientNetLite0Options(image_size=size))


@pytest.mark.parametrize("options", [{"stride": 4}, {"stride": "16"}, {"image_size": 16}, {"layer": 3}])
def test_options_out_of_range_are_refused(options: dict[str, object]):
    with pytest.raises(ValidationError):
        EfficientNetLite0Options.model_validate(options)


def test_colours_are_scaled_to_one_around_zero():
    encoder = EfficientNetLite0(EfficientNetLite0Options(image_size=32))

    pixels = encoder.transform(Image.new("RGB", (50, 40), (255, 0, 51)))

    assert pixels[:, 7, 9].tolist() == pytest.approx([1.0, -1.0, -0.6], abs=1e-5)
