"""Against onnxruntime on the wheel's own files, and against rapidocr where it can be imported."""

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFont
from polyvex_ocr import OcrRegions, OcrRegionsOptions, OcrWords, OcrWordsOptions, WordsLeftOut, read_words
from polyvex_ocr.files import DETECTOR, DETECTOR_NECK, RECOGNIZER, GraphFile
from torch.nn import functional as F

from polyvex.errors import WeightsError

TEXT = ["Invoice 2024 total", "seven green windows", "the lazy dog"]


def page() -> Image.Image:
    """Three lines of three words, in colours: grey would hide an exchange of red and blue."""
    image = Image.new("RGB", (500, 400), (255, 250, 200))
    pen = ImageDraw.Draw(image)
    for row, (size, line) in enumerate(zip((24, 32, 18), TEXT, strict=True)):
        font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
        pen.text((20, 15 + 75 * row), line, fill=(90, 0, 0), font=font)
    return image


@lru_cache
def loaded(options: OcrWordsOptions) -> OcrWords:
    encoder = OcrWords(options)
    encoder.load_pretrained()
    return encoder


def encode(options: OcrWordsOptions, image: Image.Image) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The tokens of one image, and what the transform gave."""
    encoder = loaded(options)
    given = encoder.transform(image)
    assert isinstance(given, dict)
    return encoder(**{name: value[None] for name, value in given.items()}).values[0], given


def test_regions_lead_to_the_files_own_map() -> None:
    encoder = OcrRegions(OcrRegionsOptions(image_size=64, pool=1))
    encoder.load_pretrained()
    pixels = encoder.transform(page())[None]
    tokens = encoder(pixels).values
    features = tokens.mT.reshape(1, 96, 16, 16)
    # The head of the graph, by its own weights: from the features to the map of probabilities.
    nodes = onnx.load(str(DETECTOR.find(""))).graph.node
    held = {
        node.output[0]: torch.from_numpy(numpy_helper.to_array(node.attribute[0].t).copy())
        for node in nodes
        if node.op_type == "Constant"
    }

    def normed(values: torch.Tensor, name: str) -> torch.Tensor:
        scale, shift, mean, variance = (held[f"{name}.{part}"] for part in ("w_0", "b_0", "w_1", "w_2"))
        return F.batch_norm(values, mean, variance, scale, shift).relu()

    values = normed(F.conv2d(features, held["conv2d_159.w_0"], padding=1), "batch_norm_0")
    values = F.conv_transpose2d(values, held["conv2d_transpose_0.w_0"], stride=2)
    values = normed(values + held["conv2d_transpose_0.b_0"], "batch_norm_1")
    values = F.conv_transpose2d(values, held["conv2d_transpose_1.w_0"], stride=2) + held["conv2d_transpose_1.b_0"]
    session = onnxruntime.InferenceSession(str(DETECTOR.find("")), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": pixels.flip(1).numpy()})
    assert np.allclose(values.sigmoid().numpy(), wanted, atol=1e-4)


def test_regions_are_averaged_over_squares_of_the_map() -> None:
    fine, coarse = (OcrRegions(OcrRegionsOptions(image_size=64, pool=pool)) for pool in (1, 4))
    for encoder in (fine, coarse):
        encoder.load_pretrained()
    pixels = fine.transform(page())[None]
    one, other = fine(pixels).values[0].reshape(16, 16, 96), coarse(pixels).values[0].reshape(4, 4, 96)
    assert torch.allclose(other[1, 2], one[4:8, 8:12].mean((0, 1)), atol=1e-5)


def test_word_tokens_hold_the_boxes_of_read_words() -> None:
    image = page()
    words = read_words(image)
    assert [word.text for word in words] == " ".join(TEXT).split()
    tokens, _ = encode(OcrWordsOptions(max_words=12), image)
    boxes = torch.tensor([word.box for word in words]) / torch.tensor([500.0, 400.0, 500.0, 400.0])
    assert torch.allclose(tokens[: len(words), 120:124], boxes, atol=1e-4)
    assert tokens[:, 124].tolist() == [1.0] * len(words) + [0.0] * (12 - len(words))
    assert not tokens[len(words) :].any()


def test_word_features_are_the_recognizers_own() -> None:
    tokens, given = encode(OcrWordsOptions(max_words=12), page())
    width = int(given["widths"][0])
    strip = given["lines"][0, :, :, :width].numpy().astype(np.float32)[::-1] / 127.5 - 1
    padded = np.zeros((1, 3, 48, -(-width // 320) * 320), dtype=np.float32)
    padded[0, :, :, :width] = strip
    model = onnx.load(str(RECOGNIZER.find("")))
    model.graph.output.append(onnx.ValueInfoProto(name="swish_17.tmp_0"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (features,) = session.run(["swish_17.tmp_0"], {"x": padded})
    left, _, right, _ = given["boxes"][0].tolist()
    for word in tokens[:3]:  # all of this line
        start, stop = ((edge - left) / (right - left) * width / 8 for edge in word[[120, 122]].tolist())
        wanted = np.asarray(features)[0, :, 0, int(start + 1e-3) : int(np.ceil(stop - 1e-3))].mean(axis=1)
        assert np.allclose(word[:120].numpy(), wanted, atol=1e-4)


def test_other_words_give_other_tokens() -> None:
    options = OcrWordsOptions(max_words=12)
    assert not encode(options, Image.new("RGB", (500, 400), "white"))[0].any()
    first, second = encode(options, page())[0][:2, :120]
    assert torch.cosine_similarity(first, second, dim=0) < 0.99


def test_words_without_a_place_are_counted_in_a_warning() -> None:
    said = "ocr-words: 4 of 9 words of an image are left out, because max_words is 5"
    with pytest.warns(WordsLeftOut, match=said):
        tokens, _ = encode(OcrWordsOptions(max_words=5), page())
    assert tokens[:, 124].tolist() == [1.0] * 5


def test_lines_without_a_place_are_counted_in_a_warning() -> None:
    said = "ocr-words: 2 of 3 lines of text of an image are left out, because max_words is 1"
    with pytest.warns(WordsLeftOut, match=said):
        OcrWords(OcrWordsOptions(max_words=1)).transform(page())


def test_sure_words_only() -> None:
    assert not encode(OcrWordsOptions(min_confidence=1.0), page())[0].any()


def rapidocr() -> Any:
    """rapidocr's own pipeline; it needs OpenCV and more, which this plugin does not."""
    for name in ("cv2", "pyclipper", "shapely", "yaml", "rapidocr_onnxruntime"):
        pytest.importorskip(name)
    return importlib.import_module("rapidocr_onnxruntime").RapidOCR(use_cls=False)


