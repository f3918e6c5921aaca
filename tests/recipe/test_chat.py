"""Chat templates that cannot be used are refused with a way out, and dates are those of the recipe."""

from datetime import date, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from polyvex.errors import RecipeError
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions
from polyvex.recipe.chat import ASKED, render_chat
from polyvex.recipe.schema import PromptTable

TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
NEEDS_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no system') }}{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role') }}{% endif %}"
IGNORES_SYSTEM = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}"
CONTENT = "{% for m in messages %}{{ m['content'] FILTER }}\n{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return SmallLlama(SmallLlamaOptions()).tokenizer(["user: answer:"])


def chat(**keys: str) -> PromptTable:
    return PromptTable(template="chat", **keys)


@pytest.mark.parametrize(
    ("template", "keys", "code"),
    [
        (None, {}, "chat-template-missing"),
        ("", {}, "chat-template-missing"),
        ("{% for m in messages %}{{ m['content'] }", {}, "chat-template-syntax"),
        (NEEDS_SYSTEM + TURNS, {}, "chat-template-needs-system"),
        (NO_SYSTEM + TURNS, {"system": "Be brief."}, "chat-template-no-system"),
        (IGNORES_SYSTEM, {"system": "Be brief."}, "chat-template-no-system"),
        ({"rag": TURNS, "tool_use": TURNS}, {}, "chat-template-named"),
        ({"rag": TURNS, "default": TURNS}, {"chat_template": "tag"}, "chat-template-unknown"),
        (TURNS, {"chat_template": "rag"}, "chat-template-unknown"),
        (5, {}, "chat-template-type"),
        ({"default": [TURNS]}, {}, "chat-template-type"),
        (TURNS + "{{ tools | length }}", {}, "chat-template-fails"),
        (TURNS + "{{ 1 // 0 }}", {}, "chat-template-fails"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}" + TURNS, {}, "chat-template-fails"),  # the sandbox refuses it
        ("fixed", {}, "chat-template-content"),
        (TURNS + TURNS, {}, "chat-template-content"),
        *(
            (CONTENT.replace("FILTER", one), {}, "chat-template-content")
            for one in ("| upper", "| e", "| truncate(30)")
        ),
        (CONTENT.replace("FILTER", "| replace('  ', ' ')"), {}, "chat-template-content"),
        (TURNS + "{{ range(10 ** 4) | random }}", {}, "chat-template-random"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(
    template: Any, keys: dict[str, str], code: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(RecipeError) as error:
        render_chat(chat(**keys), tokenizer)
    assert error.value.code == code
    assert "prompt." in str(error.value) or code == "chat-template-unknown"


def test_a_system_turn_and_a_named_template_are_ways_out(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = NEEDS_SYSTEM + TURNS
    assert render_chat(chat(system="Be brief."), tokenizer).prompt == f"system: Be brief.\nuser: {ASKED}\n"
    tokenizer.chat_template = {"rag": TURNS, "default": "default " + TURNS}
    assert render_chat(chat(), tokenizer).prompt == f"default user: {ASKED}\n"
    assert render_chat(chat(chat_template="rag"), tokenizer).prompt == f"user: {ASKED}\n"


def test_trimmed_content_is_fine(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CONTENT.replace("FILTER", "| trim")
    assert render_chat(chat(), tokenizer).prompt == ASKED + "\n"


@pytest.mark.parametrize("pattern", ["%d %b %Y", "%Y-%m-%d", "%A, %B %-d, %y", "%H:%M:%S %j", "day %d"])
def test_the_date_is_that_of_the_recipe(pattern: str, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "  Today: {{ strftime_now('" + pattern + "') }}\n" + TURNS
    found = render_chat(chat(date="2025-03-09"), tokenizer)
    assert found.dated
    assert found.prompt == f"  Today: {datetime(2025, 3, 9).strftime(pattern)}\nuser: {ASKED}\n"
    assert render_chat(chat(), tokenizer).prompt.startswith(f"  Today: {date(2026, 1, 1).strftime(pattern)}\n")


def test_a_template_with_a_macro_writes_the_date_and_is_otherwise_unchanged(tokenizer: PreTrainedTokenizerBase) -> None:
    ask = (
        "{% if strftime_now is defined %}{%- macro day() %}{{ strftime_now('%d') }}{% endmacro %}{{ day() }}{% endif %}"
    )
    for start in ("", "\n", "  ", "{{ bos_token }}"):
        tokenizer.chat_template = start + ask + TURNS
        theirs = tokenizer.apply_chat_template([{"role": "user", "content": ASKED}], tokenize=False)
        ours = render_chat(chat(date=date.today().isoformat()), tokenizer)
        assert ours.prompt == theirs
        assert ours.dated


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
def test_the_ends_of_the_calendar_are_dates(day: str, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ strftime_now('%d %B 100%%') }} " + TURNS
    found = render_chat(chat(date=day), tokenizer)
    assert found.dated
    assert found.prompt.startswith(date.fromisoformat(day).strftime("%d %B 100%") + " user")


def test_without_a_date_there_is_nothing_to_report(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = TURNS
    assert not render_chat(chat(), tokenizer).dated


@pytest.mark.parametrize("day", ["2026-02-30", "yesterday", "20260131", "", 20260131, datetime(2026, 1, 1)])
def test_the_date_must_be_a_day(day: Any) -> None:
    with pytest.raises(ValidationError, match="a day of the calendar"):
        PromptTable(template="chat", date=day)


def test_a_date_of_toml_is_taken() -> None:
    day: Any = date(2026, 1, 31)
    assert PromptTable(template="chat", date=day).date == "2026-01-31"


@pytest.mark.parametrize("keys", [{"system": "Be brief."}, {"chat_template": "rag"}, {"date": "2020-01-01"}])
def test_keys_of_chats_need_the_chat_template(keys: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="has no effect unless template is 'chat'"):
        PromptTable(**keys)
