"""A fusion that chooses encoders by the question: what it reads of the question, and which encoders run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from polyvex.assemble import Built
from polyvex.model.questions import questions
from polyvex.sequence import lay_out
from polyvex.tokens import Grid, TokenShape, VisualLayout

Make = Callable[..., Built]
LAYOUT = VisualLayout.of([TokenShape(tokens=2, dim=2, grid=Grid(rows=1, cols=2))])
ROUTED = ("fusion.use=routed", "fusion.grid=[2, 2]", "fusion.k=1")


def places(*rows: str) -> tuple[Tensor, Tensor]:
    marks = torch.tensor([[mark == "x" for mark in row] for row in rows])
    return marks, torch.tensor([[mark != "." for mark in row] for row in rows])


def test_the_question_is_the_mean_of_the_text_without_answer_and_padding() -> None:
    marks, valid = places("1xx23a", "xx5xx.")
    text = torch.tensor([[1.0, 99, 99, 2, 3, 70], [99, 99, 5, 99, 99, 80]])[..., None].expand(-1, -1, 2)
    asked = torch.ones_like(valid)
    asked[0, 5] = False
    found = questions(text, lay_out(marks, valid, LAYOUT), asked)
    # (1 + 2 + 3) / 3 for the first row's image, 5 for both of the second.
    assert found[:, 0].tolist() == [2, 5, 5]


def test_each_packed_text_asks_its_own_question() -> None:
    marks, valid = places("1xx2xx4.")
    numbers = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1]])
    text = torch.tensor([[1.0, 99, 99, 2, 99, 99, 4, 50]])[..., None].expand(-1, -1, 2)
    found = questions(text, lay_out(marks, valid, LAYOUT, numbers), valid)
    assert found[:, 0].tolist() == [1, 3]


def test_an_image_without_text_asks_nothing() -> None:
    marks, valid = places("xx")
    assert questions(torch.ones(1, 2, 3), lay_out(marks, valid, LAYOUT), valid).tolist() == [[0, 0, 0]]


@pytest.fixture
def routed(make_built: Make) -> Built:
    return make_built(*ROUTED)


def watch(built: Built, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which encoders run, and on how many images."""
    seen: list[tuple[str, int]] = []
    plain = built.model._encode

    def spy(name: str, pixels: Any) -> Any:
        seen.append((name, len(pixels)))
        return plain(name, pixels)

    monkeypatch.setattr(built.model, "_encode", spy)
    return seen


def prefer(built: Built, *encoders: int) -> None:
    """Let the gate choose an encoder for each question in turn, whatever it says."""

    def choose(question: Tensor) -> Any:
        from polyvex.fusion.base import Choice

        return Choice(weights=torch.eye(2)[list(encoders)[: len(question)]])

    built.model.fusion.choose = choose  # type: ignore[method-assign]


