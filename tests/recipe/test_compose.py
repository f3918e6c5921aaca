"""A recipe from a few choices."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe, parse_recipe
from polyvex.recipe.compose import Choices, compose_recipe

CHOICES = Choices(encoders=["color-grid", "patchify"], moe="sparse", positions="share_row", name="mine")


def test_what_is_composed_is_a_recipe(known: Registries) -> None:
    recipe = parse_recipe(tomllib.loads(compose_recipe(CHOICES, known)), registries=known)
    assert (recipe.name, recipe.positions.use) == ("mine", "share_row")
    assert [table.use for table in recipe.encoders] == ["color-grid", "patchify"]
    assert recipe.moe is not None


def test_every_key_is_written_and_explained(known: Registries) -> None:
    text = compose_recipe(CHOICES, known)
    lines = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if "#" not in line] == []


def test_a_composed_recipe_changes_nothing_when_read_again(known: Registries) -> None:
    first = parse_recipe(tomllib.loads(compose_recipe(CHOICES, known)), registries=known)
    choices = replace(CHOICES, moe="none")
    second = parse_recipe(tomllib.loads(compose_recipe(choices, known)), registries=known)
    assert second.moe is None
    assert first.dump()["encoders"] == second.dump()["encoders"]


def test_changes_are_written_into_the_text(known: Registries) -> None:
    text = compose_recipe(CHOICES, known, overrides=["seed=7"])
    assert tomllib.loads(text)["seed"] == 7


def test_a_folder_is_a_data_set(known: Registries, tiny_data: Path) -> None:
    text = compose_recipe(replace(CHOICES, data=str(tiny_data)), known)
    assert tomllib.loads(text)["data"]["use"] == "jsonl"
    assert tomllib.loads(text)["data"]["folder"] == str(tiny_data)


def test_unknown_names_are_told_at_once(known: Registries) -> None:
    choices = Choices(encoders=["patchfy"], fusion="mpl", positions="share", data="vqa", moe="all")
    with pytest.raises(RecipeError) as caught:
        compose_recipe(choices, known)
    kinds = ("encoder 'patchfy'", "fusion 'mpl'", "position scheme 'share'", "data set 'vqa'", "choice of --moe 'all'")
    assert [problem.split(".")[0] for problem in caught.value.problems] == [f"unknown {kind}" for kind in kinds]


def test_no_encoder_is_told(known: Registries) -> None:
    with pytest.raises(RecipeError, match="no --encoder given"):
        compose_recipe(Choices(), known)


def test_a_composed_recipe_is_checked(known: Registries, check: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="seed is 'x', expected int"):
        compose_recipe(CHOICES, known, overrides=["seed=x"])
