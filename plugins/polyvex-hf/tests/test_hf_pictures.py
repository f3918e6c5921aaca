"""Pixels against transformers' own image processors, and files of image processors as transformers wrote them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from polyvex_hf import HfEncoder, HfOptions
from polyvex_hf.pictures import find_pictures, read_settings
from polyvex_hf.processors import CONSTANTS, PROCESSORS

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

OWN: dict[str, Any] = {
    "clip": hf.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=64),
    "dinov2": hf.BitImageProcessorPil(size={"shortest_edge": 73}, crop_size=64, **IMAGENET),
    "deit": hf.DeiTImageProcessorPil(size={"height": 73, "width": 73}, crop_size=64, **IMAGENET),
    "vit": hf.ViTImageProcessorPil(size={"height": 64, "width": 64}),
    "siglip": hf.SiglipImageProcessorPil(size={"height": 64, "width": 64}),
    "beit": hf.BeitImageProcessorPil(size={"height": 64, "width": 64}),
    "convnext": hf.ConvNextImageProcessorPil(size={"shortest_edge": 64}, **IMAGENET),
}


def picture(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


def by_transformers(processor: Any, image: Image.Image) -> torch.Tensor:
    return torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"][0]))


def vit_with(processor: Any, folder: Path, side: int = 64) -> HfEncoder:
    config = hf.ViTConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=side, patch_size=16
    )
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return HfEncoder(HfOptions(checkpoint=str(folder), layers=0, resize="crop"))


@pytest.mark.parametrize("size", [(90, 70), (51, 200), (64, 64), (30, 31)])
@pytest.mark.parametrize("kind", OWN)
def test_crop_is_the_checkpoints_own_image_processor(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    image = picture(*size)
    pixels = vit_with(OWN[kind], tmp_path).transform(image)
    wanted = by_transformers(OWN[kind], image)
    assert pixels.shape == wanted.shape == (3, 64, 64)
    assert torch.allclose(pixels, wanted, atol=1e-5)


def test_convnext_cuts_nothing_from_384_pixels_on(tmp_path: Path) -> None:
    processor = hf.ConvNextImageProcessorPil(size={"shortest_edge": 384})
    image = picture(400, 300)
    pixels = vit_with(processor, tmp_path, side=384).transform(image)
    assert torch.allclose(pixels, by_transformers(processor, image), atol=1e-5)


def test_dinov3_resizes_without_rounding(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")  # transformers has this processor on torchvision only
    processor = hf.DINOv3ViTImageProcessor(size={"height": 64, "width": 64})
    image = picture(90, 70)
    wanted = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(vit_with(processor, tmp_path).transform(image), wanted, atol=1e-5)


def test_another_size_is_cut_in_proportion(tmp_path: Path) -> None:
    hf.ViTConfig(num_hidden_layers=1, image_size=128).save_pretrained(tmp_path)
    OWN["dinov2"].save_pretrained(tmp_path)
    encoder = HfEncoder(HfOptions(checkpoint=str(tmp_path), layers=0, resize="crop"))
    twice = hf.BitImageProcessorPil(size={"shortest_edge": 146}, crop_size=128, **IMAGENET)
    image = picture(300, 200)
    assert torch.allclose(encoder.transform(image), by_transformers(twice, image), atol=1e-5)


def test_squash_keeps_all_of_the_image_with_the_files_numbers(tmp_path: Path) -> None:
    encoder = vit_with(OWN["dinov2"], tmp_path)
    squash = HfEncoder(HfOptions(checkpoint=str(tmp_path), layers=0))
    image = Image.new("RGB", (100, 50), "black")
    image.paste("white", (0, 0, 8, 50))  # a stripe at the border, which a crop loses
    assert (squash.transform(image)[:, :, 0] > 2).all()
    assert (encoder.transform(image)[:, :, 0] < 0).all()
    noise = picture(90, 70)
    small = np.asarray(noise.resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    mean, std = np.array(IMAGENET["image_mean"]), np.array(IMAGENET["image_std"])
    wanted = torch.from_numpy((small - mean) / std).permute(2, 0, 1).float()
    assert torch.allclose(squash.transform(noise), wanted, atol=1e-5)
    facts = [type(one).describe(one.options) for one in (encoder, squash)]
    assert [one.crops for one in facts] == [True, False]


def test_defaults_are_those_of_transformers_classes() -> None:
    for kind, settings in PROCESSORS.items():
        made: Any = getattr(hf, f"{kind}ImageProcessorPil", None) or getattr(hf, f"{kind}ImageProcessor")
        stored = json.loads(made().to_json_string())
        assert read_settings({"image_processor_type": kind}, default=None) == read_settings(
            {**stored, "image_processor_type": made.__name__}, default=None
        ), kind
        assert settings["image_mean"] == pytest.approx(stored["image_mean"])


def test_files_from_before_are_read() -> None:
    clip = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 336, "resample": 3}
    pictures = read_settings(clip, default=None)
    assert (pictures.resized, pictures.cut, pictures.keeps_aspect) == (336, 336, True)
    vit = read_settings({"feature_extractor_type": "ViTFeatureExtractor", "size": 224}, default=None)
    assert (vit.keeps_aspect, vit.mean, vit.resample) == (False, (0.5, 0.5, 0.5), 2)
    assert read_settings({"size": 224}, default="Siglip").resample == 3
    plain = read_settings({"image_processor_type": "ViTImageProcessorFast", "do_normalize": False}, default=None)
    assert (plain.mean, plain.std) == ((0, 0, 0), (1, 1, 1))


def test_without_a_file_the_familys_constants_hold() -> None:
    assert find_pictures(None, "clip_vision_model").mean[0] == pytest.approx(0.48145466)
    assert find_pictures(None, "siglip_vision_model").mean == (0.5, 0.5, 0.5)
    dinov2 = find_pictures(None, "dinov2")
    assert (dinov2.resized, dinov2.cut, dinov2.mean[0]) == (256, 224, 0.485)
    assert {find_pictures(None, family).std for family in CONSTANTS}
    with pytest.raises(ValueError, match="of the family 'ijepa' are not known"):
        find_pictures(None, "ijepa")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_processor_type": "PoolFormerImageProcessor"}, "its class is 'PoolFormerImageProcessor'; known are"),
        ({"do_resize": False}, "do_resize is false"),
        ({"do_pad": True}, "it pads"),
        ({"rescale_factor": 1 / 127.5}, "does not scale values to 0-1"),
        ({"size": {"height": 64, "width": 32}}, "height and width of a square"),
        ({"size": {"shortest_edge": 64}}, "keeps the aspect ratio and does not cut"),
        ({"do_center_crop": True, "crop_size": 300}, "black borders"),
    ],
)
def test_steps_that_would_be_left_out_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViT", **settings}))
    with pytest.raises(ValueError, match="cannot follow this image processor") as caught:
        find_pictures(tmp_path, "vit")
    assert said in str(caught.value)


def test_a_rectangle_is_not_cut(tmp_path: Path) -> None:
    vit_with(OWN["clip"], tmp_path)
    options = HfOptions(checkpoint=str(tmp_path), layers=0, resize="crop", image_size=[64, 32])
    with pytest.raises(ValueError, match="cuts squares for this checkpoint"):
        HfEncoder.describe(options)
    vit_with(OWN["vit"], tmp_path)
    assert HfEncoder.describe(options).image_size == (64, 32)
