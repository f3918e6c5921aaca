"""Experts: the two ways to compute them agree, with one another, with transformers, and with a loop over tokens."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from polyvex.moe import Routing, TopKRouter
from polyvex.moe.experts import GatedExperts, PlainExperts
from polyvex.moe.layer import MoEFeedForward
from polyvex.moe.routers import TopKOptions

BACKENDS = ("loop", "grouped_mm", "auto", "transformers.batched_mm", "transformers.grouped_mm")


def experts(backend: str, *, count: int = 4, dim: int = 8, hidden: int = 12) -> GatedExperts:
    torch.manual_seed(0)
    made = GatedExperts(num_experts=count, dim=dim, hidden=hidden, act=F.silu, backend=backend)
    with torch.no_grad():
        for weights in made.parameters():
            weights.normal_()
    return made


def route(tokens: Tensor, *, count: int = 4, k: int = 2) -> Routing:
    torch.manual_seed(1)
    return TopKRouter(TopKOptions(k=k, init_std=1.0), dim=tokens.shape[-1], num_experts=count)(tokens)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_output_is_the_weighted_sum_over_a_tokens_experts(backend: str, k: int, tokens: Tensor) -> None:
    made, routing = experts(backend), route(tokens, k=k)

    def ffn(token: Tensor, index: Tensor) -> Tensor:
        gate, up = (made.gate_up_proj[index] @ token).chunk(2)
        return made.down_proj[index] @ (F.silu(gate) * up)

    expected = torch.zeros(12, 8)
    for place, token in enumerate(tokens):
        for weight, index in zip(routing.weight[place], routing.expert[place], strict=True):
            expected[place] += weight * ffn(token, index)
    assert torch.allclose(made(tokens, routing), expected, atol=1e-4)


@pytest.mark.parametrize(("count", "k"), [(4, 1), (4, 2), (16, 3)])
def test_loop_is_grouped_mm_in_values_and_gradients(count: int, k: int, tokens: Tensor) -> None:
    results = {}
    for backend in ("loop", "grouped_mm"):
        made = experts(backend, count=count)
        inputs = tokens.clone().requires_grad_(True)
        torch.manual_seed(1)
        router = TopKRouter(TopKOptions(k=k, init_std=1.0), dim=8, num_experts=count)
        output = made(inputs, router(inputs))
        output.square().sum().backward()
        results[backend] = [
            output.detach(),
            inputs.grad,
            router.weight.grad,
            made.gate_up_proj.grad,
            made.down_proj.grad,
        ]
    for loop, grouped in zip(results["loop"], results["grouped_mm"], strict=True):
        assert loop is not None
        assert grouped is not None
        assert loop.abs().max() > 0
        assert torch.allclose(loop, grouped, rtol=1e-4, atol=1e-3 * loop.abs().max().item())


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_expert_that_nobody_chooses_gets_a_zero_gradient(backend: str, tokens: Tensor) -> None:
    # Fused weights: no parameter is ever "unused", so data-parallel training needs no special care.
    made = experts(backend)
    routing = Routing(
        expert=torch.full((12, 1), 2), weight=torch.ones(12, 1), logits=torch.zeros(12, 4), probs=torch.zeros(12, 4)
    )
    made(tokens, routing).sum().backward()
    assert made.down_proj.grad is not None
    assert [bool(slice_.any()) for slice_ in made.down_proj.grad] == [False, False, True, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_permuting_the_tokens_permutes_the_output(backend: str, tokens: Tensor) -> None:
    made = experts(backend)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(made(tokens[order], route(tokens[order])), made(tokens, route(tokens))[order], atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens_give_no_output(backend: str) -> None:
    empty = torch.zeros(0, 8)
    assert experts(backend)(empty, route(empty)).shape == (0, 8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_layer_is_mixtrals_block_at_equal_weights(backend: str) -> None:
    config = MixtralConfig(
        hidden_size=8, intermediate_size=12, num_local_experts=4, num_experts_per_tok=2, hidden_act="silu"
    )
    config._experts_implementation = "eager"
    mixtral = MixtralSparseMoeBlock(config)
    ours = MoEFeedForward(
        router=TopKRouter(TopKOptions(k=2, init_std=1.0), dim=8, num_experts=4), experts=experts(backend)
    )
    with torch.no_grad():
        mixtral.gate.weight.copy_(ours.router.weight)
        mixtral.experts.gate_up_proj.copy_(ours.experts.gate_up_proj)
        mixtral.experts.down_proj.copy_(ours.experts.down_proj)
    hidden = torch.randn(2, 5, 8)
    assert torch.allclose(ours(hidden), mixtral(hidden), atol=1e-4)


@pytest.mark.parametrize(
    ("count", "rows", "grouped"),
    [(4, 4 * 512, False), (4, 4 * 512 - 2, True), (8, 8 * 512, False), (9, 9 * 512, True), (16, 10, True)],
)
def test_auto_groups_many_experts_and_few_rows(
    count: int, rows: int, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    for name in ("_loop", "_grouped"):
        plain: Callable[..., Tensor] = getattr(GatedExperts, name)

        def spy(*args: object, name: str = name, plain: Callable[..., Tensor] = plain) -> Tensor:
            used.append(name)
            return plain(*args)

        monkeypatch.setattr(GatedExperts, name, spy)
    tokens = torch.randn(rows // 2, 8)  # each goes to two experts
    experts("auto", count=count)(tokens, route(tokens, count=count))
    assert used == ["_grouped" if grouped else "_loop"]


def test_auto_loops_where_rows_are_not_16_bytes() -> None:
    # 3 floats are 12 bytes, which grouped GEMMs refuse; auto must not run into that.
    odd = torch.randn(5, 3)
    made, loop = experts("auto", count=16, dim=3, hidden=5), experts("loop", count=16, dim=3, hidden=5)
    routing = route(odd, count=16)
    assert torch.equal(made(odd, routing), loop(odd, routing))


@pytest.mark.parametrize("backend", BACKENDS)
def test_output_keeps_the_models_precision(backend: str, tokens: Tensor) -> None:
    made = experts(backend, hidden=16).to(torch.bfloat16)  # 16 · 2 bytes: grouped GEMMs want multiples of 16
    assert made(tokens.bfloat16(), route(tokens)).dtype == torch.bfloat16


@pytest.mark.parametrize("backend", BACKENDS)
def test_experts_without_a_gate_are_two_layers_with_biases(backend: str, tokens: Tensor) -> None:
    torch.manual_seed(0)
    made = PlainExperts(num_experts=4, dim=8, hidden=12, act=F.gelu, backend=backend)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    expert = torch.randint(4, (len(tokens), 1))
    probs = torch.full((len(tokens), 4), 0.25)
    routing = Routing(expert=expert, weight=torch.full(expert.shape, 0.5), logits=probs, probs=probs)
    expected = torch.stack(
        [
            0.5
            * F.linear(
                F.gelu(F.linear(token, made.up_proj[index], made.up_proj_bias[index])),
                made.down_proj[index],
                made.down_proj_bias[index],
            )
            for token, index in zip(tokens, expert[:, 0].tolist(), strict=True)
        ]
    )
    found = made(tokens, routing)
    assert torch.allclose(found, expected, atol=1e-5)
    gradients = torch.autograd.grad(found.square().sum(), list(made.parameters()), retain_graph=True)
    wanted = torch.autograd.grad(expected.square().sum(), list(made.parameters()))
    for one, other in zip(gradients, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_the_grouped_product_takes_autocasts_precision() -> None:
    torch.manual_seed(0)
    made, tokens = experts("grouped_mm", hidden=16), torch.randn(6, 8)
    loop = experts("loop", hidden=16)
    loop.load_state_dict(made.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = made(tokens, route(tokens)), loop(tokens, route(tokens))
    assert found.dtype == expected.dtype
    assert torch.allclose(found.float(), expected.float(), atol=0.05 * float(expected.detach().abs().max()))
