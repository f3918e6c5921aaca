"""The routers top_k and switch: by hand, by law, and against Mixtral's."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter

from polyvex.moe import TopKRouter
from polyvex.moe.losses import load_balance
from polyvex.moe.routers import SwitchOptions, SwitchRouter, TopKOptions


def router(dim: int = 8, num_experts: int = 4, **options: Any) -> TopKRouter:
    torch.manual_seed(0)
    return TopKRouter(TopKOptions(init_std=1.0, **options), dim=dim, num_experts=num_experts)


def test_choice_by_hand() -> None:
    # One token [1, 0]; logits are the first column: ln 1, ln 3, ln 2. Softmax: 1/6, 3/6, 2/6.
    one = router(dim=2, num_experts=3, k=2)
    with torch.no_grad():
        one.weight.copy_(torch.tensor([[1.0, 9.0], [3.0, 9.0], [2.0, 9.0]]).log())
    routing = one(torch.tensor([[1.0, 0.0]]))
    assert routing.expert.tolist() == [[1, 2]]
    assert routing.probs.tolist()[0] == pytest.approx([1 / 6, 3 / 6, 2 / 6])
    # Renormalised over the kept: 3/5 and 2/5.
    assert routing.weight.tolist()[0] == pytest.approx([3 / 5, 2 / 5])


def test_raw_probabilities_are_kept_without_renormalising() -> None:
    one = router(dim=2, num_experts=3, k=2, renormalize=False)
    with torch.no_grad():
        one.weight.copy_(torch.tensor([[1.0, 9.0], [3.0, 9.0], [2.0, 9.0]]).log())
    assert one(torch.tensor([[1.0, 0.0]])).weight.tolist()[0] == pytest.approx([3 / 6, 2 / 6])


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_decision_is_mixtrals(tokens: Tensor, k: int) -> None:
    mixtral = MixtralTopKRouter(MixtralConfig(hidden_size=8, num_local_experts=4, num_experts_per_tok=k))
    ours = router(k=k)
    with torch.no_grad():
        mixtral.weight.copy_(ours.weight)
    logits, weights, experts = mixtral(tokens)
    routing = ours(tokens)
    assert torch.equal(routing.expert, experts)
    assert torch.allclose(routing.weight, weights, atol=1e-6)
    assert torch.allclose(routing.logits, logits, atol=1e-6)


def test_softmax_then_top_k_renormalised_is_softmax_over_the_kept(tokens: Tensor) -> None:
    routing = router(k=2)(tokens)
    kept = routing.logits.gather(1, routing.expert).softmax(dim=-1)
    assert torch.allclose(routing.weight, kept, atol=1e-6)


@pytest.mark.parametrize("renormalize", [True, False])
def test_weights_sum_to_one_exactly_when_said(tokens: Tensor, renormalize: bool) -> None:
    one = router(k=2, renormalize=renormalize)
    sums = one(tokens).weight.sum(dim=-1)
    assert one.weights_sum_to_one(one.options) is renormalize
    assert torch.allclose(sums, torch.ones(12)) is renormalize


def test_choices_come_best_first(tokens: Tensor) -> None:
    weight = router(k=4)(tokens).weight
    assert (weight.diff(dim=1) <= 0).all()


def test_the_same_tokens_get_the_same_experts_in_training_and_after(tokens: Tensor) -> None:
    one = router(k=2)
    torch.manual_seed(1)
    training = one.train()(tokens)
    torch.manual_seed(2)
    after = one.eval()(tokens)
    assert torch.equal(training.expert, after.expert)
    assert torch.equal(training.weight, after.weight)


def test_a_token_is_routed_alone(tokens: Tensor) -> None:
    # No capacity, so neither later tokens nor other samples decide: what makes cached decoding equal the full pass.
    one = router(k=2)
    together = one(tokens)
    alone = [one(token[None]) for token in tokens]
    assert torch.equal(together.expert, torch.cat([routing.expert for routing in alone]))
    assert torch.allclose(together.weight, torch.cat([routing.weight for routing in alone]), atol=1e-6)


def test_ties_go_to_the_lower_index(tokens: Tensor) -> None:
    one = router(k=2)
    with torch.no_grad():
        one.weight.zero_()
    assert one(tokens).expert.tolist() == [[0, 1]] * 12


def test_decisions_are_in_float32_whatever_the_models_precision(tokens: Tensor) -> None:
    one = router(k=2).to(torch.bfloat16)
    routing = one(tokens.bfloat16())
    assert routing.logits.dtype == routing.probs.dtype == routing.weight.dtype == torch.float32
    exact = tokens.bfloat16().float() @ one.weight.float().T
    assert torch.equal(routing.logits, exact)


def test_more_choices_than_experts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^router k is 5, but there are only 4 experts\. Lower k or add experts$"):
        router(k=5)


def test_experts_per_token_is_k() -> None:
    assert TopKRouter.experts_per_token(TopKOptions(k=3), num_experts=4) == 3


@pytest.mark.parametrize("k", [1, 2, 3])
def test_softmax_after_the_choice_is_the_renormalised_one(tokens: Tensor, k: int) -> None:
    before, after = router(k=k)(tokens), router(k=k, softmax="after")(tokens)
    assert torch.equal(before.expert, after.expert)
    assert torch.allclose(before.weight, after.weight, atol=1e-6)
    assert torch.equal(before.probs, after.probs)


def test_softmax_after_the_choice_without_renormalising_is_refused() -> None:
    with pytest.raises(ValueError, match="renormalize = false has no effect with softmax"):
        TopKOptions(softmax="after", renormalize=False)


def test_a_full_expert_drops_while_it_trains_and_not_after(tokens: Tensor) -> None:
    one = router(k=2, capacity=0.5)
    training, after = one.train()(tokens), one.eval()(tokens)
    assert training.kept is not None
    assert after.kept is None
    # 12 tokens, two choices each, over 4 experts: an even share is 6, half of it 3.
    assert training.counts().tolist() == [3, 3, 3, 3]
    assert one.may_drop(one.options)
    assert not one.may_drop(TopKOptions())


def test_weights_of_the_kept_choices_sum_to_one(tokens: Tensor) -> None:
    routing = router(k=2, capacity=0.5).train()(tokens)
    sums = routing.gates().sum(dim=1)
    worked = routing.kept.any(dim=1)
    assert 0 < worked.sum() < 12
    assert torch.allclose(sums[worked], torch.ones(int(worked.sum())))
    assert (sums[~worked] == 0).all()


def test_raw_weights_stay_what_they_are_when_experts_are_full(tokens: Tensor) -> None:
    one = router(k=2, capacity=0.5, renormalize=False).train()
    routing = one(tokens)
    assert torch.equal(routing.weight, routing.probs.gather(1, routing.expert))


def test_switch_takes_the_best_alone_with_its_probability(tokens: Tensor) -> None:
    torch.manual_seed(0)
    one = SwitchRouter(SwitchOptions(init_std=1.0), dim=8, num_experts=4)
    routing = one(tokens)
    assert torch.equal(routing.expert[:, 0], routing.probs.argmax(dim=1))
    assert torch.equal(routing.weight[:, 0], routing.probs.max(dim=1).values)
    assert not one.weights_sum_to_one(one.options)
    assert one.experts_per_token(one.options, num_experts=4) == 1


def test_switch_is_shaken_while_it_trains_only(tokens: Tensor) -> None:
    torch.manual_seed(0)
    one = SwitchRouter(SwitchOptions(init_std=1.0, jitter=0.1), dim=8, num_experts=4)
    plain = tokens @ one.weight.T
    assert torch.equal(one.eval()(tokens).logits, plain)
    logits = one.train()(tokens).logits
    assert not torch.equal(logits, plain)
    # Each product of the sum is off by a tenth at most.
    most = 0.1 * tokens.abs() @ one.weight.abs().T
    assert ((logits - plain).abs() <= most + 1e-5).all()


def deepspeeds_gate(logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The choices, weights and loss of DeepSpeed's ``top2gating`` without a capacity, with the noise that it draws."""
    gates = logits.softmax(dim=1)
    first = gates.argmax(dim=1)
    second = torch.where(torch.arange(logits.shape[1]) == first[:, None], -torch.inf, logits + noise).argmax(dim=1)
    expert = torch.stack([first, second], dim=1)
    both = gates.gather(1, expert)
    loss = sum(gates[:, e].mean() * (first == e).float().mean() for e in range(logits.shape[1])) * logits.shape[1]
    return expert, both / both.sum(dim=1, keepdim=True), torch.as_tensor(loss)


