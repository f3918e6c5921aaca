"""What no stage can do is told before anything is encoded or trained, whatever the language model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.plan import make_plan
from polyvex.recipe import Recipe
from polyvex.training.stages import train

Make = Callable[..., Recipe]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "opt": {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2},
    "mixtral": {
        **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"num_key_value_heads": 2, "num_local_experts": 4},
    },
    "jetmoe": {
        **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_key_value_heads": 2},
        **{"kv_channels": 16, "num_local_experts": 4},
    },
}
ALIGN = {"name": "align", "trains": ["connector"], "steps": 1}
EXPERTS = {"name": "experts", "trains": ["lm.moe"], "upcycle": True, "steps": 1}


@pytest.fixture
def pretrained(tiny_recipe: Make, tmp_path: Path) -> Make:
    """A function: a family's name and changes to a recipe whose language model is one of that family, small."""

    def make(family: str, *changes: str, **tables: Any) -> Recipe:
        AutoConfig.for_model(family, vocab_size=300, **FAMILIES[family]).save_pretrained(tmp_path / family)
        tables = {"moe": None, "stages": [ALIGN], **tables}
        return tiny_recipe(*changes, lm={"use": "pretrained", "checkpoint": str(tmp_path / family)}, **tables)

    return make


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "mixtral"])
def test_a_family_that_works_is_planned_whole(family: str, pretrained: Make, registries: Registries) -> None:
    plan = make_plan(pretrained(family), registries)
    assert plan.problems == []
    assert plan.stages[0].memory_bytes > 0


@pytest.mark.parametrize(
    ("family", "moe", "problem"),
    [
        ("llama", {"layers": [5]}, "stage experts: moe layers [5] are out of range: the language model has layers 0"),
        ("gpt2", {"layers": "dense"}, "stage experts: "),
    ],
)
def test_what_cannot_be_upcycled_is_told_by_plan_and_train_alike(
    family: str, moe: dict[str, Any], problem: str, pretrained: Make, registries: Registries, tmp_path: Path
) -> None:
    moe = {"num_experts": 2, "router": {"use": "top_k"}, **moe}
    recipe = pretrained(family, moe=moe, stages=[ALIGN, EXPERTS])
    (told,) = make_plan(recipe, registries).problems
    assert told.startswith(problem)
    with pytest.raises(RecipeError) as caught:
        train(recipe, tmp_path / "run", registries=registries, progress=False)
    assert caught.value.problems == [told]
    assert not (tmp_path / "run").exists()


def test_no_layer_at_all_is_refused(tiny_recipe: Make) -> None:
    with pytest.raises(RecipeError, match="moe layers is empty"):
        tiny_recipe("moe.layers=[]")


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_positions_with_a_fraction_are_refused_where_they_are_looked_up(
    family: str, pretrained: Make, registries: Registries
) -> None:
    (problem,) = make_plan(pretrained(family, "positions.use=stride"), registries).problems
    assert "looks its positions up in a table, so it cannot take those with a fraction, which 'stride' gives" in problem
    assert make_plan(pretrained(family, "positions.use=share_all"), registries).problems == []
    assert make_plan(pretrained("llama", "positions.use=stride"), registries).problems == []


def test_a_common_base_that_would_be_ignored_is_refused(pretrained: Make, registries: Registries) -> None:
    recipe = pretrained("bloom", "positions.use=sequential", "positions.base=common")
    (problem,) = make_plan(recipe, registries).problems
    assert "makes nothing of position ids" in problem
    assert make_plan(pretrained("bloom", "positions.use=sequential"), registries).problems == []


def test_a_scheme_that_the_language_model_would_ignore_is_refused(pretrained: Make, registries: Registries) -> None:
    (problem,) = make_plan(pretrained("bloom"), registries).problems
    assert "makes nothing of position ids, so 'share_row' would have no effect" in problem
    assert make_plan(pretrained("bloom", "positions.use=sequential"), registries).problems == []


def test_a_language_model_without_a_cache_is_refused(pretrained: Make, registries: Registries) -> None:
    (problem,) = make_plan(pretrained("mamba"), registries).problems
    assert "without a key-value cache" in problem


def test_experts_that_a_language_model_brings_itself_are_noted(pretrained: Make, registries: Registries) -> None:
    def notes(*changes: str, family: str = "jetmoe") -> list[str]:
        return [note for note in make_plan(pretrained(family, *changes), registries).notes if "cannot be read" in note]

    assert len(notes()) == 1  # it keeps its routers in another way than the others
    assert notes("loss.load_balance=0.0") == []
    assert notes(family="mixtral") == []
    assert notes(family="llama") == []


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_shares_the_embeddings_weights_is_told(
    tied: bool, pretrained: Make, registries: Registries, tmp_path: Path
) -> None:
    recipe = pretrained("llama", stages=[{**ALIGN, "trains": ["lm.head"]}])
    path = tmp_path / "llama"
    AutoConfig.from_pretrained(path, tie_word_embeddings=tied).save_pretrained(path)
    problems = make_plan(recipe, registries).problems
    assert len(problems) == int(tied)
    assert all("shares the weights of its token embeddings. Train lm.embeddings" in one for one in problems)


@pytest.mark.parametrize("name", ["train", "keys", "training", "_modules"])
def test_a_name_that_torch_uses_itself_is_refused(name: str, tiny_recipe: Make) -> None:
    with pytest.raises(RecipeError, match=r"reserved|expected text of the form"):
        tiny_recipe(f"encoders.patchify.name={name}")
