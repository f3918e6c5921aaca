"""The model class, its configuration and its processor. Names are imported when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyvex.model.config import PolyvexConfig
    from polyvex.model.modeling import PolyvexForConditionalGeneration
    from polyvex.model.output import PolyvexOutput
    from polyvex.model.processing import PolyvexProcessor

_MODULE_OF = {
    "PolyvexConfig": "polyvex.model.config",
    "PolyvexForConditionalGeneration": "polyvex.model.modeling",
    "PolyvexOutput": "polyvex.model.output",
    "PolyvexProcessor": "polyvex.model.processing",
}

__all__ = ["PolyvexConfig", "PolyvexForConditionalGeneration", "PolyvexOutput", "PolyvexProcessor"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'polyvex.model' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)
