"""Upcycling: which layers, exact copies, the same model at step 0, and refusals."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BitNetConfig,
    BitNetForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from polyvex.errors import RecipeError
from polyvex.moe import TopKRouter
from polyvex.moe.layer import MoEFeedForward
from polyvex.moe.options import MoEOptions, chosen_layers
from polyvex.moe.routers import TopKOptions
from polyvex.moe.upcycle import begins_unlike, install_experts, moe_layers

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 4,
}


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).eval()


def upcycle(
    lm: nn.Module, *, copy: bool = True, k: int = 2, router: dict[str, Any] | None = None, **options: Any
) -> list[str]:
    torch.manual_seed(1)
    chooser = TopKOptions(**{"k": k, "init_std": 1.0, **(router or {})})
    return install_experts(lm, MoEOptions(**options), (TopKRouter, chooser), copy=copy, context=None)


@pytest.mark.parametrize(
    ("choice", "count", "expected"),
    [
        ("first_half", 5, [0, 1]),
        ("second_half", 5, [2, 3, 4]),
        ("first_half", 4, [0, 1]),
        ("second_half", 4, [2, 3]),
        ("sparse", 5, [0, 2, 4]),
        ("sparse", 4, [0, 2]),
        ("dense", 3, [0, 1, 2]),
        ([3, 0], 4, [0, 3]),
    ],
)
def test_layers_are_chosen_as_in_moe_llavas_code(choice: Any, count: int, expected: list[int]) -> None:
    assert chosen_layers(choice, count) == expected


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_halves_make_the_whole(count: int) -> None:
    assert chosen_layers("first_half", count) + chosen_layers("second_half", count) == chosen_layers("dense", count)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ([0, 4], "moe layers [4] are out of range: the language model has layers 0 to 3"),
        ([-1], "moe layers [-1] are out of range: the language model has layers 0 to 3"),
        ([1, 1], "moe layers [1, 1] name a layer twice"),
    ],
)
def test_wrong_layer_lists_are_refused(choice: list[int], message: str) -> None:
    with pytest.raises(ValueError, match="moe layers") as caught:
        chosen_layers(choice, 4)
    assert str(caught.value) == message


@pytest.mark.parametrize("layers", ["first_half", "second_half", "sparse", "dense", [1], [0, 3]])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_upcycled_model_is_the_dense_one_at_step_0(layers: Any, k: int) -> None:
    lm = llama()
    ids = torch.randint(50, (2, 9))
    with torch.no_grad():
        dense = lm(input_ids=ids).logits
        upcycle(lm, layers=layers, k=k)
        assert torch.allclose(lm(input_ids=ids).logits, dense, atol=1e-5)


def test_raw_probabilities_do_not_give_the_dense_model() -> None:
    # The negative of the law above: without weights that sum to one the copies are scaled down.
    lm = llama()
    ids = torch.randint(50, (2, 9))
    with torch.no_grad():
        dense = lm(input_ids=ids).logits
        upcycle(lm, layers="dense", router={"renormalize": False})
        assert not torch.allclose(lm(input_ids=ids).logits, dense, atol=1e-3)


def test_every_expert_is_an_exact_copy() -> None:
    lm = llama()
    dense = lm.model.layers[0].mlp
    upcycle(lm, layers=[0], num_experts=3)
    sparse = lm.model.layers[0].mlp
    assert isinstance(sparse, MoEFeedForward)
    for index in range(3):
        assert torch.equal(
            sparse.experts.gate_up_proj[index], torch.cat([dense.gate_proj.weight, dense.up_proj.weight])
        )
        assert torch.equal(sparse.experts.down_proj[index], dense.down_proj.weight)


def test_experts_can_part_ways() -> None:
    # `expand` alone would share memory, and all experts would stay one.
    lm = llama()
    upcycle(lm, layers=[0], num_experts=3)
    sparse = lm.model.layers[0].mlp
    with torch.no_grad():
        sparse.experts.gate_up_proj[0].zero_()
        sparse.experts.down_proj[0].zero_()
    assert sparse.experts.gate_up_proj[1].any()
    assert sparse.experts.down_proj[1].any()


def test_only_the_chosen_layers_change_and_are_named() -> None:
    lm = llama()
    kept = [lm.model.layers[index].mlp for index in (1, 3)]
    assert upcycle(lm, layers="sparse") == ["layers.0.mlp", "layers.2.mlp"]
    assert [lm.model.layers[index].mlp for index in (1, 3)] == kept
    assert [name for name, _ in moe_layers(lm)] == ["model.layers.0.mlp", "model.layers.2.mlp"]


def test_without_copying_weights_are_fresh() -> None:
    lm = llama()
    dense = lm.model.layers[0].mlp
    upcycle(lm, layers=[0], copy=False)
    assert not torch.equal(lm.model.layers[0].mlp.experts.down_proj[0], dense.down_proj.weight)


def test_the_ffns_activation_and_precision_are_kept() -> None:
    lm = llama(hidden_act="gelu").to(torch.bfloat16)
    act = lm.model.layers[0].mlp.act_fn
    upcycle(lm, layers=[0])
    assert lm.model.layers[0].mlp.experts.act is act
    assert lm.model.layers[0].mlp.experts.down_proj.dtype == torch.bfloat16


OTHERS: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**SIZES)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SIZES, pad_token_id=0)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8)),
    "stablelm": lambda: StableLmForCausalLM(StableLmConfig(**SIZES)),
}


@pytest.mark.parametrize("options", [{}, {"num_experts": 8, "granularity": 2}, {"beside": "shared"}], ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_other_models_can_be_upcycled(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    lm = OTHERS[name]().eval()
    for parameter in lm.parameters():  # biases start at zero, and would not be missed
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(50, (2, 9))
    with torch.no_grad():
        dense = lm(input_ids=ids).logits
        upcycle(lm, layers="sparse", **options)
        assert torch.allclose(lm(input_ids=ids).logits, dense, atol=1e-4 * dense.abs().max())


def refused() -> dict[str, tuple[Callable[[], nn.Module], str]]:
    twice = llama()
    upcycle(twice, layers=[0])
    parts = "gate_proj, up_proj, down_proj, act_fn"
    biased = "LlamaMLP has biases in gate_proj, up_proj, down_proj; gated experts have none"
    gated = "experts are made of gated FFNs as Llama's, or of fc1 and fc2 as Phi's"
    return {
        "gpt2": (
            lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)),
            "GPT2LMHeadModel keeps no list of layers at model.layers, so it cannot be upcycled",
        ),
        "mixtral": (
            lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=2)),
            f"layer 0 cannot become experts: MixtralSparseMoeBlock has no {parts}; {gated}",
        ),
        "biases": (
            lambda: llama(mlp_bias=True),
            f"layer 0 cannot become experts: {biased}",
        ),
        "twice": (
            lambda: twice,
            f"layer 0 cannot become experts: MoEFeedForward has no {parts}; {gated}",
        ),
    }


@pytest.mark.parametrize("case", ["gpt2", "mixtral", "biases", "twice"])
def test_what_cannot_become_experts_is_refused(case: str) -> None:
    make, message = refused()[case]
    with pytest.raises(RecipeError) as caught:
        upcycle(make(), layers=[0])
    assert caught.value.problems == [f"[moe]: {message}"]


def test_the_same_seed_gives_the_same_router() -> None:
    first, second = llama(), llama()
    upcycle(first, layers=[0])
    upcycle(second, layers=[0])
    assert torch.equal(first.model.layers[0].mlp.router.weight, second.model.layers[0].mlp.router.weight)


@pytest.mark.parametrize("training", [False, True])
def test_new_layers_train_or_not_as_the_model_does(training: bool) -> None:
    # Or a router would make noise, and drop tokens, in a model that is being evaluated.
    lm = llama().train(training)
    upcycle(lm)
    assert {module.training for module in lm.modules()} == {training}


def said(lm: LlamaForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        return lm(input_ids=torch.arange(12).reshape(2, 6)).logits


@pytest.mark.parametrize(
    ("options", "k"),
    [
        ({}, 2),
        ({"beside": "shared"}, 2),
        ({"beside": "residual"}, 1),
        ({"num_experts": [2, 4], "layers": [0, 3]}, 2),
        ({"num_experts": 8, "granularity": 2}, 2),
        ({"num_experts": 8, "granularity": 4}, 8),
        ({"num_experts": 8, "granularity": 2, "beside": "shared"}, 4),
    ],
    ids=str,
)
def test_what_experts_start_as_says_what_the_network_said(options: dict[str, Any], k: int) -> None:
    lm = llama()
    before = said(lm)
    upcycle(lm, k=k, **options)
    assert begins_unlike(MoEOptions(**options), (TopKRouter, TopKOptions(k=k))) == ""
    assert torch.allclose(said(lm), before, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "router", "why"),
    [
        ({"start": "drop"}, {}, "experts forget 50% of what they are copied from"),
        ({}, {"renormalize": False}, "the router's weights do not sum to one"),
        ({}, {"eval_capacity": 0.5}, "the router's weights do not sum to one"),
        ({"num_experts": 8, "granularity": 4}, {"k": 2}, "2 experts per token are no multiple of the 4 parts"),
    ],
)
def test_what_begins_unlike_says_why(options: dict[str, Any], router: dict[str, Any], why: str) -> None:
    assert why in begins_unlike(MoEOptions(**options), (TopKRouter, TopKOptions(**router)))
    lm = llama()
    before = said(lm)
    upcycle(lm, router=router, **options)
    assert not torch.allclose(said(lm), before, atol=1e-3)


def test_each_layer_has_its_own_number_of_experts() -> None:
    lm = llama()
    upcycle(lm, num_experts=[2, 6], layers=[1, 2])
    assert [len(layer.experts.down_proj) for _, layer in moe_layers(lm)] == [2, 6]
    with pytest.raises(ValueError, match=r"num_experts has 3 numbers for 2 layers \(1, 2\)"):
        MoEOptions(num_experts=[2, 2, 2], layers=[1, 2]).of_layers([1, 2])


def test_the_parts_of_a_network_are_its_neurons() -> None:
    lm = llama()
    dense = lm.model.layers[0].mlp
    gate, down = dense.gate_proj.weight.clone(), dense.down_proj.weight.clone()
    upcycle(lm, num_experts=4, granularity=2, layers=[0])
    experts, half = lm.model.layers[0].mlp.experts, len(gate) // 2
    for index in range(4):
        part = slice(0, half) if index % 2 == 0 else slice(half, None)
        assert torch.equal(experts.gate_up_proj[index, :half], gate[part])
        assert torch.equal(experts.down_proj[index], 2 * down[:, part])
    rows = lm.model.layers[0].mlp.router.weight
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[2], rows[3])
    assert not torch.equal(rows[0], rows[2])


def test_each_expert_forgets_another_part_of_the_same_size_and_kind() -> None:
    lm = llama(intermediate_size=400)
    dense = lm.model.layers[0].mlp
    gate, up, down = (one.weight.clone() for one in (dense.gate_proj, dense.up_proj, dense.down_proj))
    upcycle(lm, num_experts=3, start="drop", drop=0.25, layers=[0])
    experts = lm.model.layers[0].mlp.experts
    forgotten = []
    for index in range(3):
        changed = (experts.gate_up_proj[index, :400] != gate).any(dim=1)
        assert int(changed.sum()) == 100
        assert torch.equal((experts.gate_up_proj[index, 400:] != up).any(dim=1), changed)
        assert torch.equal((experts.down_proj[index] != down).any(dim=0), changed)
        assert experts.gate_up_proj[index, :400][changed].std().item() == pytest.approx(
            gate[changed].std().item(), rel=0.1
        )
        forgotten.append(changed)
    assert not torch.equal(forgotten[0], forgotten[1])


def test_a_network_beside_is_the_trained_one_and_works_on_every_token() -> None:
    lm = llama()
    dense = lm.model.layers[0].mlp
    whole = dense.down_proj.weight.clone()
    upcycle(lm, beside="shared", layers=[0])
    layer = lm.model.layers[0].mlp
    assert layer.beside is dense
    assert torch.equal(dense.down_proj.weight, whole / 2)
    assert torch.equal(layer.experts.down_proj[0], whole / 2)
    hidden = torch.randn(1, 3, whole.shape[0])
    with torch.no_grad():
        layer.experts.down_proj.zero_()
        assert torch.allclose(layer(hidden), dense(hidden), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": 0.3}, "drop = 0.3 has no effect without start = 'drop'"),
        ({"num_experts": 6, "granularity": 4}, "num_experts 6 is no multiple of granularity 4"),
        ({"num_experts": [4, 1]}, "greater than or equal to 2"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoEOptions(**options)


def test_parts_that_do_not_come_out_even_are_refused() -> None:
    with pytest.raises(RecipeError, match="granularity 5 does not divide the FFN's width of"):
        upcycle(llama(), num_experts=10, granularity=5, k=5)


def test_an_unknown_backend_is_told_with_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no backend 'transformers.fast'. There are .* transformers.batched_mm"):
        upcycle(llama(), backend="transformers.fast")
    with pytest.raises(ValueError, match="backend"):
        MoEOptions(backend="fast")


def test_networks_without_a_gate_forget_too() -> None:
    torch.manual_seed(0)
    lm = PhiForCausalLM(PhiConfig(**{**SIZES, "intermediate_size": 400}))
    dense = lm.model.layers[0].mlp
    up, down = dense.fc1.weight.clone(), dense.fc2.weight.clone()
    torch.nn.init.normal_(dense.fc1.bias)
    bias = dense.fc1.bias.clone()
    upcycle(lm, num_experts=2, start="drop", drop=0.25, layers=[0])
    experts = lm.model.layers[0].mlp.experts
    changed = (experts.up_proj[0] != up).any(dim=1)
    assert int(changed.sum()) == 100
    assert torch.equal((experts.down_proj[0] != down).any(dim=0), changed)
    assert torch.equal(experts.up_proj_bias[0], bias)


def test_a_network_that_does_more_is_refused() -> None:
    bitnet = BitNetForCausalLM(BitNetConfig(**SIZES, pad_token_id=0))
    with pytest.raises(RecipeError, match=r"BitNetMLP also has ffn_sub_norm.weight, which experts would lose"):
        upcycle(bitnet, layers=[0])
    lm = llama()
    plain = lm.model.layers[0].mlp.act_fn
    lm.model.layers[0].mlp.register_forward_hook(lambda _module, _args, said: said + plain(said))
    with pytest.raises(RecipeError, match="LlamaMLP computes more than its weights tell, which experts would lose"):
        upcycle(lm, layers=[0])
