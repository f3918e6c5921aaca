"""polyvex plugin: LayoutLMv3 as the encoders ``layoutlmv3-base`` and ``layoutlmv3-large``."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_layoutlmv3.encoder import LayoutLMv3, LayoutLMv3Base, LayoutLMv3Large, LayoutLMv3Options
from polyvex_layoutlmv3.structure import Structure
from polyvex_layoutlmv3.text import TextLeftOut

__all__ = [
    "LayoutLMv3",
    "LayoutLMv3Base",
    "LayoutLMv3Large",
    "LayoutLMv3Options",
    "Structure",
    "TextLeftOut",
    "register_encoders",
]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``layoutlmv3-base`` and ``layoutlmv3-large``."""
    return {"layoutlmv3-base": LayoutLMv3Base, "layoutlmv3-large": LayoutLMv3Large}
