"""``--set a.b=c``."""

from collections.abc import Callable
from typing import Any

import pytest

from polyvex.recipe import Recipe
from polyvex.recipe.overrides import apply_overrides

RAW: dict[str, Any] = {
    "name": "a",
    "seed": 0,
    "encoders": [{"use": "dinov2-s"}, {"use": "dinov2-s", "name": "second"}],
    "lm": {"use": "small-llama"},
}


def change(*overrides: str) -> dict[str, Any]:
    data, problems = apply_overrides(RAW, overrides)
    assert problems == []
    return data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('{ use = "x" }', {"use": "x"}),
        ('"3"', "3"),
        ("share_row", "share_row"),
        ("a path/with spaces", "a path/with spaces"),
        ("yes", "yes"),
        ("", ""),
        ("{image} {question}", "{image} {question}"),
        ("a=b", "a=b"),
    ],
)
def test_values_are_toml_or_plain_text(text: str, value: Any) -> None:
    assert change(f"name={text}")["name"] == value


def test_spaces_around_the_sign_do_not_count() -> None:
    assert change(" seed = 4 ")["seed"] == 4


def test_tables_are_made_on_the_way() -> None:
    assert change("moe.router.k=1")["moe"] == {"router": {"k": 1}}


@pytest.mark.parametrize(("step", "index"), [("0", 0), ("1", 1), ("dinov2-s", 0), ("second", 1)])
def test_list_items_go_by_number_name_or_use(step: str, index: int) -> None:
    assert change(f"encoders.{step}.image_size=98")["encoders"][index]["image_size"] == 98


def test_a_name_goes_before_a_use() -> None:
    raw = {"encoders": [{"use": "a"}, {"use": "b", "name": "a"}]}
    assert apply_overrides(raw, ["encoders.a.x=1"])[0]["encoders"][1] == {"use": "b", "name": "a", "x": 1}


def test_a_whole_item_can_be_replaced() -> None:
    assert change('encoders.0={ use = "x" }')["encoders"][0] == {"use": "x"}


def test_later_changes_win() -> None:
    assert change("seed=1", "seed=2")["seed"] == 2


def test_the_original_stays_as_it_was() -> None:
    change("encoders.0.image_size=98", "lm.use=x")
    assert RAW["encoders"][0] == {"use": "dinov2-s"}
    assert RAW["lm"] == {"use": "small-llama"}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed", "--set seed: expected a.b=c"),
        ("=3", "--set =3: expected a.b=c"),
        (" = 3", "--set  = 3: expected a.b=c"),
        ("name.a=3", "--set name.a=3: 'name' is 'a', not a table"),
        ("lm.use.a=3", "--set lm.use.a=3: 'lm.use' is 'small-llama', not a table"),
        (
            "encoders.7.x=1",
            "--set encoders.7.x=1: 'encoders' has no item '7'; it has dinov2-s, second, or numbers from 0",
        ),
        (
            "encoders.sam.x=1",
            "--set encoders.sam.x=1: 'encoders' has no item 'sam'; it has dinov2-s, second, or numbers from 0",
        ),
    ],
)
def test_what_cannot_be_changed_is_a_problem(override: str, problem: str) -> None:
    assert apply_overrides(RAW, [override])[1] == [problem]


def test_changes_are_checked_like_the_file(problems_of: Callable[..., list[str]]) -> None:
    assert problems_of("stages.align.steps=many") == ["[[stages]] #1: steps is 'many', expected int"]


def test_changes_reach_the_recipe(check: Callable[..., Recipe]) -> None:
    recipe = check("stages.align.steps=7", "encoders.color-grid.cols=2", "positions.use=share_all")
    assert (recipe.stages[0].steps, recipe.encoders[1].cols, recipe.positions.use) == (7, 2, "share_all")
