"""The same model in a family's form: its configuration, and the weights under the family's names.

Letters as in ``moe/routing.py``.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from polyvex.export.families import Family, dense_layers, expert_layers, gate_of

KEPT = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act"),
    *("max_position_embeddings", "rope_parameters", "rms_norm_eps", "attention_dropout", "initializer_range"),
    *("use_cache", "pad_token_id", "bos_token_id", "eos_token_id"),
)
"""What both configurations call alike. All are written out: defaults differ between families, the rotary base too."""


def family_config(lm: Any, family: Family) -> PreTrainedConfig:
    """The family's configuration of a language model that it can express (:func:`polyvex.export.reasons`)."""
    config, layers = lm.config, expert_layers(lm)
    first = next(iter(layers.values()))
    gate, num_experts, width = gate_of(first.router), first.experts.num_experts, first.experts.inner
    words: dict[str, Any] = {name: copy.deepcopy(getattr(config, name)) for name in KEPT}
    words["vocab_size"] = lm.get_input_embeddings().weight.shape[0]
    words["tie_word_embeddings"] = lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    words["num_experts_per_tok"] = gate.k
    if family.name == "mixtral":
        # Only Mistral's model reads a window; a Llama's configuration may carry a stray one.
        window = config.sliding_window if config.model_type == "mistral" else None
        words |= {"num_local_experts": num_experts, "intermediate_size": width, "sliding_window": window}
    else:
        slides = "sliding_attention" in config.layer_types
        words |= {
            "num_experts": num_experts,
            "intermediate_size": config.intermediate_size,
            "moe_intermediate_size": width,
            "norm_topk_prob": gate.sums_to_one,
            "mlp_only_layers": list(dense_layers(lm)),
            "decoder_sparse_step": 1,
            "attention_bias": config.attention_bias,
            "use_sliding_window": slides,
            "sliding_window": config.sliding_window if slides else None,
        }
    return AutoConfig.for_model(family.name, **words)


def family_weights(weights: Mapping[str, Tensor], lm: Any, family: Family) -> dict[str, Tensor]:
    """The language model's weights by the family's names; nothing is copied but dense layers.

    Weights whose names are not known, those of adapters say, keep them (:func:`unplaced`).

    A dense layer of a family that has none becomes E equal experts under a router that knows no difference: whichever K
    it takes, their weights sum to one.
    """
    state = dict(weights)
    layers = expert_layers(lm)
    for number in layers:
        here = f"model.layers.{number}.mlp"
        if f"{here}.router.weight" in state:
            state[f"{here}.gate.weight"] = state.pop(f"{here}.router.weight")
        state.pop(f"{here}.router.noise", None)  # there is none when it answers
    if not family.dense_layers:
        count = next(iter(layers.values())).router.num_experts
        for number in dense_layers(lm):
            _copies(state, f"model.layers.{number}.mlp", count)
    return state


def _copies(state: dict[str, Tensor], here: str, count: int) -> None:
    names = [f"{here}.{name}_proj.weight" for name in ("gate", "up", "down")]
    if not all(name in state for name in names):
        return
    gate, up, down = (state.pop(name) for name in names)
    state[f"{here}.experts.gate_up_proj"] = torch.cat([gate, up]).repeat(count, 1, 1)
    state[f"{here}.experts.down_proj"] = down.repeat(count, 1, 1)
    state[f"{here}.gate.weight"] = gate.new_zeros(count, gate.shape[1])


def empty_family(lm: Any, family: Family) -> PreTrainedModel:
    """The family's model of the right shapes, without memory for weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(family_config(lm, family), trust_remote_code=False)


def unplaced(lm: Any, family: Family) -> Iterator[str]:
    """Weights that have no place in the family's model, and places that no weight fills, with their shapes."""
    places = {name: tuple(place.shape) for name, place in empty_family(lm, family).state_dict().items()}
    shapes = {name: weight.to("meta") for name, weight in lm.state_dict().items()}
    weights = {name: tuple(weight.shape) for name, weight in family_weights(shapes, lm, family).items()}
    for name in dict.fromkeys([*weights, *places]):
        if name not in places:
            yield f"{name} {list(weights[name])} has no place"
        elif name not in weights:
            yield f"{name} {list(places[name])} is missing"
        elif weights[name] != places[name]:
            yield f"{name} is {list(weights[name])}, its place {list(places[name])}"


def in_family(lm: Any, family: Family) -> PreTrainedModel:
    """The family's model with the language model's weights, to be saved; its rotary buffers have no memory."""
    made = empty_family(lm, family)
    made.load_state_dict(family_weights(lm.state_dict(), lm, family), assign=True)
    made.tie_weights()
    return made.eval()
