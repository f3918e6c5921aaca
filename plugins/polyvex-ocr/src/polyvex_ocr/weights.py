"""Load the bytes of a known ONNX file into a graph."""

from pathlib import Path

import torch

from polyvex.encoders import WeightsReport, load_strictly
from polyvex_ocr.graph import OnnxGraph


def load_graph(graph: OnnxGraph, path: Path) -> WeightsReport:
    """Take over the bytes of the file that the graph is for.

    Raises:
        WeightsError: if the file is not that one, byte for byte.
    """
    content = bytearray(graph.file.read(path))
    return load_strictly(graph, {"graph": torch.frombuffer(content, dtype=torch.uint8)}, path=path, ignore=[])
