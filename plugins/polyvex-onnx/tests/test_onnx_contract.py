"""The contract, for graphs of each layout, type and way to count images."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import pytest
from onnx import TensorProto
from polyvex_onnx import OnnxEncoder, OnnxOptions, register_encoders

from polyvex.encoders import License
from polyvex.testing import check_encoder
from polyvex.tokens import Grid

GRAPHS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tokens": ({}, {"output": "tokens"}),
    "class token": ({}, {"output": "everything", "skip": 1}),
    "map": ({}, {"output": "features", "layout": "map"}),
    "map with the width last": ({}, {"output": "last", "layout": "map_last"}),
    "one image at a time": ({"batch": 1}, {"output": "everything", "skip": 1}),
    "float16": ({"kind": TensorProto.FLOAT16}, {"output": "tokens"}),
    "any size": ({"size": ("h", "w")}, {"output": "last", "layout": "map_last", "image_size": [32, 48]}),
    "grid declared": ({"size": (64, 16)}, {"output": "tokens", "grid": [8, 2]}),
    "no grid": ({}, {"output": "everything", "grid": "none"}),
}


def test_the_entry_point_offers_the_encoder() -> None:
    [point] = entry_points(group="polyvex", name="onnx")

    assert point.load().register_encoders() == register_encoders() == {"onnx": OnnxEncoder}


@pytest.mark.parametrize("graph", GRAPHS)
def test_each_kind_of_graph_keeps_the_contract(graph: str, write: Callable[..., str]) -> None:
    file, options = GRAPHS[graph]
    check_encoder(OnnxEncoder, OnnxOptions(file=write(**file), **options), pretrained=True)


def test_facts_are_the_files(write: Callable[..., str]) -> None:
    path = write(size=(32, 48))
    facts = OnnxEncoder.describe(OnnxOptions(file=path, output="everything", skip=1, grid=[4, 6]))

    assert (facts.shape.tokens, facts.shape.dim, facts.shape.grid) == (24, 8, Grid(rows=4, cols=6))
    assert facts.image_size == (32, 48)
    assert facts.parameters == 0
    # 8·3·8·8 + 8 + 8 of the network, and 3 + 1 + 2 that are shapes; the head is behind the output
    assert "written by hand 1, with 1,558 numbers" in facts.source
    assert facts.license == License(name="unknown (the file names none)", commercial=False)


def test_a_rewritten_file_has_new_facts(write: Callable[..., str]) -> None:
    sizes = []
    for side in (32, 64):
        options = OnnxOptions(file=write(size=(side, side)), output="tokens")
        sizes.append(OnnxEncoder.describe(options).image_size)

    assert sizes == [(32, 32), (64, 64)]


@pytest.mark.parametrize(("name", "commercial"), [("MIT", True), ("CC-BY-NC-4.0", False)])
def test_the_licence_is_what_the_author_says(name: str, commercial: bool, write: Callable[..., str]) -> None:
    facts = OnnxEncoder.describe(OnnxOptions(file=write(), output="tokens", license=name))

    assert facts.license == License(name=name, commercial=commercial)


def test_weights_are_the_file(write: Callable[..., str]) -> None:
    here = OnnxEncoder.weights(OnnxOptions(file=write(), output="tokens"))
    gone = OnnxEncoder.weights(OnnxOptions(file="no/such.onnx", output="tokens"))

    assert here.path is not None
    assert (gone.path, gone.install) == (None, "put the ONNX file at no/such.onnx")
