"""Shared positions and attention: the trap that a vision-language model falls into without a word.

transformers takes repeated position ids for packed sequences and cuts attention between them, unless a mask or a
cache is given. Here every scheme, attention implementation, cache and padding is held to a reference: the plain
language model with a 4-D mask and position ids that this file makes by hand, with loops.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers.integrations.flex_attention as flex
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from polyvex.assemble import Built
from polyvex.errors import ContractError
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.positions import register_position_schemes

SCHEMES = tuple(register_position_schemes())
KINDS = ("sequential", "share_all", "share_row", "share_row_col")
SHARING = KINDS[1:]
BASES = [
    (name, base) for name in SCHEMES for base in ("sequential", "common") if base == "common" or name != "share_encoder"
]
ATTENTION = ("sdpa", "eager", "flex_attention")
STEPS = {"stride": 0.25, "random_stride": 0.0625}  # by default
# patchify: 2 × 2; color-grid: 2 × 4. Twelve visual tokens, as (encoder, row, column).
PLACES = [(0, row, col) for row in range(2) for col in range(2)] + [
    (1, row, col) for row in range(2) for col in range(4)
]

Batch = dict[str, Any]


def step_by_hand(scheme: str, source: int, *, common: bool) -> float:
    """From one token to the next; ``built_for`` gives 5 positions to interpolate, for 12 tokens or for one run's."""
    if scheme == "interpolate":
        return min(1, 5 / ((4, 8)[source] if common else 12))
    return STEPS.get(scheme, 1)


def offset_by_hand(scheme: str, number: int, row: int, step: float) -> float:
    """Where the token with a number in its encoder's run and a row sits, counted from the run's start."""
    if scheme in STEPS:  # a step before each token, from the one in front of the run, which is at -1
        return (number + 1) * step - 1
    if scheme == "interpolate":
        return number * step
    return {"share_all": 0, "share_row": row, "share_row_col": row}.get(scheme, number)


def position_ids_by_hand(
    scheme: str, tokens: list[int], image_token: int, pad: int, base: str = "sequential"
) -> list[float]:
    """Walk over one row with a counter; what each scheme shares is said here a second time, on purpose."""
    common = base == "common" or scheme == "share_encoder"
    ids: list[float] = []
    free, seen = 0.0, 0
    start = run = numbered = 0.0
    for token in tokens:
        if token == pad:
            ids.append(0)
        elif token == image_token:
            source, row, _ = PLACES[seen % 12]
            if seen % 12 == 0:
                start, run, numbered = free, free, 0
            elif source != PLACES[seen % 12 - 1][0]:
                run, numbered = (start if common else free), 0
            step = step_by_hand(scheme, source, common=common)
            here = run + offset_by_hand(scheme, int(numbered), row, step)
            ids.append(here)
            numbered += 1
            free = max(free, here + (1 if scheme in STEPS else step))
            seen += 1
            if seen % 12 == 0:
                free = math.ceil(round(free, 6))
        else:
            ids.append(free)
            free += 1
    return ids


def mask_by_hand(valid: Tensor, attention: str) -> Tensor:
    """4-D: each place sees itself and all real places before it. True or 0 is "may see"."""
    batch, length = valid.shape
    allowed = torch.zeros(batch, 1, length, length, dtype=torch.bool)
    for row in range(batch):
        for query in range(length):
            for key in range(query + 1):
                allowed[row, 0, query, key] = bool(valid[row, key]) or key == query
    if attention == "sdpa":
        return allowed
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)


def embeddings_by_hand(model: PolyvexForConditionalGeneration, batch: Batch) -> Tensor:
    """Text embeddings, and the fused visual tokens one by one in the places of the placeholders."""
    parts = [model.fusion.first[index](batch["encoder_tokens"][name]) for index, name in enumerate(model.encoder_names)]
    visual = model.fusion.rest[0](torch.cat(parts, dim=1))
    columns = dict(model.positions.named_parameters()).get("scheme.columns")
    if columns is not None:
        # Two columns of patchify, then four of color-grid.
        table = [col if source == 0 else 2 + col for source, _, col in PLACES]
        visual = visual + columns[table]
    queue = iter(visual.reshape(-1, visual.shape[-1]))
    weight = model.lm.get_input_embeddings().weight
    rows = []
    for row in batch["input_ids"].tolist():
        rows.append(
            torch.stack([next(queue) if token == model.config.image_token_id else weight[token] for token in row])
        )
    return torch.stack(rows)


