"""Files and options that cannot be are refused, with what was got, what is expected, and a way out."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from polyvex_onnx import OnnxEncoder, OnnxOptions
from pydantic import ValidationError

from polyvex.errors import WeightsError


def refused(path: str, told: str, **options: Any) -> None:
    """Both before anything is built and when it is built."""
    chosen = OnnxOptions(**{"file": path, "output": "tokens", **options})
    for attempt in (OnnxEncoder.describe, OnnxEncoder):
        with pytest.raises(ValueError, match=re.escape(told)):
            attempt(chosen)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x80\x02}q\x00.", bytes(4096)])
def test_a_file_that_is_no_onnx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(content)
    refused(str(tmp_path / "other.onnx"), f"{tmp_path / 'other.onnx'}: not a readable ONNX file")


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_truncated_file(part: float, write: Callable[..., str]) -> None:
    path = Path(write())
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    refused(str(path), "not a readable ONNX file, perhaps truncated; fetch or export it again")


def test_a_missing_file_and_one_that_went_missing(write: Callable[..., str], tmp_path: Path) -> None:
    refused(str(tmp_path / "none.onnx"), f"no ONNX file at {tmp_path / 'none.onnx'}")
    encoder = OnnxEncoder(OnnxOptions(file=write(), output="tokens"))
    Path(encoder.options.file).unlink()
    with pytest.raises(WeightsError, match="no ONNX file at"):
        encoder.load_pretrained()


def test_weights_in_other_files(write: Callable[..., str], tmp_path: Path) -> None:
    model = onnx.load(write())
    onnx.save(model, str(tmp_path / "split.onnx"), save_as_external_data=True, location="split.data", size_threshold=0)
    refused(str(tmp_path / "split.onnx"), "such as 'weight', in files beside it; expected all in one file")

    onnx.save(onnx.load(str(tmp_path / "split.onnx")), str(tmp_path / "joined.onnx"))  # the way out that it names
    OnnxEncoder(OnnxOptions(file=str(tmp_path / "joined.onnx"), output="tokens")).load_pretrained()


OPTIONS: dict[str, dict[str, Any]] = {
    "makes no tensor 'token'. Near: 'tokens'": {"output": "token"},
    "makes no tensor 'x9'. Near: none. Its outputs: 'logits'": {"output": "x9"},
    "'constant' does not depend on any input of the graph": {"output": "constant"},
    "'integers' is a tensor(int64); expected floats": {"output": "integers"},
    "has no tensor 'pixel'. Near: 'pixels'. Its inputs: pixels": {"input": "pixel"},
    "'features' does not depend on 'tokens', but on pixels": {"output": "features", "input": "tokens"},
    "is [images, 3, 32, 32], so image_size cannot be 64x64; leave it out": {"image_size": 64},
    "is [1, 8] for one image; layout = 'tokens' expects [images tokens dim]": {"output": "pooled"},
    "is [1, 8, 4, 4] for one image; layout = 'tokens' expects [images tokens dim]": {"output": "features"},
    "is [1, 16, 8] for one image; layout = 'map' expects [images dim rows cols]": {"layout": "map"},
    "has 17 tokens after skip = 0, which is no square": {"output": "everything"},
    "has 16 tokens after skip = 0; grid = [3, 5] has 15 places": {"grid": [3, 5]},
    "has 16 tokens, so skip = 16 leaves none": {"skip": 16},
}


@pytest.mark.parametrize("told", OPTIONS)
def test_options_that_do_not_fit_the_graph(told: str, write: Callable[..., str]) -> None:
    refused(write(), told, **OPTIONS[told])


INPUTS: dict[str, tuple[int, list[int | str]]] = {
    "is [images, 3, h, w], of any size; say which: image_size = 224": (TensorProto.FLOAT, ["images", 3, "h", "w"]),
    "is [images, 32, 32, 3]; expected [images, 3, height, width]": (TensorProto.FLOAT, ["images", 32, 32, 3]),
    "is [3, 32, 32]; expected [images, 3, height, width]": (TensorProto.FLOAT, [3, 32, 32]),
    "is [images, 1, 32, 32]; expected [images, 3, height, width]": (TensorProto.FLOAT, ["images", 1, 32, 32]),
    "takes UINT8; expected FLOAT, FLOAT16 or DOUBLE": (TensorProto.UINT8, ["images", 3, 32, 32]),
    "takes exactly 4 images; expected 1 or any number": (TensorProto.FLOAT, [4, 3, 32, 32]),
}


@pytest.mark.parametrize("told", INPUTS)
def test_inputs_that_take_no_pixels(told: str, write: Callable[..., str]) -> None:
    kind, shape = INPUTS[told]

    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", kind, shape))

    refused(write(change=change), told)


def test_outputs_that_depend_on_more_than_pixels(write: Callable[..., str]) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("prompt", TensorProto.FLOAT, [1]))
        model.graph.node.append(helper.make_node("Mul", ["tokens", "prompt"], ["prompted"]))

    path = write(change=change)

    refused(path, "'prompted' depends on 2 inputs, pixels, prompt; expected one", output="prompted")
    OnnxEncoder(OnnxOptions(file=path, output="tokens"))  # the way out: the prompt is not needed there


def test_outputs_whose_shape_depends_on_the_image(write: Callable[..., str]) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("NonZero", ["tokens"], ["found"]))
        model.graph.node.append(helper.make_node("Cast", ["found"], ["places"], to=TensorProto.FLOAT))

    refused(write(change=change), "it depends on what is in the image", output="places")


def test_graphs_that_onnxruntime_cannot_load(write: Callable[..., str]) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.float32([1, 2]), "flat"))

    refused(write(change=change), "cannot load the graph")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": 255.0}, "default mean and std are for values from 0 to 1"),
        ({"scale": 255.0, "mean": [1.0, 2.0, 3.0]}, "give both"),
        ({"layout": "map", "skip": 1}, "has its own grid; leave out skip and grid"),
        ({"layout": "map_last", "grid": [4, 4]}, "has its own grid"),
        ({"std": [0.1, 0.0, 0.1]}, "greater than 0"),
        ({"skip": -1}, "greater than or equal to 0"),
        ({"output": ""}, "at least 1 character"),
    ],
)
def test_options_that_cannot_go_together(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        OnnxOptions.model_validate({"file": "some.onnx", "output": "tokens", **options})
