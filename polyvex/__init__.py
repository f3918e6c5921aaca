"""polyvex: vision-language models that see through several encoders.

Names are imported when they are first used, so ``import polyvex`` stays light. The model class becomes known to
transformers' Auto classes as soon as both packages are imported, in either order.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from polyvex._register import register_when_transformers_is_there

if TYPE_CHECKING:
    from polyvex.answer import Answer, Assistant, load
    from polyvex.assemble import Built, build
    from polyvex.encoders import EncoderFacts, EncoderOptions, License, VisionEncoder, WeightsPlace
    from polyvex.fusion import Fusion
    from polyvex.hooks import hookimpl
    from polyvex.options import Options
    from polyvex.positions import PositionScheme
    from polyvex.recipe import Recipe, read_recipe
    from polyvex.reducers import Reducer
    from polyvex.tokens import Grid, TokenShape, VisualTokens
    from polyvex.training.stages import train

_PLACES = {
    "polyvex.answer": ("Answer", "Assistant", "load"),
    "polyvex.assemble": ("Built", "build"),
    "polyvex.encoders": ("EncoderFacts", "EncoderOptions", "License", "VisionEncoder", "WeightsPlace"),
    "polyvex.fusion": ("Fusion",),
    "polyvex.hooks": ("hookimpl",),
    "polyvex.options": ("Options",),
    "polyvex.positions": ("PositionScheme",),
    "polyvex.reducers": ("Reducer",),
    "polyvex.recipe": ("Recipe", "read_recipe"),
    "polyvex.tokens": ("Grid", "TokenShape", "VisualTokens"),
    "polyvex.training.stages": ("train",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Answer",
    "Assistant",
    "Built",
    "EncoderFacts",
    "EncoderOptions",
    "Fusion",
    "Grid",
    "License",
    "Options",
    "PositionScheme",
    "Recipe",
    "Reducer",
    "TokenShape",
    "VisionEncoder",
    "VisualTokens",
    "WeightsPlace",
    "build",
    "hookimpl",
    "load",
    "read_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'polyvex' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__


register_when_transformers_is_there()
