"""Against transformers itself, at seeded random weights; and what is said of files and options that cannot be."""

import importlib
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polyvex_ocr
import pytest
import torch
from PIL import Image, ImageDraw
from polyvex_layoutlmv3 import LayoutLMv3, LayoutLMv3Base, LayoutLMv3Options, Structure, TextLeftOut
from polyvex_layoutlmv3.text import load_tokenizer, to_scale, to_tokens
from polyvex_layoutlmv3.weights import resample_positions
from polyvex_ocr import Word, read_words
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import (
    LayoutLMv3ForTokenClassification,
    LayoutLMv3ImageProcessor,
    LayoutLMv3Model,
    LayoutLMv3Tokenizer,
)

from polyvex.encoders.inputs import run_encoder, stack_inputs
from polyvex.errors import PluginError, WeightsError

SMALL = Structure(
    dim=32, layers=3, heads=2, hidden=48, coordinate_dim=6, shape_dim=4, vocabulary=60, positions=66, token_types=1
)
LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz", "he", "Ġhe"]


class Small(LayoutLMv3):
    summary: ClassVar[str] = "a small one"
    structure: ClassVar[Structure] = SMALL
    repository: ClassVar[str] = "nobody/small"


def write_tokenizer(folder: Path) -> None:
    vocabulary = {letter: index for index, letter in enumerate(LETTERS)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nh e\nĠ he\n", encoding="utf-8")


def upstream(folder: Path, kind: Any = LayoutLMv3Model, **config: Any) -> Any:
    """transformers' own model with seeded weights, none of them at the value that it is made with."""
    torch.manual_seed(3)
    settings = SMALL.config(image_size=64, depth=3, text=True)
    for key, value in config.items():
        setattr(settings, key, value)
    model = kind(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


def built(folder: Path, **options: Any) -> LayoutLMv3:
    encoder = Small(LayoutLMv3Options(image_size=options.pop("image_size", 64), weights=str(folder), **options)).eval()
    encoder.load_pretrained()
    return encoder


def page() -> Image.Image:
    image = Image.new("RGB", (300, 200), (255, 250, 240))
    pen = ImageDraw.Draw(image)
    pen.text((20, 30), "hello world", fill="black", font_size=28)
    pen.text((20, 110), "paper", fill="black", font_size=28)
    return image


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_pixels_alone_give_transformers_tokens(layer: int, tmp_path: Path) -> None:
    model, encoder = upstream(tmp_path), built(tmp_path, layers=layer)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = model(pixel_values=pixels, output_hidden_states=True).hidden_states[layer + 1][:, 1:]
        got = encoder(pixels).values
    assert got.shape == (2, 16, 32)
    assert (got - wanted).abs().max() <= 1e-5
    assert len(encoder.network.encoder.layer) == layer + 1  # type: ignore[arg-type]


def test_words_give_transformers_tokens(tmp_path: Path) -> None:
    model, encoder = upstream(tmp_path), built(tmp_path, words="ocr", max_tokens=40)
    image = page()
    words = read_words(image)
    assert [word.text for word in words] == ["hello", "world", "paper"]
    # transformers' own way, without any padding, which must change nothing.
    scaled = [
        [int(1000 * edge / length) for edge, length in zip(word.box, (300, 200) * 2, strict=True)] for word in words
    ]
    tokenizer = LayoutLMv3Tokenizer.from_pretrained(str(tmp_path))
    encoded = tokenizer([word.text for word in words], boxes=scaled, return_tensors="pt")
    processor = LayoutLMv3ImageProcessor(apply_ocr=False, size={"height": 64, "width": 64})
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    given = encoder.transform(image)
    assert isinstance(given, dict)
    assert {name: tuple(value.shape) for name, value in given.items()} == {
        "pixels": (3, 64, 64),
        "words": (40,),
        "boxes": (40, 4),
        "mask": (40,),
    }
    assert (given["pixels"] - pixels[0]).abs().max() < 0.02  # of -1 to 1: both resize to whole numbers of 255
    with torch.inference_mode():
        wanted = model(**encoded, pixel_values=given["pixels"][None]).last_hidden_state[
            :, encoded["input_ids"].shape[1] + 1 :
        ]
        got = run_encoder(encoder, stack_inputs([given])).values
    assert got.shape == wanted.shape == (1, 16, 32)
    assert (got - wanted).abs().max() <= 1e-5


def test_words_change_the_tokens_of_patches(tmp_path: Path) -> None:
    upstream(tmp_path)
    encoder = built(tmp_path, words="ocr", max_tokens=40)
    given = encoder.transform(page())
    assert isinstance(given, dict)
    with torch.inference_mode():
        seen = run_encoder(encoder, stack_inputs([given])).values
        other = run_encoder(encoder, stack_inputs([{**given, "words": given["words"].flip(0)}])).values
        moved = run_encoder(encoder, stack_inputs([{**given, "boxes": 1000 - given["boxes"].flip(1)}])).values
    assert (seen - other).abs().max() > 1e-3
    assert (seen - moved).abs().max() > 1e-3


def test_layers_are_joined_in_their_order(tmp_path: Path) -> None:
    upstream(tmp_path)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        first, last = (built(tmp_path, layers=layer)(pixels).values for layer in (0, -1))
        assert torch.allclose(built(tmp_path, layers=[-1, 0])(pixels).values, torch.cat([last, first], -1), atol=1e-6)


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    model = upstream(tmp_path)
    keys = set(model.state_dict())
    alone = built(tmp_path, layers=0).load_pretrained()
    assert set(alone.unused) == {
        key for key in keys if key.startswith(("embeddings.", "encoder.layer.1.", "encoder.layer.2."))
    }
    assert set(alone.loaded) == (keys - set(alone.unused)) | {"visual_bbox"}
    both = built(tmp_path, words="ocr", max_tokens=10).load_pretrained()
    assert both.unused == []
    assert set(both.loaded) == keys | {"visual_bbox", "embeddings.position_ids"}


def test_a_checkpoint_with_a_head_is_read_too(tmp_path: Path) -> None:
    model = upstream(tmp_path, LayoutLMv3ForTokenClassification)
    encoder = built(tmp_path)
    assert {"classifier.weight", "classifier.bias"} <= set(encoder.load_pretrained().unused)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = model.layoutlmv3(pixel_values=pixels).last_hidden_state[:, 1:]
        assert (encoder(pixels).values - wanted).abs().max() <= 1e-5


def test_a_pickle_with_old_buffers_is_read_too(tmp_path: Path) -> None:
    upstream(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save({**state, "embeddings.position_ids": torch.zeros(1, 66).long()}, tmp_path / "pytorch_model.bin")
    encoder = built(tmp_path, words="ocr", max_tokens=10)
    report = encoder.load_pretrained()
    assert encoder.network.embeddings.position_ids.tolist() == [list(range(66))]
    assert report.unused == ["embeddings.position_ids"]
    assert report.source.endswith("pytorch_model.bin")


def test_positions_are_resampled_to_another_size(tmp_path: Path) -> None:
    model = upstream(tmp_path)
    encoder = built(tmp_path, image_size=96)
    report = encoder.load_pretrained()
    assert report.reshaped == ["pos_embed"]
    assert "pos_embed" not in report.loaded
    table = model.pos_embed[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    wanted = F.interpolate(table, size=(6, 6), mode="bicubic").permute(0, 2, 3, 1).reshape(1, 36, 32)
    assert torch.equal(encoder.network.pos_embed[:, 1:], wanted)
    assert torch.equal(encoder.network.pos_embed[:, :1], model.pos_embed[:, :1])
    assert encoder.network.visual_bbox[1:].tolist()[7] == [166, 166, 333, 333]  # row 1, column 1 of 6
    assert built(tmp_path).load_pretrained().reshaped == []


def test_positions_that_are_no_square_are_left_to_strict_loading() -> None:
    state = {"pos_embed": torch.zeros(1, 1 + 12, 4)}
    assert resample_positions(state, 5)["pos_embed"] is state["pos_embed"]


def small_tokenizer(folder: Path) -> Any:
    write_tokenizer(folder)
    return load_tokenizer(folder / "vocab.json", folder / "merges.txt", SMALL)


def test_tokens_by_hand(tmp_path: Path) -> None:
    words = [Word(text="he", box=(30, 20, 60, 40), confidence=1), Word(text="at", box=(-5, 20, 310, 40), confidence=1)]
    given = to_tokens(words, (300, 200), small_tokenizer(tmp_path), 8)
    # "he" is one token, for a space precedes each word: Ġhe; "at" is Ġ, a, t. Start is 0, end 2, padding 1.
    assert given["words"].tolist() == [0, LETTERS.index("Ġhe"), 5, LETTERS.index("a"), LETTERS.index("t"), 2, 1, 1]
    assert given["mask"].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    inside, cut, none = [100, 100, 200, 200], [0, 100, 1000, 200], [0, 0, 0, 0]
    assert given["boxes"].tolist() == [none, inside, cut, cut, cut, none, none, none]


def test_a_page_without_words_is_a_start_and_an_end(tmp_path: Path) -> None:
    given = to_tokens([], (300, 200), small_tokenizer(tmp_path), 4)
    assert given["words"].tolist() == [0, 2, 1, 1]
    assert given["boxes"].tolist() == [[0, 0, 0, 0]] * 4
    assert given["mask"].tolist() == [1, 1, 0, 0]


def test_text_without_a_place_is_counted_in_a_warning(tmp_path: Path) -> None:
    words = [Word(text="he", box=(0, 0, 150, 100), confidence=1)] * 5
    with pytest.warns(TextLeftOut, match="2 of the 5 tokens of an image's text are left out, because max_tokens is 5"):
        given = to_tokens(words, (300, 200), small_tokenizer(tmp_path), 5)
    he = LETTERS.index("Ġhe")
    assert given["words"].tolist() == [0, he, he, he, 2]
    assert given["boxes"].tolist()[-1] == [0, 0, 0, 0]


def test_scale_by_hand() -> None:
    assert to_scale((0, 50, 299.9, 200), (300, 200)) == [0, 250, 999, 1000]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "exif"])
def test_every_kind_of_page_is_read_alike(mode: str, tmp_path: Path) -> None:
    upstream(tmp_path)
    encoder = built(tmp_path, words="ocr", max_tokens=40)
    image = page()
    if mode == "I;16":
        other = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "exif":
        other = image.transpose(Image.Transpose.ROTATE_90)
        other.getexif()[0x0112] = 6
    else:
        other = image.convert(mode)
    wanted, got = encoder.transform(image), encoder.transform(other)
    assert isinstance(wanted, dict)
    assert isinstance(got, dict)
    assert got["words"].tolist() == wanted["words"].tolist()
    assert (got["boxes"] - wanted["boxes"]).abs().max() <= 20
    assert (got["pixels"].mean() - wanted["pixels"].mean()).abs() < 0.1


def test_lines_are_looked_for_at_the_side_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_high_as_the_detector_looks(image: Image.Image, *, side: int) -> list[Word]:
        return [Word(text="he", box=(0, 0, image.width, side / 10), confidence=1)]

    upstream(tmp_path)
    monkeypatch.setattr(polyvex_ocr, "read_words", as_high_as_the_detector_looks)
    given = built(tmp_path, words="ocr", max_tokens=10, detector_side=640).transform(page())
    assert isinstance(given, dict)
    assert given["boxes"][1].tolist() == [0, 0, 1000, 320]  # 64 of 200


def test_threads_may_transform_at_once(tmp_path: Path) -> None:
    upstream(tmp_path)
    encoder = built(tmp_path, words="ocr", max_tokens=40, detector_side=192)
    with ThreadPoolExecutor(max_workers=2) as pool:  # as the token cache does
        many = list(pool.map(lambda _: encoder.transform(page())["words"].tolist(), range(8)))  # type: ignore[call-overload]
    assert all(one == many[0] for one in many)
    assert many[0][1] != 2


@pytest.mark.parametrize("size", [(1, 1), (20000, 20)])
def test_odd_sizes_have_no_words(size: tuple[int, int], tmp_path: Path) -> None:
    upstream(tmp_path)
    given = built(tmp_path, words="ocr", max_tokens=10).transform(Image.new("RGB", size, "white"))
    assert isinstance(given, dict)
    assert given["words"].tolist() == [0, 2] + [1] * 8


def test_without_polyvex_ocr_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polyvex_ocr", None)
    Small(LayoutLMv3Options(image_size=64))
    with pytest.raises(PluginError, match=r"needs polyvex-ocr, .* pip install 'polyvex-layoutlmv3\[ocr\]'"):
        Small(LayoutLMv3Options(image_size=64, words="ocr", max_tokens=10))


def test_the_plugin_is_imported_without_polyvex_ocr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polyvex_ocr", None)
    assert importlib.reload(importlib.import_module("polyvex_layoutlmv3.text"))


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_tokenizer_is_told(name: str, tmp_path: Path) -> None:
    upstream(tmp_path)
    (tmp_path / name).unlink()
    said = f"words need the tokenizer's {name}, not found beside the weights at .* hf download nobody/small"
    with pytest.raises(WeightsError, match=said):
        built(tmp_path, words="ocr", max_tokens=10)
    with pytest.raises(WeightsError, match=said):
        Small(LayoutLMv3Options(image_size=64, words="ocr", max_tokens=10, weights=str(tmp_path))).transform(page())
    built(tmp_path)  # pixels alone need none


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    upstream(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(reversed(LETTERS))}))
    with pytest.raises(WeightsError, match="the tokenizer of another model: 34 tokens"):
        built(tmp_path, words="ocr", max_tokens=10)


