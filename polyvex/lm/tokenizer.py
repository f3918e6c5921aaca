"""What every tokenizer needs before prompts are made with it."""

from typing import TYPE_CHECKING

from polyvex.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def ready(tokenizer: "PreTrainedTokenizerBase", *, source: str) -> "PreTrainedTokenizerBase":
    """The tokenizer with a padding token: the end of a sequence, if it has none of its own.

    Raises:
        RecipeError: if it has no token for the end of a sequence.
    """
    if tokenizer.eos_token is None:
        raise RecipeError([f"[lm]: the tokenizer of {source} has no end-of-sequence token"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
