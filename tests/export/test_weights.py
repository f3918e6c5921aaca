"""Language models in another family's form: loaded back by transformers alone, they say the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralForCausalLM, Qwen3MoeForCausalLM

from polyvex.export import FAMILIES, reasons
from polyvex.export.families import expert_layers
from polyvex.export.weights import family_config, in_family, unplaced
from polyvex.export.write import compare, logits_of

from .conftest import Mixture

FAR = 1e-2
"""A share of the logits' size that no rounding explains."""


def loaded(lm: Any, family: str, path: Path, *, copy_dense: bool = False) -> Any:
    """The model after a way through files, compared with where it came from."""
    assert reasons(lm, FAMILIES[family], copy_dense=copy_dense) == []
    in_family(lm, FAMILIES[family]).save_pretrained(path)
    gap, scale = compare(lm, path)
    assert gap <= 1e-5 * scale
    return AutoModelForCausalLM.from_pretrained(path)


def moved(lm: Any, found: Any) -> float:
    """How far logits are apart, as a share of the largest."""
    ids = torch.arange(40).reshape(2, 20) % 96
    expected = logits_of(lm, ids)
    return float((logits_of(found, ids) - expected).abs().max() / expected.abs().max())


ROUTERS_OF_MIXTRAL = {
    "top-2": {"use": "top_k", "k": 2},
    "top-1": {"use": "top_k", "k": 1},
    "softmax after": {"use": "top_k", "k": 3, "softmax": "after"},
    "noisy": {"use": "noisy_top_k", "k": 2},
    "all of them, raw": {"use": "top_k", "k": 4, "renormalize": False},
    "capacity while it trains": {"use": "top_k", "k": 2, "capacity": 0.5},
}


@pytest.mark.parametrize("router", ROUTERS_OF_MIXTRAL)
def test_a_llama_becomes_mixtral(router: str, mixture: Mixture, tmp_path: Path) -> None:
    found = loaded(mixture("llama", router=ROUTERS_OF_MIXTRAL[router]), "mixtral", tmp_path)
    assert type(found) is MixtralForCausalLM


ROUTERS_OF_QWEN = {**ROUTERS_OF_MIXTRAL, "switch": {"use": "switch"}, "raw": {"use": "top_k", "renormalize": False}}


@pytest.mark.parametrize("router", ROUTERS_OF_QWEN)
def test_some_layers_of_a_qwen_become_qwen_moe(router: str, mixture: Mixture, tmp_path: Path) -> None:
    lm = mixture("qwen3", moe={"layers": [0, 2]}, router=ROUTERS_OF_QWEN[router], head_dim=16)
    found = loaded(lm, "qwen3_moe", tmp_path)
    assert type(found) is Qwen3MoeForCausalLM
    assert found.config.mlp_only_layers == [1]
    assert found.config.norm_topk_prob is (router not in ("switch", "raw"))
    assert found.config.head_dim == 16  # 32 / 4 would be 8


def test_the_other_normalisation_would_show(mixture: Mixture, tmp_path: Path) -> None:
    lm = mixture("qwen3", router={"use": "top_k", "renormalize": False}, head_dim=8)
    found = loaded(lm, "qwen3_moe", tmp_path)
    for layer in found.model.layers:
        layer.mlp.gate.norm_topk_prob = True
    assert moved(lm, found) > FAR


