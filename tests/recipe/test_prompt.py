"""The template of a prompt: written out, or that of a tokenizer's chats."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from polyvex.data.prompt import PromptEncoder
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions
from polyvex.plan import make_plan
from polyvex.recipe import Recipe
from polyvex.recipe.prompt import prompt_form, template_of
from polyvex.recipe.schema import PromptTable

TURNS = "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
ANSWER = "{% if add_generation_prompt %}<s>answer: {% endif %}"


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return SmallLlama(SmallLlamaOptions()).tokenizer(["user: answer:"])


def test_a_template_that_is_written_out_is_taken(tokenizer: PreTrainedTokenizerBase) -> None:
    assert template_of(PromptTable(template="{image}{question}"), tokenizer) == "{image}{question}"
    moved = PromptTable(template="{image}ask {question}", image_place="after")
    assert template_of(moved, tokenizer) == "ask {question}{image}"


def test_a_chat_is_a_turn_of_the_person_and_the_start_of_the_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = TURNS + ANSWER
    assert template_of(PromptTable(template="chat"), tokenizer) == "<s>user: {image}\n{question}</s><s>answer: "
    after = PromptTable(template="chat", image_place="after")
    assert template_of(after, tokenizer) == "<s>user: \n{question}{image}</s><s>answer: "


def test_begin_of_sequence_stands_once(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = TURNS + ANSWER
    begin = tokenizer.bos_token_id
    for template, others in ((template_of(PromptTable(template="chat"), tokenizer), 1), ("{image}{question}", 0)):
        prompts = PromptEncoder(tokenizer=tokenizer, template=template, image_token_id=900, visual_tokens=2)
        ids = prompts.question("what?")
        assert ids[0] == begin
        assert ids.count(begin) == 1 + others
        assert prompts.ids(prompts.text("what?")) == ids


def test_a_tokenizer_without_chats_is_told(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(RecipeError) as error:
        template_of(PromptTable(template="chat"), tokenizer)
    assert error.value.code == "chat-template-missing"


def test_a_chat_that_loses_the_question_is_told(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    with pytest.raises(RecipeError) as error:
        template_of(PromptTable(template="chat"), tokenizer)
    assert error.value.code == "chat-template-content"


@pytest.mark.parametrize(
    ("turn", "stops", "expected"),
    [
        ("</s>", (), [2]),  # ends with the end of the sequence
        ("\n<|end|>\n", ("<|end|>",), ["\n", "<|end|>"]),  # what stands before the end belongs to it, the rest does not
        ("<|end|></s>", ("<|end|>",), ["<|end|>"]),
        ("<|end|></s>", (), ["<|end|>", 2]),  # a token that stops nothing is written as the template has it
        ("\n", ("<|end|>",), [2]),  # the template has no end
    ],
)
def test_an_answer_ends_as_the_template_ends_it(
    turn: str, stops: tuple[str, ...], expected: list[int | str], tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
        + turn.replace("\n", "{{ '\\n' }}")
        + "{% endfor %}"
    )
    ids = {text: tokenizer.encode(text, add_special_tokens=False)[0] for text in ("\n", "<|end|>")}
    form = prompt_form(PromptTable(template="chat"), tokenizer, [ids[one] for one in stops])
    assert form.end_ids == [ids[one] if isinstance(one, str) else one for one in expected]
    assert prompt_form(PromptTable(), tokenizer, [ids[one] for one in stops]).end_ids == [tokenizer.eos_token_id]


def test_a_plan_tells_that_a_fresh_model_has_no_chats(
    tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    (problem,) = make_plan(tiny_recipe("prompt.template=chat"), registries).problems
    assert problem.startswith("[prompt]: template is 'chat', but small-llama was not trained to chat")
