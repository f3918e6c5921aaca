"""Examples and batches."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from polyvex.data import Sample
from polyvex.data.batches import Collator, Example, ExampleDataset
from polyvex.data.prompt import IGNORED, IMAGE, PromptEncoder
from polyvex.errors import DataError
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions


@pytest.fixture(scope="module")
def prompts() -> PromptEncoder:
    tokenizer = SmallLlama(SmallLlamaOptions(vocab_size=300)).tokenizer(["what? red"])
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    return PromptEncoder(tokenizer=tokenizer, template="{image}{question}", image_token_id=300, visual_tokens=3)


def read_images(paths: Sequence[str]) -> dict[str, Any]:
    """One token per image that says which path it came from."""
    return {"encoder_tokens": {"a": torch.tensor([[[float(ord(path[0]))]] for path in paths])}}


SAMPLE = Sample(id="one", question="what?", answer="red", images=("x.png",))


def test_an_example_is_ids_labels_and_images(prompts: PromptEncoder) -> None:
    (example,) = ExampleDataset([SAMPLE], prompts, images=True, context=100)
    assert (example.ids, example.labels) == prompts.example("what?", "red", images=1)
    assert example.images == ("x.png",)


def test_images_can_be_left_out(prompts: PromptEncoder) -> None:
    (example,) = ExampleDataset([SAMPLE], prompts, images=False, context=100)
    assert (example.ids, example.labels) == prompts.example("what?", "red", images=0)
    assert example.images == ()


def test_a_sample_of_exactly_the_context_fits(prompts: PromptEncoder) -> None:
    length = len(prompts.example("what?", "red")[0])
    assert len(ExampleDataset([SAMPLE], prompts, images=True, context=length)[0].ids) == length


def test_a_longer_sample_is_an_error_never_cut(prompts: PromptEncoder) -> None:
    length = len(prompts.example("what?", "red")[0])
    dataset = ExampleDataset([SAMPLE], prompts, images=True, context=length - 1)
    with pytest.raises(DataError) as caught:
        dataset[0]
    assert str(caught.value) == (
        f"sample one has {length} tokens, the language model's context holds {length - 1}. "
        "Leave it out, use fewer visual tokens, or a model with a longer context"
    )


def test_a_batch_is_padded_on_the_right_to_a_multiple() -> None:
    collate = Collator(pad=9, read_images=read_images, multiple=4)
    batch = collate(
        [
            Example(ids=[1, 2, 3, 4, 5], labels=[IGNORED, IGNORED, IGNORED, 4, 5], images=()),
            Example(ids=[1, 2], labels=[IGNORED, 2], images=()),
        ]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 9, 9, 9], [1, 2, 9, 9, 9, 9, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    # Padding is never learned.
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, IGNORED, 4, 5, IGNORED, IGNORED, IGNORED],
        [IGNORED, 2, *[IGNORED] * 6],
    ]


def long(count: int, *, images: tuple[str, ...] = ()) -> Example:
    """An example of ``count`` tokens, each the example's length, of which the first is no answer."""
    return Example(ids=[count] * count, labels=[IGNORED] + [count] * (count - 1), images=images)


def test_short_examples_share_rows() -> None:
    collate = Collator(pad=0, read_images=read_images, multiple=2, pack=True)
    batch = collate([long(2), long(5), long(3), long(1), long(3)])
    # From the longest on: 5 fills a row; 3 and 2 fill one, 3 and 1 share one.
    assert batch["input_ids"].tolist() == [[5] * 5 + [0], [3, 3, 3, 2, 2, 0], [3, 3, 3, 1, 0, 0]]
    assert batch["documents"].tolist() == [[0] * 5 + [-1], [0, 0, 0, 1, 1, -1], [0, 0, 0, 1, -1, -1]]
    assert batch["attention_mask"].tolist() == [[1] * 5 + [0], [1] * 5 + [0], [1] * 4 + [0, 0]]
    assert batch["labels"][1].tolist() == [IGNORED, 3, 3, IGNORED, 2, IGNORED]


def test_no_example_is_asked_to_begin_the_next() -> None:
    # A text whose first token is learned has no place to be learned from in a packed row.
    batch = Collator(pad=0, read_images=read_images, pack=True)([Example(ids=[7, 8], labels=[7, 8], images=())])
    assert batch["labels"][0, :2].tolist() == [IGNORED, 8]


def test_packed_images_come_in_the_order_of_their_examples() -> None:
    rows = [long(1, images=("c",)), long(3, images=("a", "b")), long(2, images=("a",))]
    batch = Collator(pad=0, read_images=read_images, pack=True)(rows)
    assert batch["encoder_tokens"]["a"].flatten().tolist() == [ord(one) for one in "abac"]


def test_a_full_multiple_is_not_padded() -> None:
    batch = Collator(pad=9, read_images=read_images, multiple=2)([Example(ids=[1, 2], labels=[1, 2], images=())])
    assert batch["input_ids"].tolist() == [[1, 2]]


def test_tokens_of_all_images_come_in_the_order_of_the_rows() -> None:
    rows = [
        Example(ids=[1], labels=[1], images=("b", "a")),
        Example(ids=[1], labels=[1], images=()),
        Example(ids=[1], labels=[1], images=("c",)),
    ]
    batch = Collator(pad=0, read_images=read_images)(rows)
    assert batch["encoder_tokens"]["a"].flatten().tolist() == [ord("b"), ord("a"), ord("c")]


def test_text_alone_has_no_encoder_tokens() -> None:
    assert "encoder_tokens" not in Collator(pad=0, read_images=read_images)([Example(ids=[1], labels=[1], images=())])