def test_a_noisy_second_choice_is_deepspeeds() -> None:
    one, tokens = router(second_choice_noise="gumbel").train(), torch.randn(200, 8)
    torch.manual_seed(7)
    routing = one(tokens)
    torch.manual_seed(7)
    noise = -torch.empty(200, 4).exponential_().log()
    expert, weight, loss = deepspeeds_gate(tokens @ one.weight.T, noise)
    assert torch.equal(routing.expert, expert)
    assert torch.allclose(routing.weight, weight)
    assert torch.allclose(load_balance(routing), loss)
    assert not torch.equal(expert, router()(tokens).expert)
    assert torch.equal(one.eval()(tokens).expert, router()(tokens).expert)


def test_a_noisy_second_choice_is_drawn_by_probability() -> None:
    # Without expert 0, which is first, the others have 4/7, 2/7 and 1/7.
    one = router(dim=1, second_choice_noise="gumbel").train()
    with torch.no_grad():
        one.weight.copy_(torch.tensor([[8.0], [4.0], [2.0], [1.0]]).log())
    chosen = one(torch.ones(20_000, 1)).expert
    assert (chosen[:, 0] == 0).all()
    shares = torch.bincount(chosen[:, 1], minlength=4) / 20_000
    assert shares.tolist() == pytest.approx([0, 4 / 7, 2 / 7, 1 / 7], abs=0.015)


@pytest.mark.parametrize("k", [1, 3])
def test_a_noisy_second_choice_needs_two(k: int) -> None:
    with pytest.raises(ValidationError, match="needs k = 2"):
        TopKOptions(k=k, second_choice_noise="gumbel")
