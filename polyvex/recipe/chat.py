"""The chat template of a tokenizer, rendered by transformers: one question, and the turn that answers it.

The template's ``strftime_now`` returns the recipe's date instead of today's, so that two runs of a recipe are equal.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from polyvex.errors import RecipeError
from polyvex.recipe.schema import PromptTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASKED = "{image}\n{question}"
"""The content of the user's turn."""

ANSWERED = "polyvex-answer"
"""Stands for the answer while the template renders it."""

PROBES = ("What color is it?", "It's 2 < 3 & \"A\"  isn't ä: {x}, 50 %", "none")
"""Questions that a template must write as they are."""

SYSTEM = "You are a helpful assistant."
"""A system turn, to find out whether a template needs one."""

WRITE_OUT = 'or write the prompt out: prompt.template = "{image}Question: {question}\\nAnswer: "'
DIRECTIVES = "aAbBcCdDeFgGhHIjklmMpPrRSTuUVwWxXyYzZ%"


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A rendered chat: the prompt with ``{image}`` and ``{question}``, and what follows an answer.

    ``after`` is the text that the template writes behind the content of the assistant's turn; None if it has no such
    turn. ``dated`` is true if the prompt contains the date.
    """

    prompt: str
    after: str | None
    dated: bool


def render_chat(prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase") -> Chat:
    """Render the chat template that the recipe chooses.

    Raises:
        RecipeError: if it is missing, cannot be rendered, or changes the question. Each cause has its own ``code``,
            which begins with ``chat-template``.
    """
    source = _source(prompt, tokenizer)
    text = _prompt(source, prompt, tokenizer)
    _check_content(text, source, prompt, tokenizer)
    day = date.fromisoformat(prompt.date)
    shift = timedelta(days=400 if day.year < 5000 else -400)  # Python's calendar ends with the year 9999
    other = prompt.model_copy(update={"date": str(day + shift)})
    return Chat(
        prompt=text,
        after=_after(source, prompt, tokenizer),
        dated=_render(source, other, tokenizer, _turns(prompt)) != text,
    )


def _source(prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The template's text."""
    found = tokenizer.chat_template
    named = prompt.chat_template
    if not found:
        raise _error("chat-template-missing", f"the language model's tokenizer has none. Use a chat model, {WRITE_OUT}")
    if isinstance(found, dict):
        names = ", ".join(f'"{name}"' for name in sorted(found))
        if not named and "default" not in found:
            raise _error(
                "chat-template-named", f"the tokenizer has several. Set prompt.chat_template to one of {names}"
            )
        if named and named not in found:
            raise _error("chat-template-unknown", f"the tokenizer has none named {named!r}. Expected one of {names}")
        found = found[named or "default"]
    elif named:
        raise _error(
            "chat-template-unknown", f"the tokenizer has one template without a name. Remove chat_template = {named!r}"
        )
    if not isinstance(found, str):
        kind = type(found).__name__
        raise _error(
            "chat-template-type", f"it is a value of type {kind}, expected text. Correct the tokenizer, {WRITE_OUT}"
        )
    return found


def _prompt(source: str, prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The prompt up to the answer, or an error that says what the template lacks."""
    from jinja2 import TemplateSyntaxError

    try:
        text = _render(source, prompt, tokenizer, _turns(prompt))
        if text != _render(source, prompt, tokenizer, _turns(prompt)):
            raise _error("chat-template-random", f"it renders differently each time. Use another model, {WRITE_OUT}")
    except RecipeError:
        raise
    except TemplateSyntaxError as error:
        raise _error(
            "chat-template-syntax", f"line {error.lineno}: {error}. Correct the tokenizer, {WRITE_OUT}"
        ) from None
    except Exception as error:  # a template can raise whatever its expressions lead to
        raise _failed(error, source, prompt, tokenizer) from None
    if prompt.system and prompt.system.strip() not in text:
        raise _error("chat-template-no-system", "it ignores the system turn. Remove prompt.system")
    return text


def _failed(error: Exception, source: str, prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase") -> RecipeError:
    """What to do about a template that cannot be rendered: a system turn may be missing, or one too many."""
    why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    other = prompt.model_copy(update={"system": "" if prompt.system else SYSTEM})
    try:
        _render(source, other, tokenizer, _turns(other))
    except Exception:  # then the system turn does not matter
        return _error("chat-template-fails", f"it cannot be rendered ({why}). Correct the tokenizer, {WRITE_OUT}")
    if prompt.system:
        return _error("chat-template-no-system", f"it takes no system turn ({why}). Remove prompt.system")
    return _error("chat-template-needs-system", f'it needs a system turn ({why}). Set prompt.system = "{SYSTEM}"')


def _check_content(text: str, source: str, prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase") -> None:
    """The template must write the question once, as it is: filling it in later must give what the template gives."""
    if text.count("{image}") != 1 or text.count("{question}") != 1:
        raise _error(
            "chat-template-content", f"it does not keep the question: {text[:200]!r}. Use another, {WRITE_OUT}"
        )
    for question in PROBES:
        asked = _turns(prompt, ASKED.replace("{question}", question))
        if (got := _render(source, prompt, tokenizer, asked)) != text.replace("{question}", question):
            raise _error(
                "chat-template-content",
                f"it changes the question {question!r}: {got[:200]!r}. Use another, {WRITE_OUT}",
            )


def _after(source: str, prompt: PromptTable, tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """What the template writes behind an answer; None if it cannot write one."""
    turns = [*_turns(prompt), {"role": "assistant", "content": ANSWERED}]
    try:
        text = _render(source, prompt, tokenizer, turns, answer=False)
    except Exception:  # a template for prompts alone; the prompt itself is fine
        return None
    return text.partition(ANSWERED)[2] if text.count(ANSWERED) == 1 else None


def _turns(prompt: PromptTable, asked: str = ASKED) -> list[dict[str, str]]:
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": asked}]


def _render(
    source: str,
    prompt: PromptTable,
    tokenizer: "PreTrainedTokenizerBase",
    turns: list[dict[str, str]],
    *,
    answer: bool = True,
) -> str:
    """The text of some turns, rendered in transformers' sandbox; with ``answer`` up to where the model answers."""
    frozen = _clock(prompt.date) + source if "strftime_now" in source else source
    return str(tokenizer.apply_chat_template(turns, chat_template=frozen, tokenize=False, add_generation_prompt=answer))


def _clock(day: str) -> str:
    """A Jinja macro ``strftime_now`` that writes midnight of ``day``, as :meth:`datetime.date.strftime` does."""
    when = date.fromisoformat(day)
    filters = "".join(
        f" | replace({directive!r}, {when.strftime(directive)!r})"
        for letter in DIRECTIVES
        for directive in (f"%-{letter}", f"%{letter}")
        if when.strftime(directive) != directive
    )
    # The line ends with a tag, whose newline Jinja removes: the template behind it begins on a line of its own.
    return "{% macro strftime_now(format) %}{{ format | string" + filters + " }}{% endmacro %}\n"


def _error(code: str, problem: str) -> RecipeError:
    return RecipeError([f'[prompt]: template = "chat" cannot use the chat template: {problem}'], code=code)
