"""A language model that is a mixture of experts by itself: its routers learn balance, are counted, and are trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from polyvex.hooks.manager import Registries
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions
from polyvex.plan import make_plan
from polyvex.recipe import Recipe

from .runs import Run, curve, weights

STAGES = [
    {"name": "align", "trains": ["connector"], "steps": 1, "batch_size": 4},
    {"name": "experts", "trains": ["lm.moe"], "steps": 2, "batch_size": 4, "lr": 1e-2},
]


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The ``[lm]`` table of a tiny Mixtral: two of four experts in each of two layers."""
    path = tmp_path_factory.mktemp("mixtral")
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=2,
        num_local_experts=4,
        max_position_embeddings=256,
    )
    MixtralForCausalLM(config).save_pretrained(path)
    SmallLlama(SmallLlamaOptions(vocab_size=299)).tokenizer(["what color is the square?"]).save_pretrained(path)
    return {"use": "pretrained", "checkpoint": str(path)}


def test_its_routers_are_balanced_where_they_learn(run: Run, mixtral: dict[str, Any]) -> None:
    made = run(lm=mixtral, moe=None, stages=STAGES, evaluation={"after": "never"})
    (first,) = curve(made, "0-align")
    assert first["load_balance"] > 1.5  # told, as a sum over two layers, but nothing learns from it
    assert first["loss"] == pytest.approx(first["answer_loss"], abs=1e-6)
    for line in curve(made, "1-experts"):
        assert line["loss"] == pytest.approx(line["answer_loss"] + 0.01 * line["load_balance"], abs=1e-5)
    before, after = weights(made, "0-align"), weights(made, "1-experts")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".mlp." in name or ".block_sparse_moe." in name for name in moved)
    assert any("gate" in name for name in moved)


def test_plan_counts_what_works_on_a_token(
    tiny_recipe: Any, registries: Registries, mixtral: dict[str, Any], tmp_path: Path
) -> None:
    recipe: Recipe = tiny_recipe(lm=mixtral, moe=None, stages=STAGES)
    plan = make_plan(recipe, registries, cache=tmp_path)
    assert plan.problems == []
    assert not any("load-balancing" in note for note in plan.notes)
    # Of 2 layers with 4 experts of 3 · 16 · 24 parameters, 2 rest for each token.
    assert plan.stages[1].total - plan.stages[1].active == 2 * 2 * 3 * 16 * 24
    assert plan.stages[1].trainable == 2 * (4 * 3 * 16 * 24 + 4 * 16)


def test_losses_without_any_router_are_told_once_the_model_is_known(
    tiny_recipe: Any, registries: Registries, mixtral: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tiny_recipe("loss.router_z=0.001", lm=mixtral, moe=None, stages=STAGES)
    assert make_plan(recipe, registries, cache=tmp_path).problems == []
    dense = tmp_path / "dense"
    component = SmallLlama(SmallLlamaOptions(vocab_size=300, hidden_size=32, layers=1, heads=2, kv_heads=2))
    component.load(component.config()).save_pretrained(dense)
    component.tokenizer(["a"]).save_pretrained(dense)
    lm = {"use": "pretrained", "checkpoint": str(dense)}
    problems = make_plan(
        tiny_recipe("loss.router_z=0.001", lm=lm, moe=None, stages=STAGES[:1]), registries, cache=tmp_path
    ).problems
    assert problems == ["[loss]: router_z has no effect without a [moe] table: there is no router to teach"]
