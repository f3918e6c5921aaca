"""Every router of transformers' mixture-of-experts language models is read by its own rule, or refused."""

import importlib
import inspect
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from polyvex.moe.families import ENDINGS, SCORES, UNREAD
from polyvex.moe.losses import asked, auxiliary_losses, load_balance, shares
from polyvex.moe.record import record_routing, routers, unread_routers
from polyvex.moe.routing import Routing

TOKENS, DIM = 7, 16
SIZES: dict[str, Any] = {
    **{"vocab_size": 50, "hidden_size": DIM, "num_hidden_layers": 2, "max_position_embeddings": 64},
    **{"intermediate_size": 24, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "v_head_dim": 8},
    **{"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4},
    **{"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4},
    **{"n_group": 1, "topk_group": 1, "n_shared_experts": 1, "num_shared_experts": 1, "moe_layer_start_index": 0},
    **{"first_k_dense_replace": 0, "num_dense_layers": 0, "decoder_sparse_step": 1},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
OWN: dict[str, dict[str, Any]] = {
    "beam": {"mlp_layer_types": ["sparse", "sparse"]},
    "flint": {"mlp_layer_types": ["sparse", "sparse"]},
    "granitemoehybrid": {"layer_types": ["attention", "attention"], "mamba_n_heads": 4, "mamba_d_head": 8},
    "lfm2_moe": {"layer_types": ["full_attention", "full_attention"]},
}
SOFTMAX_LOSS = ["flint", "laguna", "minimax_m2", "minimax_m3_vl_text", "deepseek_v4"]
"""Families whose loss is that of Mixtral, by a softmax, though their routers score by another function."""


def module_of(family: str) -> Path:
    name = model_type_to_module_name(family)
    return Path(transformers.__file__).parent / "models" / name / f"modeling_{name}.py"


@cache
def classes_of(family: str) -> tuple[str, ...]:
    """Classes of routers in a family's modeling file."""
    path = module_of(family)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return tuple(name for name in re.findall(r"^class (\w+)\(", text, re.MULTILINE) if name.endswith(ENDINGS))


FAMILIES = [family for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if classes_of(family)]
READ = [family for family in FAMILIES if any(name in SCORES for name in classes_of(family))]
BUILT = [family for family in READ if not family.endswith(("qwen3_5_moe", "qwen4_exp", "dots3_note"))]
"""Each family once: some have a second name for the configuration of the whole vision-language model."""


@cache
def routers_of(family: str) -> list[Any]:
    """One router of each class in a tiny language model of the family, with random weights."""
    config = AutoConfig.for_model(family, **SIZES, **OWN.get(family, {}))
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    torch.manual_seed(0)
    found: dict[type[nn.Module], nn.Module] = {}
    for router in routers(lm).values():
        found.setdefault(type(router), router.to_empty(device="cpu").eval())
    for router in found.values():
        for value in (*router.parameters(), *router.buffers()):
            if value.is_floating_point():
                nn.init.normal_(value, std=0.5)
            else:  # DeepSeek-V4's table from a token's id to its experts
                value.copy_(torch.rand(len(value), 4).argsort(dim=-1)[:, : value.shape[1]])
    return list(found.values())


def routed(router: Any) -> tuple[Routing, Any]:
    """A router's decisions as polyvex reads them, and the router's output."""
    torch.manual_seed(1)
    takes = inspect.signature(router.forward).parameters
    hidden = torch.randn(1, TOKENS, DIM) if "Afmoe" in type(router).__name__ else torch.randn(TOKENS, DIM)
    extra: dict[str, Any] = {name: torch.zeros(4) for name in takes if name.endswith("bias")}
    if "input_ids" in takes:
        extra["input_ids"] = torch.arange(TOKENS)
    with torch.no_grad(), record_routing(nn.ModuleDict({"gate": router})) as found:
        output = router(hidden, **extra)
    return found[0], output


def test_every_class_is_listed() -> None:
    unlisted = {name for family in FAMILIES for name in classes_of(family)} - set(SCORES) - set(UNREAD)
    assert unlisted == {"Dots3NoteVisionTopKRouter"}  # of the vision tower
    assert len(READ) > 45


@pytest.mark.parametrize("family", BUILT)
def test_probabilities_are_those_that_weights_are_taken_from(family: str) -> None:
    """Weights of two choices are as their probabilities, however they are normalized and scaled after."""
    for router in routers_of(family):
        routing, (_, weight, expert, *_) = routed(router)
        assert torch.allclose(routing.probs.sum(dim=-1), torch.ones(TOKENS))
        for mine, theirs in zip(routing.expert.tolist(), expert.tolist(), strict=True):
            assert sorted(mine) == sorted(theirs)
        if family == "phimoe":
            continue
        chosen = routing.probs.gather(1, expert)
        ours, theirs = (one / one.sum(dim=-1, keepdim=True) for one in (chosen, weight.float()))
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert (routing.weight[:, 0] >= routing.weight[:, 1]).all()


def own_loss(family: str) -> Any:
    name = model_type_to_module_name(family)
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    return getattr(module, "load_balancing_loss_func", None)


@pytest.mark.parametrize("family", [family for family in BUILT if own_loss(family) and family not in SOFTMAX_LOSS])
def test_load_balance_is_the_familys_own_up_to_the_number_of_choices(family: str) -> None:
    """transformers sums over the K choices, polyvex takes their mean; the gradient has the same factor."""
    for router in routers_of(family):
        for statistics in (one for name, one in router.named_parameters() if "correction_bias" in name):
            statistics.data.zero_()  # a bias of the choices, which the loss of transformers does not have
        routing, _ = routed(router)
        ours_at, theirs_at = (routing.logits.detach().clone().requires_grad_() for _ in range(2))
        again = Routing(
            expert=routing.expert,
            weight=routing.weight,
            logits=ours_at,
            probs=SCORES[type(router).__name__](router, ours_at),
        )
        ours = load_balance(again, shares(asked(again, "all")))
        theirs = own_loss(family)((theirs_at,), 4, router.top_k)
        assert theirs.item() == pytest.approx(router.top_k * ours.item(), rel=1e-5)
        ours.backward()
        theirs.backward()
        assert ours_at.grad is not None
        assert theirs_at.grad is not None
        assert torch.allclose(router.top_k * ours_at.grad, theirs_at.grad, atol=1e-6)


def test_phimoe_is_a_softmax_and_keeps_its_order() -> None:
    (router,) = routers_of("phimoe")
    routing, (logits, _, expert) = routed(router)
    assert torch.allclose(routing.probs, logits.softmax(dim=-1))
    assert torch.equal(routing.expert[:, 0], logits.argmax(dim=-1))
    assert torch.equal(routing.expert, expert)
    # The best two are within SparseMixer's 2 %: they share the first weight, and the second is alone with its own.
    with torch.no_grad():
        router.weight[:, 0] = torch.tensor([0.995, 1.0, 0.0, -1.0])
        with record_routing(nn.Sequential(router)) as found:
            router(torch.eye(DIM)[:1])
    assert found[0].expert.tolist() == [[1, 0]]
    assert found[0].weight.tolist() == [[pytest.approx(1 / (1 + math.exp(-0.005))), 1.0]]


def test_phimoes_own_auxiliary_loss_is_the_same_in_a_whole_model() -> None:
    torch.manual_seed(0)
    config = transformers.PhimoeConfig(**{**SIZES, "num_hidden_layers": 1})
    lm = transformers.PhimoeForCausalLM(config).eval()
    for value in lm.parameters():
        nn.init.normal_(value, std=0.5)
    ids = torch.arange(12).reshape(2, 6)
    with record_routing(lm) as found:
        theirs = lm(input_ids=ids, output_router_logits=True).aux_loss
    ours = auxiliary_losses(found, torch.ones(2, 6, dtype=torch.bool), counted="all")["load_balance"]
    assert theirs.item() == pytest.approx(2 * ours.item(), rel=1e-5)


@pytest.mark.parametrize("family", ["dbrx", "gemma4_text", "jetmoe", "llama4_text", "zaya"])
def test_other_routers_are_named_with_the_reason(family: str) -> None:
    names = [name for name in classes_of(family) if name in UNREAD]
    assert names
    for name in names:
        kind = type(name, (nn.Module,), {"top_k": 1, "num_experts": 4})
        assert routers(nn.Sequential(kind())) == {}
        assert unread_routers(nn.Sequential(kind(), kind())) == [f"{name}: {UNREAD[name]}"]


def test_an_unknown_router_is_not_read() -> None:
    class LaterTopKRouter(nn.Module):
        top_k, num_experts = 2, 4

    lm = nn.Sequential(LaterTopKRouter())
    assert routers(lm) == {}
    assert unread_routers(lm) == ["LaterTopKRouter: this version of polyvex does not know it"]