PICTURES = [Image.new("RGB", (32, 32), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]


def test_encoders_that_were_not_chosen_do_not_run(routed: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = routed.processor(PICTURES, [routed.processor.prompt("why?")] * 3)
    prefer(routed, 0, 1, 0)
    seen = watch(routed, monkeypatch)
    logits = routed.model(**batch).logits
    assert seen == [("patchify", 2), ("color-grid", 1)]
    # All encoders on all images, weighed by the same choice, give the same.
    parts = routed.model.encode(batch["pixel_values"])
    cached = {name: part.values for name, part in zip(routed.model.encoder_names, parts, strict=True)}
    rest = {key: value for key, value in batch.items() if key != "pixel_values"}
    assert torch.allclose(routed.model(**rest, encoder_tokens=cached).logits, logits, atol=1e-5)
    seen.clear()
    prefer(routed, 1, 1, 1)
    routed.model(**batch)
    assert seen == [("color-grid", 3)]


def test_another_question_may_choose_another_encoder(routed: Built) -> None:
    model, texts = routed.model, ("why?", "where is it?", "red", "is it a square, or is it not?")
    asked = []
    for text in texts:
        batch = routed.processor.question(text, PICTURES[:1])
        marks, valid = batch["input_ids"] == model.config.image_token_id, batch["attention_mask"].bool()
        embedded = model.lm.get_input_embeddings()(batch["input_ids"].masked_fill(marks, 0))
        asked.append(questions(embedded, lay_out(marks, valid, model.layout), valid))
    norm, gate = model.fusion.gate
    with torch.no_grad():
        gate.bias.copy_(-gate(norm(torch.cat(asked))).mean(dim=0) + gate.bias)  # no encoder is ahead of the other
    chosen = {int(model.fusion.choose(question).weights.argmax()) for question in asked}
    assert chosen == {0, 1}


def test_the_answer_does_not_choose(routed: Built) -> None:
    ids = routed.processor.question("why?", PICTURES[:1])["input_ids"]
    seen = []
    plain = routed.model.fusion.choose
    routed.model.fusion.choose = lambda question: seen.append(question) or plain(question)  # type: ignore[method-assign]
    tokens = {"patchify": torch.randn(1, 4, 8), "color-grid": torch.randn(1, 8, 6)}
    for answer in ([5, 6], [200, 201]):
        whole = torch.cat([ids, torch.tensor([answer])], dim=1)
        labels = whole.clone()
        labels[:, : ids.shape[1]] = -100
        routed.model(input_ids=whole, labels=labels, encoder_tokens=tokens)
    routed.model(input_ids=ids, encoder_tokens=tokens)
    assert torch.equal(seen[0], seen[1])
    assert torch.allclose(seen[0], seen[2])


def test_decoding_chooses_once_with_and_without_a_cache(routed: Built) -> None:
    batch = routed.processor(
        PICTURES[:2], [routed.processor.prompt(text) for text in ("why?", "where is the red one?")]
    )
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": -1}
    cached = routed.model.generate(**batch, **options)
    assert torch.equal(cached, routed.model.generate(**batch, **options, use_cache=False))
    beams = routed.model.generate(**batch, **options, num_beams=3)
    for row in range(2):
        alone = routed.processor.question(("why?", "where is the red one?")[row], PICTURES[row : row + 1])
        assert beams[row, -5:].tolist() == routed.model.generate(**alone, **options, num_beams=3)[0, -5:].tolist()


def test_the_gate_learns_from_answers(routed: Built) -> None:
    model = routed.model.train()
    model.requires_grad_(False)
    model.fusion.requires_grad_(True)
    batch = routed.processor(PICTURES, [routed.processor.prompt(text) for text in ("why?", "where?", "who is it?")])
    labels = batch["input_ids"].clone()
    labels[:, :-1] = -100
    model(**batch, labels=labels).loss.backward()
    gradients = [parameter.grad for name, parameter in model.fusion.named_parameters() if name.startswith("gate")]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_long_questions_are_averaged_right_in_half_precision() -> None:
    # bfloat16 itself cannot count beyond 256.
    count = 1500
    marks, valid = places("xx" + "a" * count)
    text = torch.cat([torch.zeros(2, 1), torch.full((count, 1), 0.5)])[None].expand(1, -1, 2)
    found = questions(text.bfloat16(), lay_out(marks, valid, LAYOUT), valid)
    assert found.dtype == torch.float32
    assert found.tolist() == [[0.5, 0.5]]


def test_the_language_model_may_be_in_half_precision(make_built: Make) -> None:
    built = make_built(*ROUTED)
    built.model.lm.bfloat16()
    batch = built.processor.question("what color?", [Image.new("RGB", (32, 32))])
    with torch.no_grad():
        assert torch.isfinite(built.model(**batch).logits).all()


def test_an_encoder_that_nobody_chose_gets_gradients_of_zero(make_built: Make) -> None:
    built = make_built(*ROUTED)
    model = built.model.train()
    encoder = torch.nn.Linear(2, 2)
    model.encoders["patchify"].register_module("learned", encoder)
    value = model._idle("patchify")
    value.backward()
    assert all(not one.grad.any() for one in encoder.parameters())
    model.eval()
    assert model._idle("patchify") == 0.0


def asked_of(built: Built) -> list[Tensor]:
    """Every question that the gate is asked from now on."""
    seen: list[Tensor] = []
    plain = built.model.fusion.choose
    built.model.fusion.choose = lambda question: seen.append(question) or plain(question)  # type: ignore[method-assign]
    return seen


def test_texts_that_are_packed_into_a_row_ask_their_own_questions_of_the_model(routed: Built) -> None:
    prompts = [routed.processor.question(text, PICTURES[:1]) for text in ("why?", "where is the red one?")]
    ids = [one["input_ids"][0] for one in prompts]
    tokens = {"patchify": torch.randn(2, 4, 8), "color-grid": torch.randn(2, 8, 6)}
    seen = asked_of(routed)
    documents = torch.cat([torch.full((len(one),), number) for number, one in enumerate(ids)])[None]
    routed.model(input_ids=torch.cat(ids)[None], documents=documents, encoder_tokens=tokens)
    for row in range(2):
        routed.model(input_ids=ids[row][None], encoder_tokens={name: one[row][None] for name, one in tokens.items()})
    assert torch.allclose(seen[0], torch.cat(seen[1:]), atol=1e-6)
    assert not torch.allclose(seen[1], seen[2], atol=1e-2)


def test_what_was_answered_is_never_asked(routed: Built) -> None:
    batch = routed.processor.question("why?", PICTURES[:1])
    seen = asked_of(routed)
    routed.model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=-1, use_cache=False)
    assert len(seen) == 4
    assert all(torch.equal(one, seen[0]) for one in seen)


def test_an_encoder_of_little_weight_runs_too(routed: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyvex.fusion.base import Choice

    routed.model.fusion.choose = lambda question: Choice(weights=torch.tensor([[0.9, 0.1]]))  # type: ignore[method-assign]
    seen = watch(routed, monkeypatch)
    routed.model(**routed.processor.question("why?", PICTURES[:1]))
    assert seen == [("patchify", 1), ("color-grid", 1)]


def test_questions_do_not_train_the_embeddings(routed: Built) -> None:
    model = routed.model.train()
    model.requires_grad_(True)
    seen = asked_of(routed)
    model(**routed.processor.question("why?", PICTURES[:1]))
    assert not seen[0].requires_grad


def test_every_tile_of_an_image_is_weighed_by_its_own_question(make_built: Make) -> None:
    tiling = "{grids=[[1, 2], [2, 2]], newline=false}"
    tiled = [f"encoders.{index}.tiling={tiling}" for index in range(2)]
    built = make_built("fusion.use=routed", "fusion.grid=[2, 2]", "fusion.k=1", *tiled, "lm.max_positions=512")
    pictures = [Image.new("RGB", size, (40, 80, 120)) for size in ((64, 32), (64, 64))]  # three and five tiles
    chosen: list[Tensor] = []
    plain = built.model.fusion.forward

    def spy(parts: Any, choice: Any) -> Any:
        chosen.append(choice.weights)
        return plain(parts, choice)

    built.model.fusion.forward = spy  # type: ignore[method-assign]
    prefer(built, 0, 1)
    built.model(**built.processor(pictures, [built.processor.prompt("why?")] * 2))
    assert chosen[0].argmax(dim=1).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_the_divisor_of_several_kept_encoders_has_its_gradient() -> None:
    from polyvex.fusion.routed import RoutedFusion, RoutedOptions

    torch.manual_seed(0)
    shapes = [TokenShape(tokens=4, dim=3, grid=Grid(rows=2, cols=2))] * 3
    fusion = RoutedFusion(RoutedOptions(k=2), inputs=shapes, dim=5)
    question = torch.randn(1, 5)
    weights = fusion.choose(question).weights
    kept = weights[0].nonzero()[:, 0]
    logits = fusion.gate(question)[0, kept]
    # Over two kept ones the weights are a softmax of their logits, so their sum has no gradient.
    assert torch.allclose(weights[0, kept], logits.softmax(dim=0), atol=1e-6)
    gradient = torch.autograd.grad(weights.sum(), fusion.gate[1].weight)[0]
    assert gradient.abs().max() < 1e-6
