"""A small network as an ONNX file: a convolution, and its values as a map, as tokens, and behind a class token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

DIM, PATCH = 8, 8


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"/{output}/{kind}", **attributes)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def network(batch: int | str, size: tuple[int | str, int | str], kind: int) -> onnx.ModelProto:
    """Tensors by name: ``features`` [images dim rows cols], ``active`` the same, ``last`` [images rows cols dim],
    ``tokens`` [images tokens dim], ``everything`` with a class token in front, ``pooled`` [images dim]."""
    numpy_type = helper.tensor_dtype_to_np_dtype(kind)
    random = np.random.default_rng(0)
    constants = {
        "weight": (random.normal(size=(DIM, 3, PATCH, PATCH)) / 14).astype(numpy_type),
        "bias": random.normal(size=DIM).astype(numpy_type),
        "class_token": random.normal(size=(1, 1, DIM)).astype(numpy_type),
        "flat": whole(0, DIM, -1),
        "zero": whole(0),
        "behind": whole(1, DIM),
        "head": random.normal(size=(DIM, 5)).astype(numpy_type),
    }
    nodes = [
        node("Conv", "pixels weight bias", "features", strides=[PATCH, PATCH]),
        node("Relu", "features", "active"),
        node("Transpose", "active", "last", perm=[0, 2, 3, 1]),
        node("Reshape", "active flat", "rows"),
        node("Transpose", "rows", "tokens", perm=[0, 2, 1]),
        node("Shape", "pixels", "shape"),
        node("Gather", "shape zero", "count"),
        node("Concat", "count behind", "wanted", axis=0),
        node("Expand", "class_token wanted", "classes"),
        node("Concat", "classes tokens", "everything", axis=1),
        node("ReduceMean", "everything", "pooled", axes=[1], keepdims=0),
        node("MatMul", "pooled head", "logits"),
        node("Shape", "pixels", "integers"),
        node("Cast", "head", "constant", to=kind),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", kind, [batch, 3, *size])],
        [helper.make_tensor_value_info("logits", kind, [batch, 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="hand", producer_version="1"
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """A function that writes the network to a file, after a change to its model if one is given."""

    def make(
        *,
        batch: int | str = "images",
        size: tuple[int | str, int | str] = (32, 32),
        kind: int = TensorProto.FLOAT,
        change: Callable[[onnx.ModelProto], object] | None = None,
        name: str = "small.onnx",
    ) -> str:
        model = network(batch, size, kind)
        if change:
            change(model)
        path = tmp_path / name
        onnx.save(model, str(path))
        return str(path)

    return make
