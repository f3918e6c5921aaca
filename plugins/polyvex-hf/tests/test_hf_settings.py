"""Every layout in which transformers stores an image processor, read as transformers reads it."""

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
from polyvex_hf.settings import NESTED, OWN, find_settings

from polyvex.cache.place import digest_of

VIT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "patch_size": 16}
FIRST: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 72},
    "crop_size": {"height": 64, "width": 64},
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.9, 0.8, 0.7],
    "resample": 2,
}
SECOND = {**FIRST, "image_mean": [0.4, 0.5, 0.6], "resample": 3}

LAYOUTS: dict[str, dict[str, Any]] = {
    "own file": {OWN: FIRST},
    "nested": {NESTED: {"processor_class": "CLIPProcessor", "image_processor": FIRST}},
    "nested beside its own": {NESTED: {"image_processor": FIRST}, OWN: SECOND},
    "old processor_config": {NESTED: {"processor_class": "CLIPProcessor", "image_seq_length": 4}, OWN: FIRST},
    "null nested": {NESTED: {"image_processor": None}, OWN: FIRST},
}
"""Files by name, each of which transformers writes or wrote; FIRST is the one that counts."""


def checkpoint(folder: Path, files: dict[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    hf.ViTConfig(**VIT, image_size=64).save_pretrained(folder)
    for name, settings in files.items():
        (folder / name).write_text(json.dumps(settings), encoding="utf-8")
    return str(folder)


def encoder_of(folder: Path, files: dict[str, Any]) -> HfEncoder:
    return HfEncoder(HfOptions(checkpoint=checkpoint(folder, files), layers=0, resize="crop"))


def picture() -> Image.Image:
    return Image.effect_noise((90, 75), 60).convert("RGB")


def by_transformers(folder: Path, image: Image.Image) -> torch.Tensor:
    processor = hf.AutoImageProcessor.from_pretrained(str(folder), backend="pil", local_files_only=True)
    return torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"][0]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_are_those_of_transformers_in_each_layout(layout: str, tmp_path: Path) -> None:
    image = picture()
    pixels = encoder_of(tmp_path, LAYOUTS[layout]).transform(image)
    assert torch.allclose(pixels, by_transformers(tmp_path, image), atol=1e-5)
    expected, _ = hf.CLIPImageProcessorPil.get_image_processor_dict(str(tmp_path), local_files_only=True)
    found = find_settings(tmp_path)
    assert found
    assert found[1] == expected == FIRST


def test_what_transformers_itself_writes_is_read(tmp_path: Path) -> None:
    """The nested layout of a whole processor, and the own file of an image processor."""
    image_processor = hf.CLIPImageProcessorPil(**{key: FIRST[key] for key in list(FIRST)[1:]})
    tokenizer = hf.CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[])
    for writer, name in ((hf.CLIPProcessor(image_processor, tokenizer), NESTED), (image_processor, OWN)):
        folder = tmp_path / name
        writer.save_pretrained(folder)
        assert {NESTED, OWN} & {path.name for path in folder.iterdir()} == {name}
        image = picture()
        assert torch.allclose(encoder_of(folder, {}).transform(image), by_transformers(folder, image), atol=1e-5)


@pytest.mark.parametrize("name", [NESTED, OWN, "config.json"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the folder", "with weights elsewhere"])
def test_cached_tokens_depend_on_each_file(name: str, elsewhere: bool, tmp_path: Path) -> None:
    checkpoint(tmp_path / "c", {NESTED: {"image_processor": FIRST}, OWN: FIRST})
    weights = tmp_path / ("own.safetensors" if elsewhere else "c/model.safetensors")
    weights.write_bytes(b"weights")
    options = HfOptions(checkpoint=str(tmp_path / "c"), weights=str(weights) if elsewhere else "")
    before = digest_of(HfEncoder.weights(options))
    path = tmp_path / "c" / name
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert digest_of(HfEncoder.weights(options)) != before


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("CLIP", {"size": 72, "crop_size": 64}),
        ("CLIP", {"size": {"height": 72, "width": 72}}),
        ("CLIP", {"do_center_crop": False, "size": {"height": 64, "width": 64}}),
        ("CLIP", {"do_normalize": False}),
        ("CLIP", {"do_convert_rgb": False}),
        ("CLIP", {"image_mean": 0.5, "image_std": 0.25}),
        ("CLIP", {"resample": 0}),
        ("CLIP", {"resample": 1}),
        ("CLIP", {"resample": 4}),
        ("ViT", {"size": 64, "crop_size": None}),
        ("ViT", {"size": [64, 64], "crop_size": None}),
        ("Siglip", {"size": {"height": 64, "width": 64}, "crop_size": None}),
        ("Beit", {"size": 72, "do_center_crop": True}),
        ("Bit", {"size": 72}),
        ("ConvNext", {"size": {"shortest_edge": 64}, "crop_pct": 0.9, "crop_size": None}),
        ("ConvNext", {"size": 64, "crop_pct": 0.5, "crop_size": None}),
    ],
)
def test_values_mean_what_they_mean_in_transformers(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    settings = {**FIRST, "image_processor_type": f"{kind}ImageProcessor", **changes}
    settings = {key: value for key, value in settings.items() if value is not None}
    image = picture()
    pixels = encoder_of(tmp_path, {NESTED: {"image_processor": settings}}).transform(image)
    assert torch.allclose(pixels, by_transformers(tmp_path, image), atol=1e-5)


def test_a_filter_may_have_its_name() -> None:
    assert read_settings({**FIRST, "resample": "BICUBIC"}, default=None).resample == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": [0.5]}, r"image_mean is \[0.5\]; expected three numbers"),
        ({"image_std": [0.5, 0.5, 0.5, 0.5]}, "expected three positive numbers"),
        ({"image_mean": ["a", 0.5, 0.5]}, "expected three numbers"),
        ({"image_std": [1.0, 0.0, 1.0]}, "image_std"),
        ({"image_std": -0.5}, "expected three positive numbers"),
        ({"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0}, "crop_pct is 0; expected a share"),
        ({"resample": 9}, "resample is 9; expected one of 0"),
        ({"resample": "sharp"}, "resample is 'sharp'"),
        ({"do_rescale": False}, "do_rescale is false"),
        ({"rescale_factor": 1 / 128}, "does not scale values to 0-1"),
        ({"size": {"longest_edge": 64}}, "its size is"),
        ({"size": {"shortest_edge": "64"}}, "its size is"),
        ({"size": {"shortest_edge": 64, "longest_edge": 128}}, "its size is"),
        ({"crop_size": {"height": 32, "width": 64}}, "its crop_size is"),
        ({"do_center_crop": False}, "keeps the aspect ratio"),
    ],
)
def test_values_that_cannot_be_followed_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint(tmp_path, {NESTED: {"image_processor": {**FIRST, **changes}}})
    with pytest.raises(ValueError, match=message) as caught:
        find_pictures(tmp_path, "vit")
    assert str(tmp_path / NESTED) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"image_processor": [1]}', "\udcff"])
@pytest.mark.parametrize("name", [NESTED, OWN])
def test_a_damaged_file_is_named(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=name):
        find_pictures(tmp_path, "ijepa")
