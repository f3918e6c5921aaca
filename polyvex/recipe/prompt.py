"""The prompt's template as the recipe has it: written out, or that of the language model's own chats."""

from typing import TYPE_CHECKING

from polyvex.errors import RecipeError
from polyvex.recipe.schema import CHAT, PromptTable, placed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASKED = "{image}\n{question}"
"""What a person says in a chat."""


def template_of(prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The template with its ``{image}`` where it belongs.

    Raises:
        RecipeError: if it is to be that of chats, and the tokenizer has none.
    """
    return placed(_chat(tokenizer) if prompt.template == CHAT else prompt.template, prompt.image_place)


def _chat(tokenizer: "PreTrainedTokenizerBase") -> str:
    """One turn of a person, up to where the model answers."""
    if not tokenizer.chat_template:
        raise RecipeError(
            [f"[prompt]: template is '{CHAT}', but the language model's tokenizer has no chat template. Write one out"]
        )
    said = [{"role": "user", "content": ASKED}]
    text = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
    if any(text.count(mark) != 1 for mark in ("{image}", "{question}")):
        raise RecipeError([f"[prompt]: the chat template of the tokenizer does not keep what is asked: {text!r}"])
    return text
