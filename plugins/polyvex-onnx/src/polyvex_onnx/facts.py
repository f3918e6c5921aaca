"""What an ONNX graph takes and gives for one image size, told by its file without running it."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from polyvex_onnx.graph import constants, cut, read_graph, skeleton
from polyvex_onnx.session import FLOATS, make_session

if TYPE_CHECKING:
    from onnx import ModelProto

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """What the cut graph takes and gives.

    ``size`` is height and width of the pixels, ``shape`` the output's for one image, ``one_by_one`` tells that the
    graph takes a single image at a time, ``numbers`` counts the values of its constants, ``length`` its bytes.
    """

    size: Size
    shape: tuple[int, ...]
    one_by_one: bool
    numbers: int
    length: int
    made_by: str


@dataclass(frozen=True, kw_only=True)
class CutGraph:
    """The cut graph as bytes, and the names of the constants that it took over and left behind."""

    content: bytes
    kept: list[str]
    left: list[str]


def graph_facts(path: Path, *, output: str, start: str, size: Size | None) -> GraphFacts:
    """Read the file and tell; the same file is read once.

    Raises:
        ValueError: if the output, the start or the size do not fit the graph, or its shapes cannot be known.
        WeightsError: if the file cannot be read.
    """
    about = path.stat() if path.is_file() else None
    stamp = (about.st_mtime_ns, about.st_size) if about else (0, 0)
    return _facts(path, stamp, output, start, size)


def cut_graph(path: Path, *, output: str, start: str, size: Size) -> CutGraph:
    """Read the file and cut it for one image size.

    Raises:
        ValueError: as :func:`graph_facts`.
        WeightsError: if the file cannot be read.
    """
    model = read_graph(path)
    part = cut(model, output, start)
    _set_size(part, size)
    names = [name for name, _ in constants(part.graph)]
    left = sorted({name for name, _ in constants(model.graph)} - set(names))
    return CutGraph(content=part.SerializeToString(deterministic=True), kept=sorted(names), left=left)


@lru_cache(maxsize=64)
def _facts(path: Path, stamp: tuple[int, int], output: str, start: str, size: Size | None) -> GraphFacts:
    model = read_graph(path)
    part = cut(model, output, start)
    size, one_by_one = _set_size(part, size)
    return GraphFacts(
        size=size,
        shape=_output_shape(part),
        one_by_one=one_by_one,
        numbers=sum(prod(tensor.dims) for _, tensor in constants(part.graph)),
        length=part.ByteSize(),
        made_by=f"{model.producer_name} {model.producer_version}".strip() or "an unnamed tool",
    )


def _set_size(model: "ModelProto", size: Size | None) -> tuple[Size, bool]:
    """Fix the size of the image that the graph takes.

    Returns:
        The size, and whether the graph takes a single image at a time.

    Raises:
        ValueError: if the input is not [images 3 height width] of floats, is of another size, or of any size and none
            is asked for.
    """
    import onnx

    [taken] = model.graph.input
    kind = taken.type.tensor_type
    name, dims = f"the input '{taken.name}'", list(kind.shape.dim)
    axes = [one.dim_value if one.HasField("dim_value") and one.dim_value > 0 else None for one in dims]
    told = "[" + ", ".join(str(axis or dim.dim_param or "?") for axis, dim in zip(axes, dims, strict=True)) + "]"
    if len(axes) != 4 or axes[1] not in (3, None):
        raise ValueError(
            f"{name} is {told}; expected [images, 3, height, width]. If the graph turns its axes first, name the "
            "tensor behind that as input"
        )
    if kind.elem_type not in FLOATS:
        what = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise ValueError(f"{name} takes {what}; expected FLOAT, FLOAT16 or DOUBLE. Name a tensor behind it as input")
    if axes[0] not in (1, None):
        raise ValueError(f"{name} takes exactly {axes[0]} images; expected 1 or any number. Export it so")
    fixed = (axes[2], axes[3])
    if size is None and None in fixed:
        raise ValueError(f"{name} is {told}, of any size; say which: image_size = 224, or [height, width]")
    found = size or (axes[2] or 0, axes[3] or 0)
    if any(own not in (None, asked) for own, asked in zip(fixed, found, strict=True)):
        raise ValueError(f"{name} is {told}, so image_size cannot be {found[0]}x{found[1]}; leave it out")
    for dim, value in zip(dims[1:], (3, *found), strict=True):
        dim.dim_value = value
    return found, axes[0] == 1


def _output_shape(model: "ModelProto") -> tuple[int, ...]:
    """Shape of the output for one image, as onnxruntime works it out when it loads a graph.

    It folds what exporters compute from shapes, which :mod:`onnx.shape_inference` leaves open in many graphs. Without
    the weights that takes milliseconds; with them where a shape depends on what is in them.
    """
    single = type(model)()
    single.CopyFrom(model)
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    output = single.graph.output[0].name
    known: list[object] = []
    for graph in (skeleton(single), single):
        try:
            [value] = make_session(graph.SerializeToString()).get_outputs()
        except ValueError:
            if graph is single:
                raise
            continue  # some operators want their weights as constants
        if value.type not in FLOATS.values():
            raise ValueError(f"'{output}' is a {value.type}; expected floats. Name another tensor as output")
        known = list(value.shape or [])
        if known and all(isinstance(axis, int) for axis in known):
            return tuple(int(str(axis)) for axis in known)
    raise ValueError(
        f"the shape of '{output}' is {known or 'not known'}: it depends on what is in the image, or cannot be told. "
        "Export the graph for one fixed image size"
    )
