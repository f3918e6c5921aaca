"""Run a graph that is held as bytes in a buffer, so that it lives and travels as any other weights do."""

import hashlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polyvex.errors import WeightsError

FLOATS = {1: "tensor(float)", 10: "tensor(float16)", 11: "tensor(double)"}
"""Element types of ONNX that pixels and tokens may have, with onnxruntime's names for them."""

TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


def make_session(content: bytes) -> Any:
    """An onnxruntime session on the CPU, with as many threads as torch uses.

    Raises:
        ValueError: if onnxruntime cannot load the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base but Exception
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} cannot load the graph: {' '.join(str(error).split())[:300]}"
        ) from None


class HeldGraph(nn.Module):
    """An ONNX graph in a persistent buffer of bytes, and the session that onnxruntime makes of it.

    The bytes are all the state there is: a state dict, a pickle or a deep copy holds them and nothing else. The
    session is made from them when it is first needed, and again after they changed. Fresh bytes are zeros, which no
    session is made of.
    """

    content: Tensor

    def __init__(self, length: int, *, one_by_one: bool):
        super().__init__()
        self.one_by_one = one_by_one
        self.register_buffer("content", torch.zeros(length, dtype=torch.uint8))
        self._session: Any = None
        self._made_of: tuple[Tensor, object] | None = None

    def set_content(self, content: bytes) -> None:
        """Take over a graph of the length that was built for, in place unless the module is on ``meta``."""
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if self.content.is_meta:
            self.content = values
        else:
            self.content.copy_(values)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images ..."]:
        """The graph's output for all images, in the pixels' type and on their device.

        Raises:
            WeightsError: if no graph was loaded, or onnxruntime cannot load it.
        """
        session = self._ready()
        [taken] = session.get_inputs()
        given = pixels.detach().to("cpu", TYPES[taken.type]).contiguous()
        parts = given.split(1) if self.one_by_one else [given]
        results = [torch.from_numpy(session.run(None, {taken.name: part.numpy()})[0]) for part in parts]
        return torch.cat(results).to(pixels.device, pixels.dtype)

    def _ready(self) -> Any:
        held = self.content
        if self._made_of is None or self._made_of[0] is not held or self._made_of[1] != _state(held):
            if held.is_meta or not held.any():
                raise WeightsError("this ONNX encoder holds no graph yet; call load_pretrained, or load a state dict")
            try:
                self._session = make_session(held.cpu().numpy().tobytes())
            except ValueError as error:
                raise WeightsError(str(error)) from None
            self._made_of = (held, _state(held))
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out: it cannot be copied, and is made again."""
        return {**self.__dict__, "_session": None, "_made_of": None}


def _state(held: Tensor) -> object:
    """Something that differs after the tensor was written to. Torch counts writes, but not in inference mode."""
    return hashlib.sha256(held.cpu().numpy().tobytes()).digest() if held.is_inference() else held._version
