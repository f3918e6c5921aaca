"""polyvex plugin: Segment Anything's image encoders, from a checkpoint file on this machine."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_sam.encoder import SamEncoder, SamOptions, SamVitB, SamVitH, SamVitL

__all__ = ["SamEncoder", "SamOptions", "SamVitB", "SamVitH", "SamVitL", "register_encoders"]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``sam-vit-b``, ``sam-vit-l`` and ``sam-vit-h``."""
    return {kind.variant.name: kind for kind in (SamVitB, SamVitL, SamVitH)}
