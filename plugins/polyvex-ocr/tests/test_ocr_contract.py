"""The contract, with the real networks: their bytes are all the weights there are."""

import copy
import pickle

import pytest
import torch
from PIL import Image, ImageDraw
from polyvex_ocr import OcrRegions, OcrRegionsOptions, OcrWords, OcrWordsOptions, register_encoders

from polyvex.encoders import VisionEncoder
from polyvex.encoders.inputs import run_encoder, stack_inputs
from polyvex.errors import WeightsError
from polyvex.testing import check_encoder

KINDS = [
    (OcrRegions, OcrRegionsOptions(image_size=64, pool=4)),
    (OcrWords, OcrWordsOptions(max_words=5, detector_side=96)),
]


def loaded(kind: type[VisionEncoder], options: object) -> VisionEncoder:
    encoder = kind(options).eval()
    encoder.load_pretrained()
    return encoder


def tokens(encoder: VisionEncoder) -> torch.Tensor:
    image = Image.new("RGB", (160, 96), "white")
    ImageDraw.Draw(image).text((30, 30), "word", fill="black", font_size=32)
    return run_encoder(encoder, stack_inputs([encoder.transform(image)])).values


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_contract(kind: type[VisionEncoder], options: object) -> None:
    check_encoder(kind, options, pretrained=True)  # type: ignore[arg-type]


def test_names() -> None:
    assert register_encoders() == {"ocr-regions": OcrRegions, "ocr-words": OcrWords}


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_copies_and_pickles_give_the_same_tokens(kind: type[VisionEncoder], options: object) -> None:
    encoder = loaded(kind, options)
    wanted = tokens(encoder)  # a session is made, which can be neither copied nor pickled
    assert wanted.any()
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(tokens(other), wanted)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_without_weights_nothing_runs(kind: type[VisionEncoder], options: object) -> None:
    with pytest.raises(WeightsError, match=r"is not loaded, so there is nothing to run. Call load_pretrained\(\)"):
        tokens(kind(options))


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_other_bytes_make_another_session(kind: type[VisionEncoder], options: object) -> None:
    encoder = loaded(kind, options)
    tokens(encoder)
    with torch.no_grad():
        next(encoder.buffers())[:1000] = 255
    with pytest.raises(WeightsError, match="not an ONNX graph of PP-OCRv4"):
        tokens(encoder)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_bfloat16_comes_back_as_it_came(kind: type[VisionEncoder], options: object) -> None:
    encoder = loaded(kind, options).to(torch.bfloat16)
    given = encoder.transform(Image.new("RGB", (64, 64), "gray"))
    named = given if isinstance(given, dict) else {"pixels": given}
    batch = {name: (value.bfloat16() if value.is_floating_point() else value)[None] for name, value in named.items()}
    assert encoder(**batch).values.dtype == torch.bfloat16


def test_a_transform_needs_no_loaded_weights() -> None:
    with torch.device("meta"):  # as a processor builds its encoders
        planned = OcrWords(OcrWordsOptions(max_words=3, detector_side=96))
    image = Image.new("RGB", (160, 96), "white")
    ImageDraw.Draw(image).text((30, 30), "word", fill="black", font_size=32)
    given = planned.transform(image)
    assert isinstance(given, dict)
    assert given["widths"].tolist()[1:] == [0, 0]
    assert given["widths"][0] > 48