def test_a_damaged_tokenizer_is_told(tmp_path: Path) -> None:
    upstream(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 1')
    with pytest.raises(WeightsError, match="not readable as a tokenizer"):
        built(tmp_path, words="ocr", max_tokens=10)


def test_a_configuration_that_differs_is_refused(tmp_path: Path) -> None:
    upstream(tmp_path, num_hidden_layers=4, rel_pos_bins=16)
    with pytest.raises(WeightsError, match="another architecture than this encoder's") as caught:
        built(tmp_path)
    assert "num_hidden_layers is 4, expected 3" in str(caught.value)
    assert "rel_pos_bins is 16, expected 32" in str(caught.value)
    assert str(caught.value).count("expected") == 2


def test_a_configuration_of_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    upstream(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"layoutlmv3"', '"layoutlmv2"'), encoding="utf-8")
    with pytest.raises(WeightsError, match="model_type is 'layoutlmv2', expected 'layoutlmv3'"):
        built(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"hidden_size": 32}'])
def test_a_configuration_that_is_none_is_told(content: str, tmp_path: Path) -> None:
    upstream(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"config.json: not a configuration of transformers"):
        built(tmp_path)


def test_the_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    upstream(tmp_path, intermediate_size=40)
    (tmp_path / "config.json").unlink()  # then the keys alone tell
    with pytest.raises(WeightsError, match="weights of another architecture"):
        built(tmp_path)


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    upstream(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not readable as weights, perhaps truncated"):
        built(tmp_path)


def test_a_path_may_be_the_file_itself(tmp_path: Path) -> None:
    upstream(tmp_path)
    assert built(tmp_path / "model.safetensors", words="ocr", max_tokens=10).load_pretrained().missing == []
    shutil.move(tmp_path / "model.safetensors", tmp_path / "other.safetensors")
    assert Small.weights(LayoutLMv3Options(weights=str(tmp_path))).path is None
    assert built(tmp_path / "other.safetensors").load_pretrained().missing == []


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    assert LayoutLMv3Base.weights(LayoutLMv3Options()).install.startswith("hf download microsoft/layoutlmv3-base")
    options = LayoutLMv3Options(image_size=64, weights=str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"no weights on this machine\. To get them: put a checkpoint of nobody"):
        Small(options).load_pretrained()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": 3}, "layers has 3; expected -3 to 2"),
        ({"layers": [0, -4]}, "layers has -4; expected -3 to 2"),
        ({"words": "ocr", "max_tokens": 65}, "max_tokens is 65; expected at most 64"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Small.describe(LayoutLMv3Options(image_size=64, **options))
