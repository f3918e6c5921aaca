"""The prompt's template as the recipe has it: written out, or that of the language model's own chats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polyvex.recipe.chat import render_chat
from polyvex.recipe.schema import CHAT, PromptTable, placed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


DATED = "the chat template writes the date, which is fixed to prompt.date = {date!r}"
"""A note for people."""


@dataclass(frozen=True, kw_only=True)
class PromptForm:
    """A prompt's template, the token ids that follow an answer, and whether the template writes a date."""

    template: str
    end_ids: list[int]
    dated: bool


def prompt_form(prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase", stop_ids: Sequence[int] = ()) -> PromptForm:
    """The form of a prompt and of the end of its answer.

    A chat answer ends as the template ends the assistant's turn: with the tokens behind the content, up to and
    including the first one that stops generation (Gemma's ``<end_of_turn>``, ChatML's ``<|im_end|>``). If the template
    writes no such token, or is written out in the recipe, an answer ends with the end of the sequence.

    Args:
        stop_ids: tokens that stop generation, beside the end of the sequence.

    Raises:
        RecipeError: if the chat template cannot be used; see :func:`~polyvex.recipe.chat.render_chat`.
    """
    end: Any = tokenizer.eos_token_id
    if prompt.template != CHAT:
        return PromptForm(template=placed(prompt.template, prompt.image_place), end_ids=[end], dated=False)
    chat = render_chat(prompt, tokenizer)
    ids = tokenizer.encode(chat.after, add_special_tokens=False) if chat.after else []
    stop = next((place for place, one in enumerate(ids) if one in (*stop_ids, end)), None)
    return PromptForm(
        template=placed(chat.prompt, prompt.image_place),
        end_ids=[end] if stop is None else ids[: stop + 1],
        dated=chat.dated,
    )


def template_of(prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The template with its ``{image}`` where it belongs.

    Raises:
        RecipeError: if the chat template cannot be used; see :func:`~polyvex.recipe.chat.render_chat`.
    """
    return prompt_form(prompt, tokenizer).template