def reference(built: Built, scheme: str, batch: Batch, attention: str, base: str = "sequential") -> Tensor:
    """The plain language model; flex attention is held to sdpa, which takes a mask that this file can make."""
    model, pad = built.model, built.processor.tokenizer.pad_token_id
    image = model.config.image_token_id
    rows = [position_ids_by_hand(scheme, row, image, pad, base) for row in batch["input_ids"].tolist()]
    plain = "eager" if attention == "eager" else "sdpa"
    model.lm.set_attn_implementation(plain)
    logits = model.lm(
        inputs_embeds=embeddings_by_hand(model, batch),
        attention_mask=mask_by_hand(batch["attention_mask"].bool(), plain),
        position_ids=torch.tensor(rows),
        use_cache=False,
    ).logits
    model.lm.set_attn_implementation(attention)
    return logits


def make_batch(built: Built, padding: str) -> Batch:
    """One row, or rows of different length with one image, with two, and with none, padded on one side."""
    prompts = built.processor.prompts
    asked = [("what color is the square?", 1), ("where?", 2), ("is it?", 0)]
    rows = [prompts.ids(prompts.text(question, images=images)) for question, images in asked]
    if padding == "none":
        rows = rows[:1]
    pad, longest = built.processor.tokenizer.pad_token_id, max(map(len, rows))
    fill = [[pad] * (longest - len(row)) for row in rows]
    padded = [more + row if padding == "left" else row + more for more, row in zip(fill, rows, strict=True)]
    ids = torch.tensor(padded)
    generator = torch.Generator().manual_seed(1)
    images = int((ids == built.model.config.image_token_id).sum()) // 12
    tokens = {
        "patchify": torch.randn(images, 4, 8, generator=generator),
        "color-grid": torch.randn(images, 8, 6, generator=generator),
    }
    return {"input_ids": ids, "attention_mask": (ids != pad).long(), "encoder_tokens": tokens}


@pytest.fixture
def built_for(shared_built: Callable[..., Built]) -> Iterator[Callable[..., Built]]:
    """A function from scheme, attention and experts to a model; attention is set back afterwards."""
    used = []

    def make(scheme: str, attention: str = "sdpa", *, base: str = "", experts: bool = False) -> Built:
        changes = [f"positions.use={scheme}", *([f"positions.base={base}"] if base else [])]
        if scheme == "interpolate":
            changes.append("positions.positions=5")
        built = shared_built(*changes, experts=experts)
        built.model.lm.set_attn_implementation(attention)
        used.append(built)
        return built

    with torch.no_grad():
        yield make
    for built in used:
        built.model.lm.set_attn_implementation("sdpa")


def close(left: Tensor, right: Tensor, valid: Tensor) -> bool:
    """Equal at the real places; what comes out on padding is nobody's business."""
    return torch.allclose(left[valid], right[valid], atol=1e-4, rtol=1e-4)


@pytest.fixture(autouse=True, scope="module")
def flex_without_a_compiler() -> Iterator[None]:
    """Flex attention as torch computes it without compiling a kernel: the same mask, and no minute of waiting."""
    wrapped = flex.WrappedFlexAttention(False)
    compiled, wrapped._compiled_flex_attention = wrapped._compiled_flex_attention, flex_attention
    yield
    wrapped._compiled_flex_attention = compiled


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(("scheme", "base"), BASES)
def test_logits_are_those_of_the_plain_model_with_a_4d_mask(
    scheme: str, base: str, attention: str, padding: str, use_cache: bool, built_for: Callable[..., Built]
) -> None:
    built = built_for(scheme, attention, base=base)
    batch = make_batch(built, padding)
    logits = built.model(**batch, use_cache=use_cache).logits
    assert close(logits, reference(built, scheme, batch, attention, base), batch["attention_mask"].bool())


