"""Language models from GGUF files, as llama.cpp has them: read by transformers, dequantised, trained like any other."""

import copy
import struct
from abc import abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from polyvex.errors import RecipeError
from polyvex.lm.base import LanguageModel, LMOptions, OptionsT
from polyvex.lm.tokenizer import ready
from polyvex.options import LocalPath

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DAMAGED = (ValueError, IndexError, KeyError, OSError, struct.error)
"""What the reader raises for a file that is cut short or is none, depending on where it ends."""


class GgufModel(LanguageModel[OptionsT]):
    """Base of language models in a GGUF file; a subclass says where the file is.

    transformers dequantises every tensor to float32 (``GgufConfig(dequantize=True)``), so the model trains and is saved
    as if it had never been quantised; what quantisation lost stays lost. Which architectures can be read is its matter.
    """

    pretrained = True

    @abstractmethod
    def path(self) -> Path | None:
        """The file; None if it is not on this machine."""

    @abstractmethod
    def how_to_get(self) -> str:
        """What to do if the file is not on this machine."""

    def missing(self) -> str:
        """How to get the file, or the library that reads it."""
        if find_spec("gguf") is None:
            return 'pip install "polyvex[gguf]"'
        return "" if self.path() is not None else self.how_to_get()

    def config(self) -> "PreTrainedConfig":
        """The configuration that the file tells. Reading it also finds a file that is cut short.

        Raises:
            RecipeError: if the file is missing, damaged, or of an architecture that cannot be read.
        """
        return copy.deepcopy(self._read(_config))

    def tokenizer(self, texts: Iterable[str]) -> "PreTrainedTokenizerBase":
        """The file's tokenizer; ``texts`` are not needed."""
        return ready(copy.deepcopy(self._read(_tokenizer)), source=str(self.path()))

    def load(self, config: "PreTrainedConfig") -> "PreTrainedModel":
        """The file's weights, in float32. Keys that are missing from it are an error, never random weights."""
        return self._read(lambda path, _: _load(path, config))

    def _read(self, read: Any) -> Any:
        """What ``read`` makes of the file, told as a mistake of the recipe if it cannot be."""
        if way := self.missing():
            raise RecipeError([f"[lm]: the language model is not on this machine. To get it: {way}"])
        path = self.path()
        assert path is not None
        about = path.stat()
        try:
            return read(path, (about.st_size, about.st_mtime_ns))
        except DAMAGED as error:
            why = " ".join(str(error).split())[:300]
            raise RecipeError(
                [f"[lm]: {path} cannot be read as a GGUF file of a language model; is it whole? {why}"]
            ) from None


class GgufOptions(LMOptions):
    """Options of the ``gguf`` language model."""

    file: LocalPath = Field(description="Path of a GGUF file with a causal language model and its tokenizer.")


class Gguf(GgufModel[GgufOptions]):
    """Any GGUF file whose architecture transformers can read: Llama, Mistral, Qwen2 and 3, Phi-3, Gemma and others."""

    Options = GgufOptions
    summary = "a language model in a GGUF file, dequantised to float32"

    def path(self) -> Path | None:
        """The file that the recipe names."""
        path = Path(self.options.file)
        return path if path.is_file() else None

    def how_to_get(self) -> str:
        """Only the person knows."""
        return f"put the file at {self.options.file}"


@lru_cache(maxsize=4)  # reading the metadata takes seconds, and a run asks several times
def _config(path: Path, _about: tuple[int, int]) -> "PreTrainedConfig":
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)


@lru_cache(maxsize=4)
def _tokenizer(path: Path, _about: tuple[int, int]) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)


def _load(path: Path, config: "PreTrainedConfig") -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    loader: Any = AutoModelForCausalLM
    model, report = loader.from_pretrained(
        path.parent,
        gguf_file=path.name,
        config=config,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        output_loading_info=True,
        trust_remote_code=False,
    )
    if report["missing_keys"]:
        raise RecipeError([f"[lm]: {path} lacks weights: {', '.join(sorted(report['missing_keys'])[:5])}"])
    return model
