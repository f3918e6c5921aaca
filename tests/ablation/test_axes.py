"""Axes: from words on the command line to combinations of values, and from a combination to a recipe."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from polyvex.ablation import axes
from polyvex.ablation.axes import expand, label, parse_axis
from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe.model import recipe_model

Apply = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]

RAW: dict[str, Any] = {
    "seed": 0,
    "encoders": [
        {"use": "patchify", "name": "small", "patch_size": 16},
        {"use": "patchify", "name": "large", "patch_size": 32},
        {"use": "color-grid", "name": "color-grid", "rows": 2},
    ],
    "fusion": {"use": "mlp", "patches_per_token": 2, "depth": 3},
    "positions": {"use": "share_row"},
    "stages": [{"name": "align", "steps": 5}, {"name": "tune", "steps": 9}],
}


@pytest.fixture
def apply(registries: Registries) -> Apply:
    model = registries.derive(recipe_model)
    return lambda raw, cell: axes.apply(raw, cell, model).data


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("order=all", "order", "all"),
        (" order = all ", "order", "all"),
        ("order=a+b, b+a", "order", [["a", "b"], ["b", "a"]]),
        ('order=[["a", "b"], ["b", "a"]]', "order", [["a", "b"], ["b", "a"]]),
        ('order=["a", "b"]', "order", [["a", "b"]]),
        ("order=[a, b], [b, a]", "order", [["a", "b"], ["b", "a"]]),
        ("order=reversed", "order", ["reversed"]),
        ("moe=false,{router={use=top_k}}", "moe", [False, {"router": "{use=top_k}"}]),
        ("positions={use=stride,step=0.5},share_row", "positions", [{"use": "stride", "step": 0.5}, "share_row"]),
        ("moe.layers=[0, 1],[1]", "moe.layers", [[0, 1], [1]]),
        ("positions=sequential,share_row", "positions", ["sequential", "share_row"]),
        ("positions=share-row", "positions", ["share-row"]),
        ("positions=all", "positions", ["all"]),  # only an order knows the word
        ("fusion.patches_per_token=2,4", "fusion.patches_per_token", [2, 4]),
        ("stages.tune.lr=1e-4,2e-3", "stages.tune.lr", [1e-4, 2e-3]),
        ("fusion.shared=true,false", "fusion.shared", [True, False]),
        ("fusion.patches_per_token=[[1, 2], [2, 1]]", "fusion.patches_per_token", [[1, 2], [2, 1]]),
        ("prompt.template='a=b','c'", "prompt.template", ["a=b", "c"]),
        ("x=1,,2,", "x", [1, 2]),
    ],
)
def test_an_axis_is_read(text: str, name: str, values: Any) -> None:
    got = parse_axis(text)
    assert got == (name, values)
    assert not isinstance(values, list) or [type(one) for one in got[1]] == [type(one) for one in values]


@pytest.mark.parametrize("text", ["order", "order=", "=all", " = ", "", "positions= "])
def test_an_axis_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"expected name=value,value or order=all"):
        parse_axis(text)


def test_every_combination_comes_once_and_the_first_axis_is_the_slowest() -> None:
    cells = expand({"positions": ["p", "q"], "fusion.depth": [1, 2, 3]}, ["a", "b"])
    assert [(cell["positions"], cell["fusion.depth"]) for cell in cells] == [
        ("p", 1),
        ("p", 2),
        ("p", 3),
        ("q", 1),
        ("q", 2),
        ("q", 3),
    ]


def test_all_orders_are_the_permutations_and_begin_with_the_recipes() -> None:
    orders = [cell["order"] for cell in expand({"order": "all"}, ["a", "b", "c"])]
    assert orders[0] == ["a", "b", "c"]
    assert len(orders) == 6  # 3!
    assert {tuple(order) for order in orders} == {
        ("a", "b", "c"),
        ("a", "c", "b"),
        ("b", "a", "c"),
        ("b", "c", "a"),
        ("c", "a", "b"),
        ("c", "b", "a"),
    }


def test_orders_may_be_written_with_plus_or_as_lists() -> None:
    assert [cell["order"] for cell in expand({"order": ["b+a", ["a", "b"]]}, ["a", "b"])] == [["b", "a"], ["a", "b"]]


def test_orders_have_names_and_may_be_one_flat_list() -> None:
    assert [cell["order"] for cell in expand({"order": ["reversed"]}, ["a", "b", "c"])] == [["c", "b", "a"]]
    assert [cell["order"] for cell in expand({"order": "reversed"}, ["a", "b"])] == [["b", "a"]]
    assert [cell["order"] for cell in expand({"order": ["b", "a"]}, ["a", "b"])] == [["b", "a"]]
    assert [cell["order"] for cell in expand({"order": ["all"]}, ["a", "b"])] == [["a", "b"], ["b", "a"]]


def test_orders_that_are_none_are_all_listed() -> None:
    with pytest.raises(RecipeError) as caught:
        expand({"order": ["a+b", "a", "a+b+c", ["a", "a"], "a+c"]}, ["a", "b"])
    assert caught.value.problems == [
        "axis order: a is not an order of a+b",
        "axis order: a+b+c is not an order of a+b",
        "axis order: a+a is not an order of a+b",
        "axis order: a+c is not an order of a+b",
    ]


def test_an_axis_without_values_is_refused() -> None:
    with pytest.raises(RecipeError, match="axis positions has no value"):
        expand({"positions": [], "fusion": ["mlp"]}, ["a"])


def test_an_order_is_the_recipes_own(apply: Apply) -> None:
    # Tables are moved when the recipe is read: tests/recipe/test_order.py.
    data = apply(RAW, {"order": ["color-grid", "large", "small"]})
    assert data["order"] == ["color-grid", "large", "small"]
    assert data["encoders"] == RAW["encoders"]


def test_a_component_by_name_keeps_the_options_that_it_takes(apply: Apply) -> None:
    assert apply(RAW, {"positions": "share_all"})["positions"] == {"use": "share_all"}
    assert apply(RAW, {"fusion": "channel"})["fusion"] == {"use": "channel", "depth": 3}  # patches_per_token is mlp's
    assert apply(RAW, {"fusion": "mlp"})["fusion"] == RAW["fusion"]


def test_defaults_of_the_component_before_are_no_choice(apply: Apply) -> None:
    raw = {**RAW, "fusion": {"use": "mlp", "depth": 2, "separator": "learned"}, "positions": {"use": "share_encoder"}}
    assert apply(raw, {"fusion": "channel"})["fusion"] == {"use": "channel", "separator": "learned"}
    raw["positions"] = {"use": "share_encoder", "base": "common"}  # its default, which is not that of the others
    assert apply(raw, {"positions": "share_row"})["positions"] == {"use": "share_row"}


def test_a_path_goes_into_tables_and_lists_by_name(apply: Apply) -> None:
    data = apply(RAW, {"encoders.large.patch_size": 8, "stages.tune.steps": 1, "fusion.depth": 1, "moe.num_experts": 4})
    assert [table.get("patch_size") for table in data["encoders"]] == [16, 8, None]
    assert [stage["steps"] for stage in data["stages"]] == [5, 1]
    assert data["fusion"]["depth"] == 1
    assert data["moe"] == {"num_experts": 4}


def test_a_path_still_finds_its_encoder_after_the_order_changed(apply: Apply) -> None:
    cell = {"order": ["large", "color-grid", "small"], "encoders.small.patch_size": 4}
    assert [table.get("patch_size") for table in apply(RAW, cell)["encoders"]] == [4, 32, None]


def test_a_path_that_leads_nowhere_is_refused(apply: Apply) -> None:
    with pytest.raises(RecipeError, match=r"axis stages\.tuen\.steps: 'stages' has no item 'tuen'; it has align, tune"):
        apply(RAW, {"stages.tuen.steps": 1})
    with pytest.raises(RecipeError, match=r"axis seed\.x: 'seed' is 0, not a table"):
        apply(RAW, {"seed.x": 1})


def test_the_recipe_that_cells_are_made_from_is_never_changed(apply: Apply) -> None:
    before = copy.deepcopy(RAW)
    apply(RAW, {"order": ["color-grid", "large", "small"], "encoders.small.patch_size": 99, "positions": "share_all"})
    assert before == RAW


def test_a_cell_in_one_line() -> None:
    assert label({"order": ["a", "b"], "positions": "share_row", "fusion.depth": 2}) == (
        "order=a+b, positions=share_row, fusion.depth=2"
    )


def test_a_label_can_hold_a_list_of_numbers() -> None:
    assert label({"fusion.patches_per_token": [1, 2]}) == "fusion.patches_per_token=1+2"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{},{grids=[[2,2],[1,3]],newline=false}", [{}, {"grids": [[2, 2], [1, 3]], "newline": False}]),
        ('"a,b",\'c,"d\',e', ["a,b", 'c,"d', "e"]),
        ("1,,2,", [1, 2]),
        ("a],b", ["a]", "b"]),
    ],
)
def test_commas_inside_a_value_do_not_part_values(text: str, values: list[Any]) -> None:
    assert parse_axis(f"encoders.0.tiling={text}") == ("encoders.0.tiling", values)


def test_the_axis_set_changes_several_values_at_once(apply: Apply) -> None:
    data = apply(RAW, {"set": {"encoders.small.tune": "lora", "stages.tune.steps": 7}})
    assert (data["encoders"][0]["tune"], data["stages"][1]["steps"]) == ("lora", 7)
    assert apply(RAW, {"set": {}}) == RAW


def test_the_axis_set_takes_tables_alone(apply: Apply) -> None:
    with pytest.raises(RecipeError, match=r"axis set: got 'lora', expected a table of paths and values"):
        apply(RAW, {"set": "lora"})
    with pytest.raises(RecipeError, match=r"axis set: 'encoders' has no item 'none'; it has small, large"):
        apply(RAW, {"set": {"encoders.none.tune": "lora"}})


def test_tables_are_labelled_in_words() -> None:
    assert label({"set": {"encoders.0.tune": "lora", "fusion.grid": [2, 3]}}) == "encoders.0.tune=lora, fusion.grid=2+3"
    assert label({"set": {}}) == "no change"
    assert label({"moe": False, "encoders.0.tiling": {"grids": [[2, 2]]}}) == "moe=false, encoders.0.tiling=grids=(2+2)"