def test_files_are_those_of_the_family(mixture: Mixture, tmp_path: Path) -> None:
    lm = mixture("llama")
    loaded(lm, "mixtral", tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    mlp = "model.layers.1.block_sparse_moe"
    experts = lm.model.layers[1].mlp.experts
    gate, up = experts.gate_up_proj[2].chunk(2)
    assert torch.equal(stored[f"{mlp}.experts.2.w1.weight"], gate)
    assert torch.equal(stored[f"{mlp}.experts.2.w3.weight"], up)
    assert torch.equal(stored[f"{mlp}.experts.2.w2.weight"], experts.down_proj[2])


def test_dense_layers_become_equal_experts(mixture: Mixture, tmp_path: Path) -> None:
    lm = mixture("llama", moe={"layers": "sparse", "num_experts": 3})
    found = loaded(lm, "mixtral", tmp_path, copy_dense=True)
    dense, made = lm.model.layers[1].mlp, found.model.layers[1].mlp
    assert made.gate.weight.eq(0).all()
    for number in range(3):
        assert torch.equal(made.experts.down_proj[number], dense.down_proj.weight)


@pytest.mark.parametrize(("kind", "family"), [("llama", "mixtral"), ("qwen3", "qwen3_moe")])
def test_parts_of_a_network_have_their_own_width(kind: str, family: str, mixture: Mixture, tmp_path: Path) -> None:
    layers = "dense" if family == "mixtral" else [1]
    lm = mixture(kind, moe={"granularity": 3, "num_experts": 6, "layers": layers}, router={"k": 3}, head_dim=8)
    config = loaded(lm, family, tmp_path).config
    if family == "mixtral":
        assert (config.intermediate_size, config.num_local_experts) == (16, 6)
    else:
        assert (config.intermediate_size, config.moe_intermediate_size, config.num_experts) == (48, 16, 6)


@pytest.mark.parametrize(("kind", "family"), [("llama", "mixtral"), ("qwen3", "qwen3_moe")])
def test_the_rotary_base_is_kept(kind: str, family: str, mixture: Mixture, tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 100_000.0}
    lm = mixture(kind, rope_parameters=rope, head_dim=8)
    found = loaded(lm, family, tmp_path)
    assert family_config(lm, FAMILIES[family]).rope_parameters is not lm.config.rope_parameters
    assert found.config.rope_parameters == rope
    assert json.loads((tmp_path / "config.json").read_text())["rope_parameters"]["rope_theta"] == 100_000.0


def test_a_scaled_rotary_embedding_is_kept(mixture: Mixture, tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    lm = mixture("llama", rope_parameters=rope)
    found = loaded(lm, "mixtral", tmp_path)
    assert torch.equal(found.model.rotary_emb.inv_freq, lm.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "family"), [("llama", "mixtral"), ("qwen3", "qwen3_moe")])
def test_tied_embeddings_stay_tied(kind: str, family: str, tied: bool, mixture: Mixture, tmp_path: Path) -> None:
    found = loaded(mixture(kind, tie_word_embeddings=tied, head_dim=8), family, tmp_path)
    assert (found.lm_head.weight is found.model.embed_tokens.weight) is tied
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not tied


@pytest.mark.parametrize("window", [4, None])
def test_a_mistral_keeps_its_window(window: int | None, mixture: Mixture, tmp_path: Path) -> None:
    lm = mixture("mistral", sliding_window=window)
    assert loaded(lm, "mixtral", tmp_path).config.sliding_window == window
    assert (moved(lm, mixture("mistral", sliding_window=None)) > FAR) is (window == 4)


@pytest.mark.parametrize("slides", [True, False])
def test_a_qwen_keeps_its_window_if_all_layers_have_it(slides: bool, mixture: Mixture, tmp_path: Path) -> None:
    layers = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0 if slides else 3}
    lm = mixture("qwen3", head_dim=8, **layers)
    assert loaded(lm, "qwen3_moe", tmp_path).config.sliding_window == (4 if slides else None)
    assert (moved(lm, mixture("qwen3", head_dim=8)) > FAR) is slides


def test_biases_of_attention_go_into_qwen_moe(mixture: Mixture, tmp_path: Path) -> None:
    lm = mixture("qwen3", head_dim=8, attention_bias=True)
    found = loaded(lm, "qwen3_moe", tmp_path)
    assert torch.equal(found.model.layers[0].self_attn.q_proj.bias, lm.model.layers[0].self_attn.q_proj.bias)


def test_what_else_a_configuration_says_is_kept(mixture: Mixture) -> None:
    told = {"rms_norm_eps": 3e-4, "head_dim": 12, "bos_token_id": 5, "eos_token_id": [6, 7], "pad_token_id": 8}
    config = family_config(mixture("llama", **told), FAMILIES["mixtral"])
    assert {name: getattr(config, name) for name in told} == told
    assert (config.max_position_embeddings, config.vocab_size) == (128, 96)


def test_the_noise_of_training_is_left_behind(mixture: Mixture) -> None:
    lm = mixture("llama", router={"use": "noisy_top_k"})
    assert "noise" in dict(expert_layers(lm)[0].router.named_parameters())
    assert not [name for name in in_family(lm, FAMILIES["mixtral"]).state_dict() if "noise" in name]


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "more": (
        lambda lm: lm.model.layers[0].self_attn.register_parameter("extra", torch.nn.Parameter(torch.ones(3))),
        "model.layers.0.self_attn.extra [3] has no place",
    ),
    "less": (lambda lm: delattr(lm.model.norm, "weight"), "model.norm.weight [32] is missing"),
    "reshaped": (
        lambda lm: setattr(lm.model.norm, "weight", torch.nn.Parameter(torch.ones(4))),
        "model.norm.weight is [4], its place [32]",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_without_place_are_told(change: str, mixture: Mixture) -> None:
    lm = mixture("llama")
    act, said = CHANGES[change]
    act(lm)
    assert list(unplaced(lm, FAMILIES["mixtral"])) == [said]
