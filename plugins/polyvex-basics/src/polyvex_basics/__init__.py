"""polyvex plugin: encoders without weights, for tests, documentation and teaching."""

from collections.abc import Mapping

from polyvex.encoders import VisionEncoder
from polyvex.hooks import hookimpl
from polyvex_basics.color_grid import ColorGrid, ColorGridOptions
from polyvex_basics.patchify import Patchify, PatchifyOptions
from polyvex_basics.random_features import RandomFeatures, RandomFeaturesOptions

__all__ = [
    "ColorGrid",
    "ColorGridOptions",
    "Patchify",
    "PatchifyOptions",
    "RandomFeatures",
    "RandomFeaturesOptions",
    "register_encoders",
]


@hookimpl
def register_encoders() -> Mapping[str, type[VisionEncoder]]:
    """Offer ``patchify``, ``color-grid`` and ``random-features``."""
    return {"patchify": Patchify, "color-grid": ColorGrid, "random-features": RandomFeatures}
