"""The encoder keeps its contract, with fresh weights and with the real ones, and refuses what cannot work."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import torch
from PIL import Image
from polyvex_dinov2 import DinoV2Small, DinoV2SmallOptions, register_encoders
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polyvex.testing import check_encoder


def test_the_entry_point_offers_the_encoder():
    [point] = entry_points(group="polyvex", name="dinov2")

    assert point.load().register_encoders() == register_encoders() == {"dinov2-s": DinoV2Small}


def test_importing_the_plugin_imports_nothing_heavy():
    code = "import polyvex_dinov2, sys; print([m for m in ('timm', 'onnx', 'torchvision') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_contract_with_fresh_weights():
    check_encoder(DinoV2Small, DinoV2SmallOptions(image_size=56))


@pytest.mark.parametrize(
    "options",
    [
        DinoV2SmallOptions(image_size=56),
        DinoV2SmallOptions(image_size=84, layer=3),
        DinoV2SmallOptions(image_size=56, layer=-2, norm=False),
    ],
    ids=["default", "fourth block", "last but one without norm"],
)
def test_contract_with_the_real_weights(options: DinoV2SmallOptions):
    check_encoder(DinoV2Small, options, pretrained=True)


def test_facts_of_the_default():
    facts = DinoV2Small.describe(DinoV2SmallOptions())

    assert (facts.shape.tokens, facts.shape.dim, str(facts.shape.grid)) == (256, 384, "16x16")
    # The published network has a mask token, for training, and positions for 37 × 37 patches.
    assert facts.parameters == 22_056_576 - 384 - (37 * 37 - 16 * 16) * 384


@pytest.mark.parametrize("size", [100, 223, 15])
def test_an_image_size_that_patches_do_not_divide_is_refused(size: int):
    with pytest.raises(ValueError, match=f"image_size is {size}; expected a multiple of 14, such as "):
        DinoV2Small.describe(DinoV2SmallOptions(image_size=size))
    with pytest.raises(ValueError, match="expected a multiple of 14"):
        DinoV2Small(DinoV2SmallOptions(image_size=size))


@pytest.mark.parametrize(
    "options", [{"layer": 12}, {"layer": -13}, {"image_size": 0}, {"image_size": "224"}, {"depth": 3}]
)
def test_options_out_of_range_are_refused(options: dict[str, object]):
    with pytest.raises(ValidationError):
        DinoV2SmallOptions.model_validate(options)


@pytest.mark.parametrize(("positive", "negative"), [(0, -12), (5, -7), (11, -1)])
def test_a_layer_may_be_counted_from_either_end(positive: int, negative: int):
    facts = [DinoV2Small.describe(DinoV2SmallOptions(layer=layer)) for layer in (positive, negative)]

    assert facts[0] == facts[1]
    assert DinoV2SmallOptions(layer=negative).blocks == positive + 1


def test_every_option_has_an_effect():
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    outputs = []
    for options in ({}, {"layer": 4}, {"norm": False}):
        encoder = DinoV2Small(DinoV2SmallOptions(image_size=56, **options)).eval()
        encoder.load_pretrained()
        with torch.no_grad():
            outputs.append(encoder(pixels).values)

    assert not torch.allclose(outputs[0], outputs[1], atol=0.1)
    assert not torch.allclose(outputs[0], outputs[2], atol=0.1)


def test_colours_are_normalised_as_in_imagenet():
    encoder = DinoV2Small(DinoV2SmallOptions(image_size=28, layer=0))

    pixels = encoder.transform(Image.new("RGB", (50, 40), (255, 0, 51)))

    wanted = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert pixels[:, 7, 9].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("options", [{"image_size": 56}, {"image_size": 224, "layer": 2}])
def test_the_cost_is_exact(options: dict[str, int]):
    facts = DinoV2Small.describe(DinoV2SmallOptions(**options))
    encoder = DinoV2Small(DinoV2SmallOptions(**options)).eval()

    # The counter does not know the CPU's fused attention, so attention runs as plain matrix products here.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 3, *facts.image_size))

    assert counter.get_total_flops() == facts.flops
