"""What every tokenizer needs before prompts are made with it: special tokens, and an id for what is added."""

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from polyvex.errors import RecipeError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

UNUSED = "<|polyvex_unused_{number}|>"
"""Fills an unused id of a vocabulary."""


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


def stop_ids(
    tokenizer: "PreTrainedTokenizerBase", config: "PreTrainedConfig", generation: "GenerationConfig | None" = None
) -> list[int]:
    """Tokens that end an answer: those of the generation configuration, then the end of the sequence.

    Args:
        config: the model's configuration, for checkpoints without a generation configuration. Only special tokens
            count, since its defaults may be the ids of words.
        generation: the checkpoint's generation configuration, if it has one.

    Raises:
        RecipeError: if ``eos_token_id`` is neither an id nor a list of ids.
    """
    found: Any = (generation or config.get_text_config()).eos_token_id
    ids = [] if found is None else list(found) if isinstance(found, list | tuple) else [found]
    if any(type(one) is not int for one in ids):
        raise RecipeError(
            [f"[lm]: eos_token_id in the generation configuration is {found!r}, expected an id or a list of ids"],
            code="generation-config",
        )
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    known = [one for one in ids if generation is not None or one in special]
    end: Any = tokenizer.eos_token_id
    return list(dict.fromkeys([*known, int(end)]))


def add_token(tokenizer: "PreTrainedTokenizerBase", token: str) -> int:
    """Add a special token with an id that no other token has, and return the id.

    ``tokenizers`` counts the tokens to choose an id, when a token is added and again when the tokenizer is loaded. In a
    vocabulary with unused ids that would be the id of a word, so these are filled first. Text that spells the token
    stays text.

    Raises:
        RecipeError: if the token is a word of the vocabulary, or no new id is found.
    """
    vocabulary = tokenizer.get_vocab()
    used = set(vocabulary.values())
    if token not in vocabulary and len(used) <= max(used):
        _fill(tokenizer, used)
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    number = _id_of(tokenizer, token)
    clash = (token not in vocabulary and number in used) or _stored(tokenizer, token) != number
    if clash or number in tokenizer.encode(token, add_special_tokens=False, split_special_tokens=True):
        raise RecipeError(
            [f"[lm]: the tokenizer uses the id {number} of {token} for text too. Use a tokenizer without this word"],
            code="token-in-use",
        )
    return number


def _fill(tokenizer: Any, used: Collection[int]) -> None:
    """Give the unused ids of a vocabulary to tokens that no text contains."""
    if not tokenizer.is_fast:
        return  # the check of the new id reports it
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = told["model"].get("vocab")
    if isinstance(vocabulary, dict):
        last = max(vocabulary.values(), default=0)
        vocabulary.update({UNUSED.format(number=one): one for one in range(last) if one not in used})
        tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(told))


def _stored(tokenizer: Any, token: str) -> int:
    """The id of a token once the tokenizer is stored and loaded."""
    if not tokenizer.is_fast:
        return _id_of(tokenizer, token)
    backend = tokenizer.backend_tokenizer
    return int(type(backend).from_str(backend.to_str()).token_to_id(token))


def _id_of(tokenizer: Any, token: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(token))