def pack(batch: Batch) -> tuple[Batch, Tensor]:
    """The rows of a right-padded batch in one row, with padding behind them, and the places that they came from."""
    valid = batch["attention_mask"].bool()
    ids, numbers = batch["input_ids"][valid], valid.nonzero()[:, 0]
    fill = torch.zeros(3, dtype=torch.long)
    packed = {
        **batch,
        "input_ids": torch.cat([ids, fill])[None],
        "attention_mask": torch.cat([torch.ones_like(ids), fill])[None],
        "documents": torch.cat([numbers, fill - 1])[None],
    }
    return packed, valid


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(("scheme", "base"), BASES)
def test_packed_texts_have_the_logits_of_rows_of_their_own(
    scheme: str, base: str, attention: str, built_for: Callable[..., Built]
) -> None:
    built = built_for(scheme, attention, base=base)
    batch = make_batch(built, "right")
    packed, valid = pack(batch)
    logits = built.model(**packed, use_cache=False).logits
    expected = reference(built, scheme, batch, attention, base)[valid]
    assert torch.allclose(logits[0, :-3], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ATTENTION)
def test_this_file_would_notice_packing_without_its_mask(
    attention: str, built_for: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = built_for("share_row", attention)
    batch = make_batch(built, "right")
    packed, valid = pack(batch)
    expected = reference(built, "share_row", batch, attention)[valid]
    monkeypatch.setattr("polyvex.model.modeling.packed_mask", lambda _lm, _documents, valid, _dtype: valid.long())
    logits = built.model(**packed, use_cache=False).logits
    assert not torch.allclose(logits[0, :-3], expected, atol=1e-4, rtol=1e-4)


def test_transformers_would_read_packed_texts_off_the_positions(built_for: Callable[..., Built]) -> None:
    # With no mask at all, each token behind an image that shares positions would be cut from it.
    built = built_for("share_row")
    packed, _valid = pack(make_batch(built, "right"))
    packed = {**packed, **{name: packed[name][:, :-3] for name in ("input_ids", "attention_mask", "documents")}}
    expected = built.model(**packed, use_cache=False).logits
    plain = built.model.lm.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built.model.lm, "forward", lambda **inputs: plain(**{**inputs, "attention_mask": None}))
        cut = built.model(**packed, use_cache=False).logits
    assert (cut - expected).abs().max() > 0.1


def test_packed_texts_and_a_cache_do_not_go_together(built_for: Callable[..., Built]) -> None:
    built = built_for("share_row")
    packed, _ = pack(make_batch(built, "right"))
    with pytest.raises(ContractError, match="documents go with a 2-D attention_mask and without a cache"):
        built.model(**{**packed, "attention_mask": torch.ones(1, 1, 2, 2)})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_mask_that_is_left_out_is_all_ones(scheme: str, built_for: Callable[..., Built]) -> None:
    built = built_for(scheme)
    batch = make_batch(built, "none")
    mask = batch.pop("attention_mask")
    logits = built.model(**batch, use_cache=False).logits
    assert close(logits, reference(built, scheme, {**batch, "attention_mask": mask}, "sdpa"), mask.bool())


@pytest.mark.parametrize("scheme", SHARING)
def test_the_trap_is_there(scheme: str, built_for: Callable[..., Built]) -> None:
    # The plain language model with the same shared ids, no mask and no cache: attention is cut. Should transformers
    # ever mend this, the explicit mask may go, and this test says so.
    built = built_for(scheme)
    batch = make_batch(built, "none")
    rows = position_ids_by_hand(scheme, batch["input_ids"][0].tolist(), built.model.config.image_token_id, pad=0)
    embeds, positions = embeddings_by_hand(built.model, batch), torch.tensor([rows])
    wrong = built.model.lm(inputs_embeds=embeds, position_ids=positions, use_cache=False).logits
    right = reference(built, scheme, batch, "sdpa")
    assert (wrong[:, -1] - right[:, -1]).abs().max() > 0.1
    ones = torch.ones(positions.shape, dtype=torch.long)
    masked = built.model.lm(inputs_embeds=embeds, position_ids=positions, attention_mask=ones, use_cache=False).logits
    assert close(masked, right, ones.bool())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("scheme", SHARING)
