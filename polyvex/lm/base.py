"""What a language-model component is: where a Hugging Face causal language model and its tokenizer come from."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from typing_extensions import TypeVar

from polyvex.lm.tokenizer import stop_ids
from polyvex.options import Options

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class LMOptions(Options):
    """Options that every language model may extend. It has none of its own."""


OptionsT = TypeVar("OptionsT", bound=LMOptions, default=Any)
"""The class of a component's own options: ``class Mine(LanguageModel[MyOptions])``."""


class LanguageModel(ABC, Generic[OptionsT]):
    """Base of all language-model components. The model itself is always one of transformers' own classes.

    ``Options`` is the class of its options, ``summary`` one line for listings, ``pretrained`` whether
    :meth:`load` brings trained weights (if not, training says loudly that the model starts from random ones).
    """

    Options: ClassVar[type[LMOptions]] = LMOptions
    summary: ClassVar[str]
    pretrained: ClassVar[bool]

    def __init__(self, options: OptionsT):
        self.options = options

    def missing(self) -> str:
        """How to get what is not on this machine; empty if everything is, or nothing is needed."""
        return ""

    @abstractmethod
    def config(self) -> "PreTrainedConfig":
        """The model's configuration, without reading weights.

        Raises:
            RecipeError: if it is not on this machine and cannot be fetched.
        """

    @abstractmethod
    def tokenizer(self, texts: Iterable[str]) -> "PreTrainedTokenizerBase":
        """The tokenizer: loaded, or trained on ``texts``. It has an end-of-sequence and a padding token."""

    def stop_ids(self, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
        """Tokens that end an answer, the end of the sequence among them.

        Those of the generation configuration, if the checkpoint has one. Otherwise those of the model's configuration
        that are special tokens: its defaults may be the ids of words.
        """
        return stop_ids(tokenizer, self.config())

    @abstractmethod
    def load(self, config: "PreTrainedConfig") -> "PreTrainedModel":
        """The causal language model with its weights, in float32."""
