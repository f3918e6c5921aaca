"""polyvex plugin: any timm model as an encoder, and names for those that people ask for."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_timm.encoder import TimmEncoder, TimmOptions
from polyvex_timm.named import named_encoders

__all__ = ["TimmEncoder", "TimmOptions", "register_encoders"]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``timm`` and the named ones."""
    return {"timm": TimmEncoder, **named_encoders()}
