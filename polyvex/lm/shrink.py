"""A small configuration of the same class as a large one, to try what a language model's code can do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WIDTH, HEADS, HEAD, INNER, VOCABULARY, CONTEXT, WINDOW, EXPERTS = 64, 4, 16, 64, 64, 128, 8, 4

SIZES: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "lru_width", "embedding_size"), WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_query_heads"), HEADS),
    **dict.fromkeys(("head_dim", "global_head_dim", "v_head_dim", "attention_head_dim", "kv_channels"), HEAD),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), HEAD),
    **{"qk_head_dim": 2 * HEAD, "rotary_dim": HEAD // 2},
    **{"mamba_d_head": HEAD, "mamba_head_dim": HEAD, "mamba_n_heads": 8, "mamba_num_heads": 8, "mamba_n_groups": 1},
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), HEAD),
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "zero_expert_num"), EXPERTS
    ),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "topk_method_group"), 1),
    **dict.fromkeys(("sliding_window", "attention_window_size", "attention_chunk_size", "window_size"), WINDOW),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"), CONTEXT),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **{"hidden_size_per_layer_input": 8},
}
"""Sizes by the names that configurations of transformers give them; each is an upper limit."""

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "num_global_key_value_heads")
MOST_LAYERS = 4


def shrink(config: "PreTrainedConfig", *, layers: bool = True) -> "PreTrainedConfig":
    """The configuration with a few narrow layers, at least one of each type that it lists.

    Args:
        layers: false keeps the number of layers, for classes whose layers depend on their place.

    Raises:
        Exception: whatever the class of the configuration raises for sizes that it cannot take.
    """
    values = config.to_dict()
    values.update({name: min(values[name], most) for name, most in SIZES.items() if _number(values.get(name))})
    values.update({name: _narrow(value) for name, value in values.items() if _inner(name)})
    heads = next((getattr(config, name) for name in ("num_attention_heads", "n_head") if hasattr(config, name)), None)
    for name in KEY_HEADS:
        if _number(values.get(name)):
            values[name] = HEADS if values[name] == heads else min(values[name], HEADS // 2)
    if "head_dim" in values and values["head_dim"] is None:
        values["head_dim"] = HEAD
    values.update(_fewer_layers(values) if layers else {})
    values.update({name: _token(name, values[name]) for name in values if name.endswith("_token_id")})
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(values.get(name), dict):
            values[name] = _rope(values[name])
    return type(config).from_dict(values)


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _inner(name: str) -> bool:
    """Whether a size is the width inside a feed-forward network."""
    return "intermediate_size" in name or "ffn_hidden" in name or name in ("ffn_dim", "n_inner", "ffn_size", "d_ff")


def _narrow(value: Any) -> Any:
    """A narrow width, or one for each layer."""
    return [_narrow(one) for one in value] if isinstance(value, list) else INNER if _number(value) else value


def _fewer_layers(values: dict[str, Any]) -> dict[str, Any]:
    """The first layer of each type; lists with an entry for each layer are cut alike."""
    name = next((one for one in LAYERS if _number(values.get(one))), None)
    if name is None:
        return {}
    count = values[name]
    kinds = values.get("layer_types") or values.get("layers_block_type") or [""] * count
    first = sorted({kinds.index(kind) for kind in kinds}) if len(kinds) == count else list(range(count))
    others = [index for index in range(count) if index not in first]
    kept = sorted([*first, *others[: max(0, min(MOST_LAYERS, count) - len(first))]])
    lists = {key: [value[one] for one in kept] for key, value in values.items() if _per_layer(value, count)}
    return {**lists, name: len(kept)}


def _per_layer(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and count > 1


def _token(name: str, value: Any) -> Any:
    """The id of a special token, within the small vocabulary."""
    low = ("pad_token_id", "bos_token_id", "eos_token_id")
    number = low.index(name) if name in low else len(low)
    return [number] if isinstance(value, list) else number if isinstance(value, int) else value


def _rope(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions without factors for each dimension, of which there are fewer now."""
    if any(isinstance(value, dict) for value in rope.values()):
        return {key: _rope(value) if isinstance(value, dict) else value for key, value in rope.items()}
    if not any(isinstance(value, list) for value in rope.values()):
        return rope
    kept = {key: value for key, value in rope.items() if key in ("rope_theta", "partial_rotary_factor")}
    return {"rope_type": "default", "rope_theta": 10_000.0, **kept}
