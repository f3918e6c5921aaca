"""Read an ONNX file, and cut its graph to what leads from the image to one tensor."""

import difflib
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from polyvex.errors import WeightsError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

SMALL = 1024
"""Constants up to this many values may be shapes, axes or indices; larger ones are weights."""


def read_graph(path: Path) -> "ModelProto":
    """Read an ONNX file that holds its weights itself.

    Raises:
        WeightsError: if it is missing, truncated, no ONNX file, or keeps weights in other files. Such files are
            refused because token caches and run records know an encoder's weights by the hash of one file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise WeightsError(f"no ONNX file at {path}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: not a readable ONNX file, perhaps truncated; fetch or export it again. "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from None
    if not model.graph.node:
        raise WeightsError(f"{path}: not a readable ONNX file: it holds no graph")
    outside = [name for name, tensor in constants(model.graph) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise WeightsError(
            f"{path}: keeps {len(outside)} tensors, such as '{outside[0]}', in files beside it; expected all in one "
            "file. Write such a file: onnx.save(onnx.load(path), new_path)"
        )
    return model


def constants(graph: "GraphProto") -> Iterator[tuple[str, "TensorProto"]]:
    """All initialisers, and the tensors of ``Constant`` nodes, by name."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield node.output[0], attribute.t


def cut(model: "ModelProto", output: str, start: str = "") -> "ModelProto":
    """A new model with the nodes and constants that lead from ``start`` to ``output``: its only input and output.

    Shapes that the file states of tensors in between are left out: they may be those of another image size.

    Args:
        start: an input, or a tensor inside the graph; empty for the only input that ``output`` depends on.

    Raises:
        ValueError: if there is no such output or start, or other inputs are needed as well.
    """
    import onnx

    graph = model.graph
    nodes = _nodes_between(graph, start, output)
    used = {name for node in nodes for name in _used_by(node)}
    held = {tensor.name for tensor in graph.initializer}  # old files list constants among their inputs too
    inputs = [value for value in graph.input if value.name in used and value.name not in held]
    if start in used and start not in {value.name for value in inputs}:
        inputs.append(_declared(model, start))
    _check_inputs([value.name for value in inputs], start, output)
    kept = onnx.helper.make_graph(
        nodes,
        graph.name or "graph",
        inputs,
        [onnx.helper.make_empty_tensor_value_info(output)],
        [tensor for tensor in graph.initializer if tensor.name in used],
    )
    kept.sparse_initializer.extend(one for one in graph.sparse_initializer if one.values.name in used)
    return _with_graph(model, kept)


def skeleton(model: "ModelProto") -> "ModelProto":
    """The model with inputs of the same shape in place of large weights: enough to tell shapes, and quick to read."""
    import onnx

    large = [tensor for tensor in model.graph.initializer if prod(tensor.dims) > SMALL]
    weights = [onnx.helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)) for one in large]
    light = onnx.helper.make_graph(
        model.graph.node,
        model.graph.name,
        [*model.graph.input, *weights],
        model.graph.output,
        [tensor for tensor in model.graph.initializer if prod(tensor.dims) <= SMALL],
    )
    light.sparse_initializer.extend(model.graph.sparse_initializer)
    return _with_graph(model, light)


def _with_graph(model: "ModelProto", graph: "GraphProto") -> "ModelProto":
    import onnx

    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )


def _nodes_between(graph: "GraphProto", start: str, output: str) -> list["NodeProto"]:
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    if output not in made:
        ends = ", ".join(f"'{value.name}'" for value in graph.output)
        raise ValueError(
            f"the graph makes no tensor '{output}'. Near: {_near(output, made)}. Its outputs: {ends}; "
            "a viewer such as netron shows those inside"
        )
    begins = {value.name for value in graph.input}
    if start and start not in made and start not in begins:
        raise ValueError(
            f"the graph has no tensor '{start}'. Near: {_near(start, [*made, *begins])}. "
            f"Its inputs: {', '.join(sorted(begins))}"
        )
    wanted, kept = [output], set()
    while wanted:
        name = wanted.pop()
        if name != start and name in made and made[name] not in kept:
            kept.add(made[name])
            wanted += _used_by(graph.node[made[name]])
    return [graph.node[index] for index in sorted(kept)]


def _near(name: str, known: Iterable[str]) -> str:
    return ", ".join(f"'{near}'" for near in difflib.get_close_matches(name, list(known), n=5, cutoff=0.5)) or "none"


def _used_by(node: "NodeProto") -> list[str]:
    """Names that a node reads, also from within the branches and loop bodies that it holds."""
    used = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            used += [name for inner in graph.node for name in _used_by(inner)]
            used += [value.name for value in graph.output]
    return used


def _declared(model: "ModelProto", name: str) -> "ValueInfoProto":
    """Type and shape of a tensor inside the graph, as far as the file or the operators before it tell."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(skeleton(model)).graph
    for value in (*model.graph.value_info, *inferred.value_info, *inferred.output):
        if value.name == name:
            return value
    raise ValueError(f"the type of '{name}' is not known, so it cannot be the input; name an earlier tensor")


def _check_inputs(reached: list[str], start: str, output: str) -> None:
    if start and start not in reached:
        raise ValueError(f"'{output}' does not depend on '{start}', but on {', '.join(reached) or 'no input at all'}")
    if not reached:
        raise ValueError(f"'{output}' does not depend on any input of the graph; name a tensor that does")
    if len(reached) > 1:
        raise ValueError(
            f"'{output}' depends on {len(reached)} inputs, {', '.join(reached)}; expected one, which takes the pixels. "
            "Name a tensor that depends on the pixels alone"
        )
