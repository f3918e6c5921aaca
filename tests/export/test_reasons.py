"""Why not: every reason at once, each with a way out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from polyvex.export import FAMILIES, reasons
from polyvex.moe.experts import GatedExperts

from .conftest import SIZES, Mixture


def of(lm: Any, family: str, *, copy_dense: bool = False) -> list[str]:
    return reasons(lm, FAMILIES[family], copy_dense=copy_dense)


def only(lm: Any, family: str, *, copy_dense: bool = False) -> str:
    [reason] = of(lm, family, copy_dense=copy_dense)
    return reason


def test_a_dense_model(mixture: Mixture) -> None:
    for family in FAMILIES:
        said = only(mixture("llama", dense=True), family)
        assert said.startswith("the language model is dense: no layer has experts, which ")
        assert said.endswith("Train a stage with upcycle = true; or polyvex.load(RUN).model.lm.save_pretrained(DIR) "
                             "writes it as it is")  # fmt: skip


def test_a_model_that_has_experts_by_itself() -> None:
    lm = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=2))
    assert only(lm, "mixtral").startswith("the language model is MixtralForCausalLM, a mixture of experts by itself")


def test_another_familys_model_is_sent_there(mixture: Mixture) -> None:
    assert only(mixture("qwen3", head_dim=8), "mixtral") == (
        "the language model is Qwen3ForCausalLM; mixtral computes what LlamaForCausalLM and MistralForCausalLM "
        "compute, no other. Say --to qwen3_moe"
    )
    assert only(mixture("llama"), "qwen3_moe").endswith("qwen3_moe computes what Qwen3ForCausalLM compute, no other. "
                                                        "Say --to mixtral")  # fmt: skip


def test_a_subclass_may_compute_something_else(mixture: Mixture) -> None:
    class Scaled(LlamaForCausalLM):
        pass

    lm = mixture("llama")
    lm.__class__ = Scaled
    said = only(lm, "mixtral")
    assert said.startswith("the language model is Scaled; mixtral computes")
    assert said.endswith("no other. Train with one of those")


@pytest.mark.parametrize("router", [{"use": "switch"}, {"use": "top_k", "renormalize": False}])
def test_raw_probabilities(router: dict[str, Any], mixture: Mixture) -> None:
    said = only(mixture("llama", router=router), "mixtral")
    count = "1 expert" if router["use"] == "switch" else "2 experts"
    assert said == (
        f"layers 0, 1, 2: the router weighs {count} by raw probabilities; mixtral scales them to sum to one. Train "
        f"with the router top_k and renormalize = true"
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("router", "said"),
    [
        ({"use": "expert_choice"}, "ExpertChoiceRouter routes in another way"),
        ({"use": "soft"}, "SoftRouter routes in another way"),
        ({"use": "top_k", "eval_capacity": 1.5}, "eval_capacity = 1.5 drops tokens of full experts"),
        ({"use": "top_k", "eval_capacity": 2.0, "softmax": "after"}, "eval_capacity = 2 drops tokens"),
    ],
)
def test_routers_without_words(router: dict[str, Any], said: str, family: str, mixture: Mixture) -> None:
    lm = mixture(FAMILIES[family].sources[0].config_class.model_type, router=router, head_dim=8)
    assert only(lm, family).startswith(f"layers 0, 1, 2: {said}")


@pytest.mark.parametrize("beside", ["shared", "residual"])
@pytest.mark.parametrize(("kind", "family"), [("llama", "mixtral"), ("qwen3", "qwen3_moe")])
def test_a_network_beside_the_experts(kind: str, family: str, beside: str, mixture: Mixture) -> None:
    lm = mixture(kind, moe={"beside": beside, "layers": [1] if family == "qwen3_moe" else "dense"}, head_dim=8)
    layers = "layer 1" if family == "qwen3_moe" else "layers 0, 1, 2"
    assert only(lm, family) == (
        f"{layers}: a network works beside the experts; {family} has none. Train without beside = '{beside}'"
    )


@pytest.mark.parametrize(("kind", "family"), [("llama", "mixtral"), ("qwen3", "qwen3_moe")])
def test_different_numbers_of_experts(kind: str, family: str, mixture: Mixture) -> None:
    lm = mixture(kind, moe={"num_experts": [2, 4, 4]}, router={"k": 1}, head_dim=8)
    assert only(lm, family) == (
        f"layers differ in their numbers of experts (2 in layer 0, 4 in layer 1, 4 in layer 2); {family} has one for "
        f"all. Train with one for all layers"
    )


def test_routers_that_differ(mixture: Mixture) -> None:
    lm = mixture("qwen3", router={"k": 2}, head_dim=8)
    options = lm.model.layers[1].mlp.router.options
    lm.model.layers[1].mlp.router.options = options.model_copy(update={"k": 1, "renormalize": False})
    told = of(lm, "qwen3_moe")
    assert [reason.split(";")[0] for reason in told] == [
        "layers differ in their experts per token (2 in layer 0, 1 in layer 1, 2 in layer 2)",
        "layers differ in their weights (of sum one in layer 0, raw in layer 1, of sum one in layer 2)",
    ]


@pytest.mark.parametrize(("kind", "family"), [("llama", "mixtral"), ("qwen3", "qwen3_moe")])
def test_another_activation(kind: str, family: str, mixture: Mixture) -> None:
    said = only(mixture(kind, hidden_act="gelu", head_dim=8), family)
    assert said.startswith("layers 0, 1, 2: its experts use GELU")
    assert said.endswith(f"those of {family} silu. Train with a language model whose hidden_act is silu")


def test_other_experts(mixture: Mixture) -> None:
    class Biased(GatedExperts):
        pass

    lm = mixture("llama", moe={"layers": [0]})
    lm.model.layers[0].mlp.experts.__class__ = Biased
    assert only(lm, "mixtral", copy_dense=True).startswith(
        "layer 0: its experts are Biased; those of mixtral are gated"
    )


def test_biases_of_attention(mixture: Mixture) -> None:
    assert only(mixture("llama", attention_bias=True), "mixtral").startswith("attention has biases")


def test_layers_that_differ_in_their_window(mixture: Mixture) -> None:
    lm = mixture("qwen3", head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert only(lm, "qwen3_moe").startswith("layers 1, 2 of 3 look through a sliding window, the others do not")


def test_dense_layers(mixture: Mixture) -> None:
    # Two dense layers of 3 · 32 · 48 weights, each of which gets three more copies.
    assert only(mixture("llama", moe={"layers": [1]}), "mixtral") == (
        "layers 0, 2: no experts, but every layer of mixtral has them. Say --copy-dense, which writes such a layer as "
        "4 equal experts (27,648 more parameters), or train with moe.layers = 'dense'"
    )
    assert of(mixture("llama", moe={"layers": [1]}), "mixtral", copy_dense=True) == []
    assert of(mixture("qwen3", moe={"layers": [1]}, head_dim=8), "qwen3_moe") == []


def test_dense_layers_that_are_wider_than_experts(mixture: Mixture) -> None:
    lm = mixture("llama", moe={"layers": [1], "granularity": 2})
    wider = (
        "layers 0, 2: 48 wide inside, but experts 24; mixtral has one width for all. Train with granularity = 1, or "
        "with moe.layers = 'dense'"
    )
    assert of(lm, "mixtral", copy_dense=True) == [wider]
    assert of(lm, "mixtral")[1:] == [wider]


def test_copying_without_effect(mixture: Mixture) -> None:
    assert only(mixture("llama"), "mixtral", copy_dense=True) == (
        "--copy-dense has no effect: every layer has experts. Leave it out"
    )
    said = only(mixture("qwen3", moe={"layers": [1]}, head_dim=8), "qwen3_moe", copy_dense=True)
    assert said == "--copy-dense has no effect: qwen3_moe has dense layers of its own. Leave it out"


def lora(*targets: str) -> Callable[[nn.Module], object]:
    return lambda lm: inject_adapter_in_model(LoraConfig(r=2, target_modules=list(targets)), lm)


class Wrapped(nn.Module):
    """Something around a layer's experts, with what it adds."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.extra = nn.Parameter(torch.ones(2))


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "adapters of a dense network": (
        lora("up_proj"),
        "model.layers.0.mlp.up_proj.base_layer.weight [48, 32] has no place",
    ),
    "around the experts": (
        lambda lm: setattr(lm.model.layers[1], "mlp", Wrapped(lm.model.layers[1].mlp)),
        "model.layers.1.mlp.extra [2] has no place",
    ),
    "adapters": (lora("q_proj"), "model.layers.0.self_attn.q_proj.base_layer.weight [32, 32] has no place"),
    "bias of a dense network": (
        lambda lm: setattr(lm.model.layers[0].mlp.up_proj, "bias", nn.Parameter(torch.ones(48))),
        "model.layers.0.mlp.up_proj.bias [48] has no place",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_added_to_the_model(change: str, mixture: Mixture) -> None:
    lm = mixture("llama", moe={"layers": [1, 2]})
    act, said = CHANGES[change]
    act(lm)
    told = only(lm, "mixtral", copy_dense=True)
    assert said in told
    assert told.endswith("Take out what was added to it (merge adapters into their weights)")


def test_all_reasons_come_at_once(mixture: Mixture) -> None:
    lm = mixture(
        "llama",
        moe={"layers": [0, 2], "num_experts": [3, 4], "beside": "shared"},
        router={"use": "switch", "eval_capacity": 1.0},
        hidden_act="relu",
        attention_bias=True,
    )
    found = of(lm, "mixtral")
    parts = [
        "attention",
        "beside",
        "use ReLU",
        "eval_capacity",
        "raw probabilities",
        "numbers of experts",
        "no experts",
    ]
    assert len(found) == len(parts)
    assert all(part in reason for part, reason in zip(parts, found, strict=True))
