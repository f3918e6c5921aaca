"""The loss: answers by hand, auxiliary losses by their weights, and parts that add up to the whole."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polyvex.assemble import Built
from polyvex.data.prompt import IGNORED
from polyvex.model import PolyvexForConditionalGeneration, PolyvexOutput
from polyvex.moe.losses import auxiliary_losses
from polyvex.moe.record import record_routing

Batch = dict[str, Any]
ANSWERS = ["red", "left", "green", "right"]


def make_batch(built: Built, *answers: str, pad: int = 0) -> Batch:
    """One question with one image per answer, padded on the right."""
    rows, labels = zip(*[built.processor.prompts.example("what is it?", answer) for answer in answers], strict=True)
    longest = max(map(len, rows)) + pad
    generator = torch.Generator().manual_seed(4)
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "labels": torch.tensor([row + [IGNORED] * (longest - len(row)) for row in labels]),
        "encoder_tokens": {
            "patchify": torch.randn(4, 4, 8, generator=generator)[: len(answers)],
            "color-grid": torch.randn(4, 8, 6, generator=generator)[: len(answers)],
        },
    }


def part(batch: Batch, rows: slice) -> Batch:
    tokens = {name: values[rows] for name, values in batch["encoder_tokens"].items()}
    text = {name: value[rows] for name, value in batch.items() if name != "encoder_tokens"}
    return {**text, "encoder_tokens": tokens}


def gradients(model: PolyvexForConditionalGeneration, *passes: Batch) -> dict[str, Tensor]:
    """Gradients of the sum of the losses of some passes."""
    model.zero_grad()
    for inputs in passes:
        output: PolyvexOutput = model(**inputs, use_cache=False)
        assert output.loss is not None
        output.loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_answer_loss_is_cross_entropy_over_the_answers_tokens(shared_built: Callable[..., Built]) -> None:
    built = shared_built()
    batch = make_batch(built, *ANSWERS)
    output = built.model(**batch)
    by_hand = []
    for row, labels in enumerate(batch["labels"].tolist()):
        for place, label in enumerate(labels):
            if label != IGNORED:
                by_hand.append(-output.logits[row, place - 1].log_softmax(-1)[label])
    assert output.answer_loss.item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)


def test_a_dense_models_loss_is_the_answer_loss(shared_built: Callable[..., Built]) -> None:
    output = shared_built().model(**make_batch(shared_built(), *ANSWERS))
    assert output.aux == {}
    assert torch.equal(output.loss, output.answer_loss)


def test_total_is_answer_loss_and_weighted_auxiliary_losses(shared_built: Callable[..., Built]) -> None:
    built = shared_built("loss.load_balance=0.3", "loss.router_z=0.2", experts=True)
    output = built.model(**make_batch(built, *ANSWERS))
    weighted = 0.3 * output.aux["load_balance"] + 0.2 * output.aux["router_z"]
    assert output.loss.item() == pytest.approx((output.answer_loss + weighted).item(), rel=1e-6)


def test_auxiliary_losses_are_those_of_the_routers_without_padding(shared_built: Callable[..., Built]) -> None:
    built = shared_built("moe.layers=dense", experts=True)
    batch = make_batch(built, *ANSWERS, pad=6)
    with record_routing(built.model.lm) as routings:
        output = built.model(**batch)
    assert len(routings) == 2
    expected = auxiliary_losses(routings, batch["attention_mask"].bool())
    for name, value in expected.items():
        assert output.aux[name].item() == pytest.approx(value.item())


@pytest.mark.parametrize("pad", [1, 9])
def test_padding_does_not_change_any_loss(pad: int, shared_built: Callable[..., Built]) -> None:
    built = shared_built("loss.router_z=0.1", experts=True)
    plain, padded = (built.model(**make_batch(built, *ANSWERS, pad=more)) for more in (0, pad))
    assert padded.loss.item() == pytest.approx(plain.loss.item(), rel=1e-5)
    for name, value in plain.aux.items():
        assert padded.aux[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_without_labels_there_is_no_loss(shared_built: Callable[..., Built]) -> None:
    built = shared_built(experts=True)
    batch = make_batch(built, *ANSWERS)
    batch.pop("labels")
    output = built.model(**batch)
    assert (output.loss, output.answer_loss, output.aux) == (None, None, None)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_accumulated_passes_give_the_gradients_of_one_large_batch(cut: int, make_built: Callable[..., Built]) -> None:
    # Rows have different numbers of labels, so a mean of means would be wrong.
    built = make_built()
    batch = make_batch(built, "red", "a long answer of many words", "x", "right")
    items = int((batch["labels"] != IGNORED).sum())
    whole = gradients(built.model, batch)
    parts = [part(batch, slice(0, cut)), part(batch, slice(cut, 4))]
    summed = gradients(built.model, *({**one, "num_items_in_batch": items} for one in parts))
    assert whole.keys() == summed.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, summed[name], atol=1e-5 + 1e-4 * gradient.abs().max().item()), name


def test_answer_gradients_of_a_mixture_accumulate_exactly_too(make_built: Callable[..., Built]) -> None:
    # With the auxiliary losses off, a token is routed alone, so cutting the batch changes nothing.
    built = make_built("loss.load_balance=0.0", experts=True)
    batch = make_batch(built, "red", "a long answer of many words", "x", "right")
    items = int((batch["labels"] != IGNORED).sum())
    whole = gradients(built.model, batch)
    parts = [part(batch, slice(0, 1)), part(batch, slice(1, 4))]
    summed = gradients(built.model, *({**one, "num_items_in_batch": items} for one in parts))
    for name, gradient in whole.items():
        assert torch.allclose(gradient, summed[name], atol=1e-5 + 1e-4 * gradient.abs().max().item()), name


def test_auxiliary_losses_are_shared_out_by_labels(make_built: Callable[..., Built]) -> None:
    # What holds for accumulated passes: each pass's auxiliary loss counts by its share of the labels, and the shares
    # sum to one. So the total is a weighted mean of the passes' own auxiliary losses, not that of the large batch.
    built = make_built("loss.load_balance=0.3", "loss.router_z=0.2", experts=True)
    batch = make_batch(built, "red", "a long answer of many words", "x", "right")
    items = int((batch["labels"] != IGNORED).sum())
    total, expected = 0.0, 0.0
    for rows in (slice(0, 1), slice(1, 4)):
        one = part(batch, rows)
        share = int((one["labels"] != IGNORED).sum()) / items
        output = built.model(**one, num_items_in_batch=items)
        total += output.loss.item()
        aux = 0.3 * output.aux["load_balance"].item() + 0.2 * output.aux["router_z"].item()
        expected += output.answer_loss.item() + share * aux
    assert total == pytest.approx(expected, rel=1e-5)


def test_router_z_of_equal_passes_is_that_of_the_large_batch(make_built: Callable[..., Built]) -> None:
    # A mean over tokens: with as many tokens and labels in each pass the weighted mean is the whole mean.
    built = make_built("loss.load_balance=0.0", "loss.router_z=0.5", experts=True)
    batch = make_batch(built, "red", "red", "red", "red")
    items = int((batch["labels"] != IGNORED).sum())
    whole = gradients(built.model, batch)
    parts = [part(batch, slice(0, 2)), part(batch, slice(2, 4))]
    summed = gradients(built.model, *({**one, "num_items_in_batch": items} for one in parts))
    for name, gradient in whole.items():
        assert torch.allclose(gradient, summed[name], atol=1e-5 + 1e-4 * gradient.abs().max().item()), name


def test_load_balance_of_passes_is_near_that_of_the_large_batch(make_built: Callable[..., Built]) -> None:
    # F · G is not linear in the batch, so only approximately: a product of means against a mean of products.
    built = make_built(experts=True)
    batch = make_batch(built, "red", "red", "red", "red")
    whole = built.model(**batch).aux["load_balance"].item()
    halves = [built.model(**part(batch, rows)).aux["load_balance"].item() for rows in (slice(0, 2), slice(2, 4))]
    assert sum(halves) / 2 == pytest.approx(whole, rel=0.1)


def test_auxiliary_losses_reach_the_router(make_built: Callable[..., Built]) -> None:
    built = make_built("loss.load_balance=1.0", "moe.router.k=1", experts=True)
    # One expert per token, renormalised: its weight is always 1, so the answers alone teach the router nothing.
    found = gradients(built.model, make_batch(built, *ANSWERS))
    assert found["lm.model.layers.0.mlp.router.weight"].abs().max() > 1e-4


def test_no_gradient_reaches_the_encoders(make_built: Callable[..., Built]) -> None:
    built = make_built()
    batch = make_batch(built, *ANSWERS)
    batch.pop("encoder_tokens")
    batch["pixel_values"] = {name: torch.randn(4, 3, 32, 32) for name in built.model.encoder_names}
    found = gradients(built.model, batch)
    assert not [name for name in found if name.startswith("encoders.")]
    assert [name for name in found if name.startswith("fusion.")]


ROUTERS = {
    "top_k": "{use='top_k', k=2}",
    "full": "{use='top_k', k=2, capacity=0.5, priority=true}",
    "expert_choice": "{use='expert_choice', capacity=1.0}",
    "soft": "{use='soft', slots=2}",
}


@pytest.mark.parametrize("router", ["dense", *ROUTERS])
def test_gradient_checkpointing_changes_nothing(router: str, make_built: Callable[..., Built]) -> None:
    # It turns the cache off, where shared positions would be read as packing; and it runs layers twice, where
    # routing could be counted twice.
    experts = router != "dense"
    non_causal = ["moe.non_causal=true"] if router in ("expert_choice", "soft") else []
    changes = [f"moe.router={ROUTERS[router]}", "loss.router_z=0.1", *non_causal] if experts else []
    built = make_built(*changes, experts=experts)
    batch = make_batch(built, *ANSWERS)
    model = built.model.train()
    plain, plain_loss = gradients(model, batch), model(**batch, use_cache=False).loss.item()
    model.gradient_checkpointing_enable()
    saved, saved_loss = gradients(model, batch), model(**batch, use_cache=False).loss.item()
    assert saved_loss == pytest.approx(plain_loss, rel=1e-6)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, saved[name], atol=1e-6 + 1e-5 * gradient.abs().max().item()), name


def test_loss_is_the_plain_language_models_on_text_alone(shared_built: Callable[..., Built]) -> None:
    built = shared_built()
    ids, labels = built.processor.prompts.example("what is it?", "red", images=0)
    ours = built.model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
    logits = built.model.lm(input_ids=torch.tensor([ids])).logits
    theirs = F.cross_entropy(logits[0, :-1], torch.tensor(labels[1:]), ignore_index=IGNORED)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("router", ROUTERS)
def test_padding_changes_no_loss(router: str, make_built: Callable[..., Built]) -> None:
    """Routing, capacity and losses are those of the real tokens, however many padding ones there are."""
    non_causal = ["moe.non_causal=true"] if router in ("expert_choice", "soft") else []
    built = make_built(f"moe.router={ROUTERS[router]}", *non_causal, experts=True)
    model, batch = built.model.train(), make_batch(built, *ANSWERS)
    more = dict(batch)
    for name, value in (
        ("input_ids", built.processor.tokenizer.pad_token_id),
        ("attention_mask", 0),
        ("labels", IGNORED),
    ):
        more[name] = F.pad(batch[name], (0, 5), value=value)
    with torch.no_grad():
        plain, padded = model(**batch, use_cache=False), model(**more, use_cache=False)
    assert padded.loss.item() == pytest.approx(plain.loss.item(), rel=1e-5)
    assert padded.aux.keys() == plain.aux.keys()
    for name, value in plain.aux.items():
        assert padded.aux[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
