"""What a recipe asks of a language model, by its structure and by trying it, for families of many kinds."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from polyvex.assemble import use_attention
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.plan import make_plan
from polyvex.training.abilities import proven, reads_positions, unpackable

LLAMA: dict[str, Any] = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 16},
}
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2}
FALCON: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
HYBRID: dict[str, Any] = {**LLAMA, "num_hidden_layers": 4}

FAMILIES: dict[str, tuple[str, dict[str, Any], bool, str]] = {
    "llama": ("llama", LLAMA, True, ""),
    "gpt2": ("gpt2", GPT, True, ""),
    "gptj": ("gptj", {**GPT, "rotary_dim": 8}, True, ""),
    "opt": ("opt", {**FALCON, "ffn_dim": 64}, True, ""),
    "qwen2": ("qwen2", LLAMA, True, ""),
    "falcon": ("falcon", FALCON, True, ""),
    "falcon with alibi": ("falcon", {**FALCON, "alibi": True}, False, "counts positions by itself"),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, False, "counts positions by itself"),
    "mistral": ("mistral", {**LLAMA, "sliding_window": 4}, True, "has a sliding window (4 tokens)"),
    "llama4": (
        "llama4_text",
        {**HYBRID, "intermediate_size_mlp": 64, "num_local_experts": 2, "attention_chunk_size": 4},
        True,
        "attends within chunks of 4 tokens",
    ),
    "lfm2": (
        "lfm2",
        {**LLAMA, "layer_types": ["conv", "full_attention"]},
        True,
        "has layers that carry on from text to text (conv)",
    ),
    "jamba": (
        "jamba",
        {
            **{key: value for key, value in HYBRID.items() if key not in ("head_dim", "max_position_embeddings")},
            **{"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
            **{"use_mamba_kernels": False, "mamba_d_state": 4},
        },
        False,
        "has layers that carry on from text to text (linear_attention)",
    ),
}


def language_model(family: str) -> Any:
    kind, sizes, _, _ = FAMILIES[family]
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=50, **sizes)).eval()
    use_attention(lm, "auto")
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)  # fresh weights are so small that nothing would show
    return lm


def asking(scheme: str, *, pack: bool = False) -> Any:
    table = SimpleNamespace(use=scheme, base="sequential")
    return SimpleNamespace(encoders=[], positions=table, training=SimpleNamespace(pack=pack))


@pytest.mark.parametrize("family", FAMILIES)
def test_structure_tells_who_reads_positions_and_trying_it_says_the_same(family: str) -> None:
    lm, reads = language_model(family), FAMILIES[family][2]
    assert reads_positions(lm) is reads
    assert proven(asking("sequential"), lm) == []
    problems = proven(asking("share_row"), lm)
    if reads:
        assert problems == []
    else:
        (problem,) = problems
        assert "says the same at other positions, so 'share_row' would have no effect" in problem


@pytest.mark.parametrize("family", FAMILIES)
def test_structure_tells_whose_texts_can_be_packed(family: str) -> None:
    lm, why = language_model(family), FAMILIES[family][3]
    assert unpackable(lm) == why
    if not why:
        assert proven(asking("sequential", pack=True), lm) == []


@pytest.mark.parametrize("family", ["lfm2", "jamba"])
def test_packed_texts_that_leak_are_found_by_trying(family: str) -> None:
    (problem,) = proven(asking("sequential", pack=True), language_model(family))
    assert "a packed text does not say what it says alone" in problem


def test_trying_changes_neither_mode_nor_random_numbers() -> None:
    lm = language_model("llama").train()
    before = torch.random.get_rng_state()
    proven(asking("share_row", pack=True), lm)
    assert lm.training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_attention_that_a_language_model_lacks_is_refused() -> None:
    lm = language_model("gptj")
    assert lm.config._attn_implementation == "eager"
    with pytest.raises(RecipeError, match=r"GPTJForCausalLM (has no|cannot use) attention = 'sdpa'"):
        use_attention(lm, "sdpa")
    llama = language_model("llama")
    assert llama.config._attn_implementation == "sdpa"
    use_attention(llama, "eager")
    assert llama.config._attn_implementation == "eager"


def test_a_kernel_that_does_not_run_here_is_told_by_plan(
    tiny_recipe: Any, registries: Registries, tmp_path: Path
) -> None:
    works = make_plan(tiny_recipe("moe.backend=transformers.batched_mm"), registries, cache=tmp_path)
    assert works.problems == []
    (unknown,) = make_plan(tiny_recipe("moe.backend=transformers.fast"), registries, cache=tmp_path).problems
    assert "no backend 'transformers.fast'" in unknown
    (problem,) = make_plan(tiny_recipe("moe.backend=transformers.sonicmoe"), registries, cache=tmp_path).problems
    assert problem.startswith("[moe]: backend = 'transformers.sonicmoe' does not run here (cpu): ")
