"""Language models: transformers' causal language models and their tokenizers."""

from collections.abc import Mapping

from polyvex.hooks import hookimpl
from polyvex.lm.base import LanguageModel, LMOptions
from polyvex.lm.gguf import Gguf, GgufModel
from polyvex.lm.pretrained import Pretrained
from polyvex.lm.small_llama import SmallLlama

__all__ = ["GgufModel", "LMOptions", "LanguageModel", "register_language_models"]


@hookimpl
def register_language_models() -> Mapping[str, type[LanguageModel]]:
    """The language models of the core."""
    return {"small-llama": SmallLlama, "pretrained": Pretrained, "gguf": Gguf}
