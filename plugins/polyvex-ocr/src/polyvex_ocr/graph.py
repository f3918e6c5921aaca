"""An ONNX graph as a part of a PyTorch module: its bytes are the state, a session runs them."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from polyvex.errors import WeightsError
from polyvex_ocr.files import GraphFile

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT = "x"
"""The name of the one input of both graphs."""


def make_session(content: bytes, outputs: Sequence[str]) -> "InferenceSession":
    """Make a session that gives out ``outputs``, which may be inner tensors; what only others need does not run.

    Raises:
        WeightsError: if the bytes are no such graph.
    """
    import onnx
    import onnxruntime
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise WeightsError(f"not an ONNX graph of PP-OCRv4: {error}. Load the weights again") from None
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()  # share cores as PyTorch is told to
    settings.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no base but this
        raise WeightsError(
            f"not an ONNX graph of PP-OCRv4: {' '.join(str(error).split())[:200]}. Load the weights again"
        ) from None


@lru_cache(maxsize=4)
def session_of(file: GraphFile, path: Path) -> "InferenceSession":
    """The session of a file on this machine, made once.

    Raises:
        WeightsError: if the file is not the one that is known.
    """
    return make_session(file.read(path), file.outputs)


def run(session: "InferenceSession", pixels: np.ndarray) -> list[np.ndarray]:
    """Run a session on float32 pixels [images 3 height width]; gives one array for each of its outputs."""
    return [np.asarray(value) for value in session.run(None, {INPUT: pixels})]


class OnnxGraph(nn.Module):
    """A graph whose bytes are a persistent buffer, so that a checkpoint holds it and it goes where the state goes.

    The session is made when it is first needed, and again when the bytes have changed. Copies and pickles leave it
    out. It runs on the CPU, in float32, and gives no gradient: onnxruntime cannot train.
    """

    graph: Tensor

    def __init__(self, file: GraphFile):
        super().__init__()
        self.file = file
        self.register_buffer("graph", torch.zeros(file.size, dtype=torch.uint8))
        self._made: tuple[Tensor, InferenceSession] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}  # a session can be neither copied nor pickled

    def session(self) -> "InferenceSession":
        """The session for the bytes as they are now.

        Raises:
            WeightsError: if no weights are loaded, or the bytes are no graph.
        """
        if self.graph.is_meta or not bool(self.graph.any()):
            raise WeightsError(
                f"{self.file.name} is not loaded, so there is nothing to run. Call load_pretrained(), or load a "
                "checkpoint"
            )
        now = self.graph.detach().cpu()
        made = self._made  # a local name, because another thread may set it meanwhile
        if made is None or not torch.equal(made[0], now):
            made = (now.clone(), make_session(now.numpy().tobytes(), self.file.outputs))
            self._made = made
        return made[1]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Run on pixels [images 3 height width] of any type and device; outputs come back in both."""
        values = run(self.session(), pixels.detach().to("cpu", torch.float32).contiguous().numpy())
        return [torch.from_numpy(value).to(pixels.device, pixels.dtype) for value in values]
