"""Language models that polyvex cannot use are found by a trial of their class at a small size."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from polyvex.lm.shrink import shrink
from polyvex.training.trial import trial_problems


def language_model(kind: str, **sizes: Any) -> Any:
    """A model of the usual size of its class, without memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "qwen3_moe", "opt", "gpt_neox"])
def test_a_class_that_works_has_no_problem(kind: str) -> None:
    assert trial_problems(language_model(kind)) == []


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("recurrent_gemma", "a training step from embeddings fails"),  # its output has no cache
        ("minimax", "generation from embeddings fails"),  # it needs a cache of its own
        ("cpmant", "a training step from embeddings fails"),  # it needs token ids
    ],
)
def test_a_class_that_does_not_work_is_refused(kind: str, why: str) -> None:
    (problem,) = trial_problems(language_model(kind))
    assert why in problem


def test_a_class_that_gives_other_results_for_embeddings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model("starcoder2")
    forward = type(lm).forward

    def scaled(self: Any, *args: Any, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        return forward(
            self, *args, inputs_embeds=inputs_embeds if inputs_embeds is None else inputs_embeds * 2, **kwargs
        )

    monkeypatch.setattr(type(lm), "forward", scaled)
    (problem,) = trial_problems(lm)
    assert "gives other results than from token ids" in problem


def test_a_class_that_cannot_be_made_small_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model("phi")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("not at this size")

    monkeypatch.setattr(type(lm), "forward", broken)
    assert trial_problems(lm) == []


def test_a_trial_leaves_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    trial_problems(language_model("olmo2"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_type_of_layer_stays() -> None:
    types = ["sliding_attention"] * 5 + ["full_attention"]
    config: Any = shrink(AutoConfig.for_model("gemma3_text", num_hidden_layers=12, layer_types=types * 2))
    assert config.layer_types == ["sliding_attention"] * 3 + ["full_attention"]
    assert config.num_hidden_layers == 4


def test_a_small_configuration_has_no_large_size() -> None:
    config: Any = shrink(AutoConfig.for_model("llama", num_hidden_layers=80, num_key_value_heads=8, hidden_size=8192))
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (64, 4, 64)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 16)
    assert max(config.bos_token_id, config.eos_token_id) < config.vocab_size
