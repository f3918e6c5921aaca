"""The families of transformers that a language model with experts can be written as, and what each can say."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from transformers import LlamaForCausalLM, MistralForCausalLM, PreTrainedModel, Qwen3ForCausalLM

from polyvex.errors import ExportError
from polyvex.moe.layer import MoEFeedForward
from polyvex.moe.routers import NoisyTopKRouter, Router, SwitchRouter, TopKRouter
from polyvex.moe.upcycle import moe_layers


@dataclass(frozen=True, kw_only=True)
class Family:
    """A mixture-of-experts language model of transformers, named by its ``model_type``.

    ``sources`` are the dense models that compute what it computes outside its experts; a subclass of them may not.
    ``raw_weights`` tells that experts may also be weighed by raw probabilities, which do not sum to one;
    ``dense_layers`` that layers without experts may stand among the others, with an inner width of their own.
    """

    name: str
    sources: tuple[type[PreTrainedModel], ...]
    raw_weights: bool
    dense_layers: bool


FAMILIES = {
    "mixtral": Family(
        name="mixtral", sources=(LlamaForCausalLM, MistralForCausalLM), raw_weights=False, dense_layers=False
    ),
    "qwen3_moe": Family(name="qwen3_moe", sources=(Qwen3ForCausalLM,), raw_weights=True, dense_layers=True),
}
"""All families, by name. Read in transformers 5.23, ``modeling_mixtral.py`` and ``modeling_qwen3_moe.py``."""


def family_named(name: str) -> Family:
    """The family of that name.

    Raises:
        ExportError: if there is none.
    """
    if name not in FAMILIES:
        close = get_close_matches(name, FAMILIES, n=1)
        hint = f", did you mean '{close[0]}'?" if close else "."
        raise ExportError([f"unknown family '{name}'{hint} Known: {', '.join(FAMILIES)}"], what="nothing was exported")
    return FAMILIES[name]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A router in the families' words: the softmax of all logits, its ``k`` largest, scaled to sum to one or not."""

    k: int
    sums_to_one: bool


def gate_of(router: Router) -> Gate:
    """What a router does when it answers, as long as no expert is full.

    The softmax of the k largest logits is the softmax of all, scaled to sum to one; so are the raw probabilities of all
    experts, if all work.

    Raises:
        ValueError: if no family can say it; tells why, and a way out.
    """
    if type(router) is NoisyTopKRouter:
        return Gate(k=router.options.k, sums_to_one=True)
    if type(router) is SwitchRouter:
        return Gate(k=1, sums_to_one=False)
    if type(router) is not TopKRouter:
        raise ValueError(
            f"{type(router).__name__} routes in another way than the families, where each token takes its k most "
            f"probable experts. Train with the router top_k, noisy_top_k or switch"
        )
    options: Any = router.options
    return Gate(k=options.k, sums_to_one=options.renormalize or options.k == router.num_experts)


def expert_layers(lm: Any) -> dict[int, MoEFeedForward]:
    """The layers of a language model that have experts, by number."""
    return {int(re.findall(r"\d+", name)[0]): layer for name, layer in moe_layers(lm)}


def dense_layers(lm: Any) -> dict[int, Any]:
    """The feed-forward networks of the other layers, by number, of a model of :attr:`Family.sources`."""
    sparse = expert_layers(lm)
    return {number: layer.mlp for number, layer in enumerate(lm.model.layers) if number not in sparse}
