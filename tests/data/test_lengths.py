"""Samples beyond the context are found, and most need not be tokenized for that."""

from types import SimpleNamespace
from typing import Any

import pytest

from polyvex.data import Sample
from polyvex.data.lengths import SPECIAL, check_lengths
from polyvex.data.prompt import PromptEncoder
from polyvex.errors import DataError


def prompts(per_character: int = 1) -> tuple[PromptEncoder, list[str]]:
    """A prompt encoder whose tokenizer makes so many tokens of each character, and what it was given."""
    seen: list[str] = []

    def encode(text: str, **options: Any) -> list[int]:
        seen.append(text)
        return [7] * (len(text) * per_character)

    tokenizer = SimpleNamespace(bos_token="<s>", bos_token_id=1, eos_token_id=2, all_special_tokens=[], encode=encode)
    made = PromptEncoder(tokenizer=tokenizer, template="{image}{question}", image_token_id=5, visual_tokens=10)
    return made, seen


def sample(question: str, images: int = 1) -> Sample:
    return Sample(id=question[:3], question=question, answer="ab", images=("x.png",) * images)


def test_short_ascii_is_not_tokenized() -> None:
    made, seen = prompts()
    check_lengths([sample("what?")] * 50, made, context=60 + SPECIAL)
    assert seen == []


def test_the_first_of_those_that_are_too_long_is_named_with_its_length() -> None:
    made, _ = prompts()
    # 1 for the beginning, 10 of the image, 40 and 2 characters, 1 for the end: 54.
    long = sample("w" * 40)
    check_lengths([long], made, context=54)
    told = "1 of 2 samples do not fit the language model's context of 53 tokens; the first is www with 54"
    with pytest.raises(DataError, match=told):
        check_lengths([sample("q"), long], made, context=53)


def test_room_for_the_answer_is_counted_instead_of_the_answer() -> None:
    made, _ = prompts()
    # 1 + 10 + 40 = 51, and 8 for the answer.
    check_lengths([sample("w" * 40)], made, context=59, answer=8)
    with pytest.raises(DataError, match="with 59"):
        check_lengths([sample("w" * 40)], made, context=58, answer=8)


def test_every_image_counts() -> None:
    made, _ = prompts()
    with pytest.raises(DataError):
        check_lengths([sample("q", images=6)], made, context=60)


def test_text_that_grows_when_it_is_normalised_is_tokenized() -> None:
    made, _ = prompts(per_character=18)
    with pytest.raises(DataError):
        check_lengths([sample("\ufdfa" * 5)], made, context=60)


def test_a_model_that_names_no_context_is_not_limited() -> None:
    made, seen = prompts()
    check_lengths([sample("w" * 5000)], made, context=None)
    assert seen == []
