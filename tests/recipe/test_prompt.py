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
from polyvex.recipe.prompt import template_of
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
    with pytest.raises(RecipeError, match="has no chat template"):
        template_of(PromptTable(template="chat"), tokenizer)


def test_a_chat_that_loses_the_question_is_told(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    with pytest.raises(RecipeError, match="does not keep what is asked"):
        template_of(PromptTable(template="chat"), tokenizer)


def test_a_plan_tells_that_a_fresh_model_has_no_chats(
    tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    (problem,) = make_plan(tiny_recipe("prompt.template=chat"), registries).problems
    assert problem.startswith("[prompt]: template is 'chat', but small-llama was not trained to chat")
