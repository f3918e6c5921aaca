"""Which parameters a stage trains, and proof that the others stayed as they were."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from polyvex.assemble import build
from polyvex.errors import RecipeError, TrainingError
from polyvex.hooks.manager import Registries
from polyvex.moe.upcycle import install_experts
from polyvex.recipe import Recipe
from polyvex.training.parts import check_hashes, expert_layers, freeze_all_but, hashes, part_of, selected

PARTS = ["connector", "lm.embeddings", "lm.attention", "lm.ffn", "lm.moe", "lm.head"]


@pytest.fixture(scope="module")
def sparse(tiny_recipe: Callable[..., Recipe], registries: Registries) -> nn.Module:
    """The tiny model after upcycling: layer 0 has experts, layer 1 an FFN. Columns and ends of rows are there too."""
    recipe = tiny_recipe("positions.use=share_row_col", "encoders.0.tiling={}")
    model = build(recipe, registries=registries).model
    assert recipe.moe is not None
    install_experts(model.lm, recipe.moe, (registries.routers["top_k"], recipe.moe.router), copy=True, context=None)
    return model


@pytest.fixture
def model(sparse: nn.Module) -> nn.Module:
    return copy.deepcopy(sparse)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("fusion.first.0.weight", "connector"),
        ("positions.scheme.columns", "connector"),
        ("views.newlines.0", "connector"),
        ("encoders.patchify.projection", "encoders.patchify"),
        ("lm.model.embed_tokens.weight", "lm.embeddings"),
        ("lm.model.layers.0.self_attn.q_proj.weight", "lm.attention"),
        ("lm.model.layers.1.mlp.up_proj.weight", "lm.ffn"),
        ("lm.model.layers.0.mlp.router.weight", "lm.moe"),
        ("lm.model.layers.0.mlp.experts.down_proj", "lm.moe"),
        ("lm.model.layers.0.input_layernorm.weight", "lm"),
        ("lm.model.norm.weight", "lm"),
        ("lm.lm_head.weight", "lm.head"),
    ],
)
def test_the_part_of_a_parameter(name: str, part: str, model: nn.Module) -> None:
    assert name in dict(model.named_parameters())
    assert part_of(name, expert_layers(model)) == part


def test_layer_10_is_not_layer_1() -> None:
    assert part_of("lm.model.layers.10.mlp.up_proj.weight", ["lm.model.layers.1.mlp"]) == "lm.ffn"


def test_connector_and_lm_are_everything_but_encoders(model: nn.Module) -> None:
    found = selected(model, ["connector", "lm"])
    names = {name for names in found.values() for name in names}
    assert names == {name for name, _ in model.named_parameters() if not name.startswith("encoders.")}


def test_named_parts_do_not_overlap(model: nn.Module) -> None:
    alone = [set(selected(model, [part])[part]) for part in PARTS]
    assert sum(map(len, alone)) == len(set.union(*alone))


def test_lm_is_its_parts_and_the_norms(model: nn.Module) -> None:
    whole = set(selected(model, ["lm"])["lm"])
    parts = {name for part in PARTS[1:] for name in selected(model, [part])[part]}
    assert parts < whole
    assert all("norm" in name for name in whole - parts)


def test_a_pattern_selects_by_name(model: nn.Module) -> None:
    assert selected(model, ["lm.model.layers.1.*norm*"])["lm.model.layers.1.*norm*"] == [
        "lm.model.layers.1.input_layernorm.weight",
        "lm.model.layers.1.post_attention_layernorm.weight",
    ]


def test_a_parameter_counts_for_the_first_entry_that_fits(model: nn.Module) -> None:
    found = selected(model, ["lm.head", "lm"])
    assert found["lm.head"] == ["lm.lm_head.weight"]
    assert "lm.lm_head.weight" not in found["lm"]


@pytest.mark.parametrize("trains", [["lm", "lm.head"], ["connector", "fusion.*"], ["lm", "*norm*"]])
def test_what_the_checker_lets_through_can_be_selected(
    trains: list[str], tiny_tables: Callable[[], dict[str, Any]], tiny_recipe: Callable[..., Recipe], model: nn.Module
) -> None:
    # A recipe must be refused at once, not after the cache is filled and earlier stages are trained.
    stages = tiny_tables()["stages"]
    stages[2]["trains"] = trains
    try:
        tiny_recipe(stages=stages)
    except RecipeError:
        return
    assert all(selected(model, trains).values())


def test_an_entry_that_selects_nothing_is_refused(model: nn.Module) -> None:
    with pytest.raises(RecipeError) as caught:
        selected(model, ["connector", "lm.model.layers.7.*", "*.nothing"])
    has = "it has connector, lm, lm.attention, lm.embeddings, lm.ffn, lm.head, lm.moe, and names such as "
    assert [problem.split("lm.model.embed")[0] for problem in caught.value.problems] == [
        f"trains: 'lm.model.layers.7.*' selects no parameter of this model; {has}",
        f"trains: '*.nothing' selects no parameter of this model; {has}",
    ]


@pytest.mark.parametrize("pattern", ["*", "encoders.*", "*projection"])
def test_a_pattern_that_reaches_an_encoder_is_refused(pattern: str, model: nn.Module) -> None:
    with pytest.raises(RecipeError, match=r"selects encoders\.patchify\.projection, which is frozen"):
        selected(model, [pattern])


def test_exactly_the_selected_parameters_get_gradients(model: nn.Module) -> None:
    trained = selected(model, ["lm.moe", "connector"])
    freeze_all_but(model, trained)
    names = {name for names in trained.values() for name in names}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == names


def test_hashes_of_equal_models_are_equal(model: nn.Module, sparse: nn.Module) -> None:
    assert hashes(model) == hashes(sparse)


def test_each_part_has_a_hash_of_what_trains_and_of_what_does_not(model: nn.Module) -> None:
    freeze_all_but(model, selected(model, ["lm.moe"]))
    assert {part: sorted(kinds) for part, kinds in hashes(model).items()} == {
        "encoders": ["frozen"],
        "fusion": ["frozen"],
        "lm": ["frozen", "trained"],
        "positions": ["frozen"],
        "views": ["frozen"],
    }


@pytest.mark.parametrize(
    "name", ["fusion.rest.0.1.bias", "lm.model.norm.weight", "lm.model.layers.0.mlp.experts.down_proj"]
)
def test_the_smallest_change_changes_the_hash_of_its_part_alone(name: str, model: nn.Module) -> None:
    before = hashes(model)
    with torch.no_grad():
        values = dict(model.named_parameters())[name].view(-1)
        values[-1] = torch.nextafter(values[-1], torch.tensor(9.0))
    after = hashes(model)
    assert [part for part in before if before[part] != after[part]] == [name.split(".", maxsplit=1)[0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_precision_can_be_hashed(dtype: torch.dtype, model: nn.Module) -> None:
    assert hashes(model.to(dtype))


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_a_single_number_can_be_hashed(kind: str, model: nn.Module) -> None:
    # A plugin's fusion may have a learned temperature, or a batch norm with its counter.
    number = torch.tensor(1.0)
    if kind == "parameter":
        model.fusion.temperature = nn.Parameter(number)
    else:
        model.fusion.register_buffer("steps", number)
    before = hashes(model)
    number.add_(1.0) if kind == "buffer" else model.fusion.temperature.data.add_(1.0)
    assert hashes(model) != before


def test_a_frozen_part_that_changed_is_an_error(model: nn.Module) -> None:
    freeze_all_but(model, selected(model, ["lm.moe"]))
    before = hashes(model)
    with torch.no_grad():
        model.fusion.rest[0][1].bias[0] += 1
        model.lm.model.layers[0].mlp.router.weight[0] += 1
    with pytest.raises(TrainingError, match=r"^stage experts: frozen weights of 'fusion' changed while it trained\. "):
        check_hashes(before, hashes(model), stage="experts")


def test_a_trained_part_that_did_not_change_is_an_error(model: nn.Module) -> None:
    freeze_all_but(model, selected(model, ["connector", "lm.moe"]))
    before = hashes(model)
    with torch.no_grad():
        model.lm.model.layers[0].mlp.router.weight[0] += 1
    with pytest.raises(TrainingError, match=r"^stage tune: 'fusion' was to train, but its weights are as before\. "):
        check_hashes(before, hashes(model), stage="tune")


def test_each_entry_of_trains_must_change(model: nn.Module) -> None:
    trained = selected(model, ["lm.attention", "lm.ffn"])
    freeze_all_but(model, trained)
    before = hashes(model, trained)
    assert {part: sorted(kinds) for part, kinds in before.items()} == {
        **{part: ["frozen"] for part in ("encoders", "fusion", "lm", "positions", "views")},
        **{part: ["trained"] for part in ("lm.attention", "lm.ffn")},
    }
    with torch.no_grad():
        model.lm.model.layers[1].self_attn.q_proj.weight[0] += 1
    with pytest.raises(TrainingError, match=r"^stage tune: 'lm.ffn' was to train, but its weights are as before\. "):
        check_hashes(before, hashes(model, trained), stage="tune")


def test_what_should_change_and_did_is_fine(model: nn.Module) -> None:
    freeze_all_but(model, selected(model, ["lm.moe"]))
    before = hashes(model)
    with torch.no_grad():
        model.lm.model.layers[0].mlp.router.weight[0] += 1
    check_hashes(before, hashes(model), stage="experts")


def test_encoders_that_no_question_chose_are_told_and_stop_nothing() -> None:
    same = {"encoders.sam": {"trained": "one"}, "lm": {"trained": "two"}}
    moved = {"encoders.sam": {"trained": "one"}, "lm": {"trained": "three"}}
    with pytest.raises(TrainingError, match=r"'encoders\.sam' was to train"):
        check_hashes(same, moved, stage="tune")
    told = check_hashes(same, moved, stage="tune", may_idle=True)
    assert told == ["stage tune: 'encoders.sam' learned NOTHING, for no question chose it"]
    with pytest.raises(TrainingError, match="'lm' was to train"):
        check_hashes(moved, moved, stage="tune", may_idle=True)
