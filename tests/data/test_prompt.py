"""Prompts: labels cover the answer by construction; training and generation ask the same."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken

from polyvex.data.prompt import IGNORED, IMAGE, PromptEncoder
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions

TEMPLATES = [
    "{image}Question: {question}\nAnswer: ",
    "{question} {image} Answer: ",
    "{question}{image}",
    "USER: {image}\n{question} ASSISTANT:",
]
ANSWERS = ["red", "", " two words ", "naïve 漢字 🙂", "Answer: x\nQuestion: y"]


@pytest.fixture(scope="module")
def encoders() -> dict[str, PromptEncoder]:
    tokenizer = SmallLlama(SmallLlamaOptions(vocab_size=300)).tokenizer(["Question: what?\nAnswer: red"] * 5)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    return {
        template: PromptEncoder(
            tokenizer=tokenizer,
            template=template,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
            visual_tokens=3,
        )
        for template in TEMPLATES
    }


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("images", [0, 1, 2])
def test_labels_are_the_answer_and_the_end_and_nothing_else(
    template: str, answer: str, images: int, encoders: dict[str, PromptEncoder]
) -> None:
    encoder = encoders[template]
    tokenizer = encoder.tokenizer
    ids, labels = encoder.example("what?", answer, images=images)
    learned = [label for label in labels if label != IGNORED]
    assert learned == [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
    # Where there is a label, it is the id of that very place; and they are the last places.
    assert ids[-len(learned) :] == learned
    assert labels[: -len(learned)] == [IGNORED] * (len(ids) - len(learned))


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_training_example_begins_with_the_prompt_of_generation(
    template: str, encoders: dict[str, PromptEncoder]
) -> None:
    encoder = encoders[template]
    prompt = encoder.ids(encoder.text("what?"))
    ids, _ = encoder.example("what?", "red")
    assert ids[: len(prompt)] == prompt


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("images", [0, 1, 2])
def test_each_image_is_its_visual_tokens(template: str, images: int, encoders: dict[str, PromptEncoder]) -> None:
    ids, labels = encoders[template].example("what?", "red", images=images)
    places = [place for place, token in enumerate(ids) if token == encoders[template].image_token_id]
    assert len(places) == 3 * images
    assert places == list(range(places[0], places[0] + 3 * images)) if images else not places
    assert all(labels[place] == IGNORED for place in places)


def test_text_by_hand(encoders: dict[str, PromptEncoder]) -> None:
    encoder = encoders[TEMPLATES[0]]
    assert encoder.text("why?") == "<image>Question: why?\nAnswer: "
    assert encoder.text("why?", images=0) == "Question: why?\nAnswer: "
    assert encoder.text("why?", images=2) == "<image><image>Question: why?\nAnswer: "


def test_ids_by_hand(encoders: dict[str, PromptEncoder]) -> None:
    encoder = encoders[TEMPLATES[2]]
    word = encoder.tokenizer.encode("why?", add_special_tokens=False)
    image = encoder.image_token_id
    assert encoder.ids(encoder.text("why?")) == [encoder.tokenizer.bos_token_id, *word, image, image, image]


def test_braces_in_a_question_are_plain_text(encoders: dict[str, PromptEncoder]) -> None:
    assert encoders[TEMPLATES[0]].text("{image} {question}?") == "<image>Question: {image} {question}?\nAnswer: "


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_mark_of_an_image_inside_a_question_or_answer_is_not_an_image(
    template: str, encoders: dict[str, PromptEncoder]
) -> None:
    # "By construction, never by searching text": what people write must not change the number of placeholders.
    encoder = encoders[template]
    ids, _ = encoder.example("what does <image> mean?", "a <image> mark")
    assert ids.count(encoder.image_token_id) == 3


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_special_token_inside_a_question_or_answer_is_text(template: str, encoders: dict[str, PromptEncoder]) -> None:
    encoder = encoders[template]
    ids, labels = encoder.example("what does </s><s> mean?", "it is </s>")
    begin, end = encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id
    assert (ids.count(begin), ids.count(end), labels.count(end)) == (1, 1, 1)
    assert "</s><s> mean?" in encoder.tokenizer.decode([one for one in ids if one != encoder.image_token_id])


def test_a_tokenizer_without_a_beginning_gets_none() -> None:
    tokenizer = SimpleNamespace(
        bos_token=None,
        eos_token_id=9,
        all_special_tokens=[],
        encode=lambda text, add_special_tokens, split_special_tokens=False: [7] * len(text),
    )
    encoder = PromptEncoder(tokenizer=tokenizer, template="{image}{question}", image_token_id=5, visual_tokens=2)
    assert encoder.example("ab", "c") == ([5, 5, 7, 7, 7, 9], [IGNORED, IGNORED, IGNORED, IGNORED, 7, 9])


def test_special_tokens_outside_the_tokenizers_map_are_text_too(encoders: dict[str, PromptEncoder]) -> None:
    encoder = encoders[TEMPLATES[0]]
    tokenizer = copy.deepcopy(encoder.tokenizer)
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True)])
    assert "<|turn|>" not in tokenizer.all_special_tokens
    ids = replace(encoder, tokenizer=tokenizer).question("what <|turn|> is")
    assert tokenizer.convert_tokens_to_ids("<|turn|>") not in ids