def test_this_file_would_notice_a_model_that_forgets_the_mask(
    scheme: str, attention: str, built_for: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = built_for(scheme, attention)
    batch = make_batch(built, "none")
    expected, plain = reference(built, scheme, batch, attention), built.model.lm.forward
    monkeypatch.setattr(built.model.lm, "forward", lambda **inputs: plain(**{**inputs, "attention_mask": None}))
    logits = built.model(**batch, use_cache=False).logits
    assert not close(logits, expected, batch["attention_mask"].bool())


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_visual_token_changes_what_comes_after_it_and_nothing_before(
    scheme: str, padding: str, use_cache: bool, built_for: Callable[..., Built]
) -> None:
    built = built_for(scheme)
    batch = make_batch(built, padding)
    row = batch["input_ids"][0].tolist()
    first = row.index(built.model.config.image_token_id)
    changed = {name: values.clone() for name, values in batch["encoder_tokens"].items()}
    changed["patchify"][0, 1] += 1.0  # the second visual token of the first row's image
    before = built.model(**batch, use_cache=use_cache).logits
    after = built.model(**{**batch, "encoder_tokens": changed}, use_cache=use_cache).logits
    gap = (before - after).abs().amax(dim=-1)
    place, valid = first + 1, batch["attention_mask"].bool()
    later = valid[0].clone()
    later[:place] = False
    assert (gap[0][later] > 1e-3).all()
    assert gap[0][:place][valid[0][:place]].max() == 0
    assert len(gap) == 1 or gap[1:][valid[1:]].max() == 0


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize(("scheme", "base"), BASES)
def test_decoding_by_hand_with_a_cache_is_the_full_forward(
    scheme: str, base: str, padding: str, attention: str, built_for: Callable[..., Built]
) -> None:
    from polyvex.sequence import lay_out

    built = built_for(scheme, attention, base=base)
    model, batch = built.model, make_batch(built, padding)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    more = torch.randint(3, 250, (len(ids), 3), generator=torch.Generator().manual_seed(2))
    full_ids, full_mask = torch.cat([ids, more], dim=1), torch.cat([mask, torch.ones_like(more)], dim=1)
    full = {**batch, "input_ids": full_ids, "attention_mask": full_mask}
    expected = model(**full, use_cache=False).logits
    assert close(expected, reference(built, scheme, full, attention, base), full_mask.bool())

    following = model.positions.assign(lay_out(ids == model.config.image_token_id, mask.bool(), model.layout)).next_id
    output = model(**batch, use_cache=True)
    assert close(output.logits, expected[:, : ids.shape[1]], mask.bool())
    for step in range(3):
        place = ids.shape[1] + step
        output = model(
            input_ids=more[:, step : step + 1],
            attention_mask=full_mask[:, : place + 1],
            position_ids=following[:, None] + step,
            past_key_values=output.past_key_values,
            use_cache=True,
        )
        assert torch.allclose(output.logits[:, 0], expected[:, place], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_prompt_can_be_read_in_two_pieces(scheme: str, built_for: Callable[..., Built]) -> None:
    # The image in the first piece, text in the second: a chunk of several tokens behind a cache.
    built = built_for(scheme)
    model, batch = built.model, make_batch(built, "none")
    ids = batch["input_ids"]
    positions = torch.tensor([position_ids_by_hand(scheme, ids[0].tolist(), model.config.image_token_id, pad=0)])
    expected = model(**batch, use_cache=False).logits
    cut = ids.shape[1] - 4
    first = model(input_ids=ids[:, :cut], encoder_tokens=batch["encoder_tokens"], use_cache=True)
    second = model(
        input_ids=ids[:, cut:], position_ids=positions[:, cut:], past_key_values=first.past_key_values, use_cache=True
    )
    assert torch.allclose(second.logits, expected[:, cut:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_padding_changes_nothing(scheme: str, built_for: Callable[..., Built]) -> None:
    built = built_for(scheme, experts=True)
    alone, left = make_batch(built, "none"), make_batch(built, "left")
    valid = left["attention_mask"][0].bool()
    first_image = {name: values[:1] for name, values in left["encoder_tokens"].items()}
    expected = built.model(**{**alone, "encoder_tokens": first_image}, use_cache=False).logits[0]
    assert torch.allclose(built.model(**left, use_cache=False).logits[0][valid], expected, atol=1e-4, rtol=1e-4)


def test_attention_that_reads_positions_as_packing_is_refused(built_for: Callable[..., Built]) -> None:
    with pytest.raises((ValueError, ImportError)):
        built_for("share_row").model.set_attn_implementation("flash_attention_2")
