"""polyvex plugin: any vision tower of transformers as an encoder, and names for those that people ask for."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_hf.encoder import HfEncoder, HfOptions
from polyvex_hf.named import named_encoders

__all__ = ["HfEncoder", "HfOptions", "register_encoders"]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``hf`` and the named ones."""
    return {"hf": HfEncoder, **named_encoders()}