def test_text_and_places_are_those_of_rapidocr() -> None:
    found, _ = rapidocr()(np.asarray(page())[..., ::-1].copy())
    lines = [text.replace(" ", "") for _, text, _ in found]  # it loses most of the spaces
    assert lines == [line.replace(" ", "") for line in TEXT]
    words = read_words(page())
    assert "".join(word.text for word in words) == "".join(lines)
    for row, (outline, _, _) in enumerate(found):
        mine, corners = words[3 * row : 3 * row + 3], np.array(outline)
        assert np.allclose([mine[0].box[0], mine[-1].box[2]], [corners[:, 0].min(), corners[:, 0].max()], atol=8)
        assert np.allclose([mine[0].box[1], mine[0].box[3]], [corners[:, 1].min(), corners[:, 1].max()], atol=4)


@pytest.mark.parametrize("file", [DETECTOR_NECK, RECOGNIZER])
def test_missing_truncated_and_damaged_files_are_told(file: GraphFile, tmp_path: Path) -> None:
    kind, options = (OcrRegions, OcrRegionsOptions) if file is DETECTOR_NECK else (OcrWords, OcrWordsOptions)
    chosen = options(weights=str(tmp_path))
    assert kind.weights(chosen).path is None
    with pytest.raises(WeightsError, match=r"is not on this machine. To get it: put .* or leave the option weights"):
        kind(chosen).load_pretrained()  # type: ignore[arg-type]
    content = file.find("").read_bytes()
    (tmp_path / file.name).write_bytes(content[:1000])
    with pytest.raises(WeightsError, match="has 1,000 bytes, expected the"):
        kind(chosen).load_pretrained()  # type: ignore[arg-type]
    (tmp_path / file.name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match="It is damaged or another model"):
        kind(chosen).load_pretrained()  # type: ignore[arg-type]
    (tmp_path / file.name).write_bytes(content)
    assert kind(chosen).load_pretrained().sha256 == file.sha256  # type: ignore[arg-type]


def test_without_the_wheel_reading_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pip install --no-deps rapidocr-onnxruntime"):
        read_words(page(), weights=str(tmp_path))


@pytest.mark.parametrize(
    ("size", "pool", "said"), [(64, 5, "pool is 5; expected a divisor of 16"), (32, 16, "expected a divisor of 8")]
)
def test_a_pool_that_does_not_divide_is_refused(size: int, pool: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OcrRegions.describe(OcrRegionsOptions(image_size=size, pool=pool))
