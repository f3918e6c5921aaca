"""polyvex plugin: any ONNX file as an encoder, run by onnxruntime."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_onnx.encoder import OnnxEncoder
from polyvex_onnx.options import OnnxOptions

__all__ = ["OnnxEncoder", "OnnxOptions", "register_encoders"]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``onnx``."""
    return {"onnx": OnnxEncoder}
