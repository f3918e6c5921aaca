"""generate(): cached decoding is the full forward, in batches, with beams, with images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from polyvex.assemble import Built
from polyvex.data.batches import pad_left

SCHEMES = (
    *(
        "sequential",
        "share_all",
        "share_row",
        "share_row_col",
        "share_encoder",
        "stride",
        "random_stride",
        "interpolate",
    ),
    *("share_row positions.base=common", "stride positions.base=common"),
)
NEW = 5


def chosen(scheme: str) -> list[str]:
    """Changes to the recipe: the scheme, and what stands behind it."""
    return [f"positions.use={scheme}".split()[0], *scheme.split()[1:]]


def prompts_of(built: Built, *asked: tuple[str, int]) -> tuple[list[list[int]], dict[str, Tensor]]:
    """Ids of each question with so many images, and encoder tokens of all images."""
    prompts = built.processor.prompts
    rows = [prompts.ids(prompts.text(question, images=images)) for question, images in asked]
    count = sum(images for _, images in asked)
    generator = torch.Generator().manual_seed(5)
    tokens = {
        "patchify": torch.randn(count, 4, 8, generator=generator),
        "color-grid": torch.randn(count, 8, 6, generator=generator),
    }
    return rows, tokens


def inputs_of(built: Built, rows: list[list[int]], tokens: dict[str, Tensor]) -> dict[str, Any]:
    inputs: dict[str, Any] = pad_left(rows, built.processor.tokenizer.pad_token_id)
    if len(tokens["patchify"]):
        inputs["encoder_tokens"] = tokens
    return inputs


@torch.no_grad()
def greedy_by_hand(built: Built, row: list[int], tokens: dict[str, Tensor]) -> tuple[list[int], Tensor]:
    """Ask for the whole sequence again for every token: no cache, no padding, no batch."""
    row, logits = list(row), []
    images = {"encoder_tokens": tokens} if len(tokens["patchify"]) else {}
    for _ in range(NEW):
        last = built.model(input_ids=torch.tensor([row]), **images, use_cache=False).logits[0, -1]
        logits.append(last)
        row.append(int(last.argmax()))
    return row, torch.stack(logits)


def generate(built: Built, inputs: dict[str, Any], **options: Any) -> Any:
    # No end-of-sequence, so that all answers have the same length.
    return built.model.generate(**inputs, max_new_tokens=NEW, do_sample=False, eos_token_id=-1, **options)


ASKED = [("what color is the square?", 1), ("where?", 2), ("is it?", 0)]


@pytest.mark.parametrize("experts", [False, True], ids=["dense", "experts"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_cached_decoding_is_the_full_forward(
    scheme: str, attention: str, experts: bool, make_built: Callable[..., Built]
) -> None:
    built = make_built(*chosen(scheme), experts=experts)
    built.model.lm.set_attn_implementation(attention)
    rows, tokens = prompts_of(built, *ASKED)
    output = generate(built, inputs_of(built, rows, tokens), output_logits=True, return_dict_in_generate=True)
    new = output.sequences[:, -NEW:]
    logits = torch.stack(output.logits, dim=1)
    parts = {name: values.split([images for _, images in ASKED]) for name, values in tokens.items()}
    for index, row in enumerate(rows):
        expected, expected_logits = greedy_by_hand(built, row, {name: one[index] for name, one in parts.items()})
        assert new[index].tolist() == expected[-NEW:]
        assert torch.allclose(logits[index], expected_logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_a_cache_generate_says_the_same(scheme: str, shared_built: Callable[..., Built]) -> None:
    built = shared_built(*chosen(scheme))
    inputs = inputs_of(built, *prompts_of(built, *ASKED))
    assert torch.equal(generate(built, inputs, use_cache=False), generate(built, inputs, use_cache=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_prompt_may_end_in_an_image(scheme: str, shared_built: Callable[..., Built]) -> None:
    # Then decoding goes on behind a shared position, not behind the last token's own.
    built = shared_built(*chosen(scheme), "prompt.template={question}{image}")
    rows, tokens = prompts_of(built, ("where?", 1))
    expected, _ = greedy_by_hand(built, rows[0], tokens)
    assert generate(built, inputs_of(built, rows, tokens))[0].tolist() == expected


@pytest.mark.parametrize("scheme", ["share_row", "stride"])
def test_beams_go_on_behind_a_prompt_that_ends_in_an_image(scheme: str, shared_built: Callable[..., Built]) -> None:
    built = shared_built(*chosen(scheme), "prompt.template={question}{image}")
    rows, tokens = prompts_of(built, ("where?", 1), ("where is it?", 1))
    together = generate(built, inputs_of(built, rows, tokens), num_beams=3)[:, -NEW:]
    for index, row in enumerate(rows):
        alone = inputs_of(built, [row], {name: values[index : index + 1] for name, values in tokens.items()})
        assert together[index].tolist() == generate(built, alone, num_beams=3)[0, -NEW:].tolist()


@pytest.mark.parametrize("scheme", ["share_row", "stride"])
def test_a_long_answer_is_decoded_as_the_full_forward_says(scheme: str, shared_built: Callable[..., Built]) -> None:
    built = shared_built(*chosen(scheme))
    rows, tokens = prompts_of(built, ("where?", 1))
    inputs = inputs_of(built, rows, tokens)
    output = built.model.generate(**inputs, max_new_tokens=80, do_sample=False, eos_token_id=-1)
    with torch.no_grad():
        logits = built.model(input_ids=output, encoder_tokens=tokens, use_cache=False).logits
    start = len(rows[0])
    assert logits[0, start - 1 : -1].argmax(dim=-1).tolist() == output[0, start:].tolist()


@pytest.mark.parametrize("scheme", ["sequential", "share_row", "stride"])
def test_beam_search_takes_each_row_with_its_images(scheme: str, shared_built: Callable[..., Built]) -> None:
    # Rows have one image, two and none: beams of a batch are those of each row alone.
    built = shared_built(*chosen(scheme))
    rows, tokens = prompts_of(built, *ASKED)
    together = generate(built, inputs_of(built, rows, tokens), num_beams=3)[:, -NEW:]
    parts = {name: values.split([images for _, images in ASKED]) for name, values in tokens.items()}
    for index, row in enumerate(rows):
        alone = inputs_of(built, [row], {name: one[index] for name, one in parts.items()})
        assert together[index].tolist() == generate(built, alone, num_beams=3)[0, -NEW:].tolist()


def test_beam_search_finds_what_is_at_least_as_probable_as_greedy(shared_built: Callable[..., Built]) -> None:
    built = shared_built()
    rows, tokens = prompts_of(built, ("where?", 1))
    inputs = inputs_of(built, rows, tokens)

    @torch.no_grad()
    def log_probability(sequence: Tensor) -> float:
        logits = built.model(input_ids=sequence[None], encoder_tokens=tokens, use_cache=False).logits[0]
        steps = logits[-NEW - 1 : -1].log_softmax(-1).gather(1, sequence[-NEW:, None])
        return float(steps.sum())

    greedy, beams = generate(built, inputs)[0], generate(built, inputs, num_beams=4)[0]
    assert log_probability(beams) >= log_probability(greedy) - 1e-4


def test_beam_search_sees_the_image(shared_built: Callable[..., Built]) -> None:
    built = shared_built()
    rows, tokens = prompts_of(built, ("where?", 1))
    other = {name: values + 3 for name, values in tokens.items()}
    one = generate(built, inputs_of(built, rows, tokens), num_beams=3)
    assert not torch.equal(one, generate(built, inputs_of(built, rows, other), num_beams=3))


def test_several_answers_to_one_question(shared_built: Callable[..., Built]) -> None:
    # top_k = 1 leaves sampling no choice, so each of the answers is the greedy one.
    built = shared_built()
    rows, tokens = prompts_of(built, *ASKED)
    inputs = inputs_of(built, rows, tokens)
    greedy = generate(built, inputs)
    several = built.model.generate(
        **inputs, max_new_tokens=NEW, do_sample=True, top_k=1, num_return_sequences=2, eos_token_id=-1
    )
    assert torch.equal(several, greedy.repeat_interleave(2, dim=0))


def test_pixels_are_encoded_once(shared_built: Callable[..., Built], monkeypatch: pytest.MonkeyPatch) -> None:
    built = shared_built()
    seen = []
    plain = built.model._encode
    monkeypatch.setattr(built.model, "_encode", lambda name, pixels: seen.append(name) or plain(name, pixels))
    rows, _ = prompts_of(built, ("where?", 1))
    pixels = {name: torch.zeros(1, 3, 32, 32) for name in built.model.encoder_names}
    generate(built, {**pad_left(rows, 0), "pixel_values": pixels})
    assert seen == built.model.encoder_names


def test_answers_end_at_the_end_of_sequence(make_built: Callable[..., Built]) -> None:
    built = make_built()
    end = built.processor.tokenizer.eos_token_id
    force(built, end)
    rows, tokens = prompts_of(built, ("where?", 1))
    output = built.model.generate(**inputs_of(built, rows, tokens), max_new_tokens=NEW, do_sample=False)
    assert output[0, len(rows[0]) :].tolist() == [end]


def test_a_placeholder_is_never_an_answer(make_built: Callable[..., Built]) -> None:
    # Where the tokenizer has fewer tokens than the model's vocabulary, the placeholder's id is one that the model can
    # say. Read again, it would ask for an image that is not there.
    built = make_built("lm.vocab_size=400")
    image = built.model.config.image_token_id
    assert image < 400
    force(built, image)
    rows, tokens = prompts_of(built, ("where?", 1))
    output = generate(built, inputs_of(built, rows, tokens))
    assert image not in output[0, len(rows[0]) :].tolist()


def force(built: Built, token: int) -> None:
    """Make one token by far the most probable at every place."""
    built.model.lm.lm_head.register_forward_hook(
        lambda module, args, logits: logits.index_add(
            -1, torch.tensor([token]), torch.full((*logits.shape[:-1], 1), 1e4)
        )
    )
