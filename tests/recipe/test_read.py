"""From a file to a recipe."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe, parse_recipe, read_recipe
from polyvex.rundir import dump_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def test_a_file_is_the_recipe_that_it_holds(
    tiny_recipe_file: Path, tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    assert read_recipe(tiny_recipe_file, registries=registries).dump() == tiny_recipe().dump()


def test_changes_apply_to_a_file(tiny_recipe_file: Path, registries: Registries) -> None:
    assert read_recipe(tiny_recipe_file, overrides=["seed=5"], registries=registries).seed == 5


def test_errors_carry_the_path(tiny_recipe_file: Path, registries: Registries) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(tiny_recipe_file, overrides=["seed=x"], registries=registries)
    assert str(caught.value).startswith(f"{tiny_recipe_file}: 1 problem\n")


def test_no_file(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert caught.value.problems == [f"no recipe at {path}. Write one with: polyvex compose -o {path}"]


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path)
    assert caught.value.problems == [f"cannot read the recipe {tmp_path}: it is a folder; expected a regular file"]


@pytest.mark.parametrize("content", [b"name = ", b"name: tiny", b"\xff\xfe", b'name = "a"\nname = "b"'])
def test_not_toml(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="not valid TOML: "):
        read_recipe(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"moe": None, "stages": [{"name": "a", "trains": ["lm"], "steps": 1, "lr": {"lm": 1e-4}, "images": False}]},
        {"ablation": {"axes": {"order": "all", "positions": ["sequential"], "seed": [1, 2]}, "set": {"seed": 3}}},
    ],
)
def test_the_resolved_recipe_reads_back_as_itself(
    changes: dict[str, Any], tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    recipe = tiny_recipe(**changes)
    again = parse_recipe(tomllib.loads(dump_recipe(recipe)), registries=registries)
    assert again.dump() == recipe.dump()


def test_the_resolved_recipe_has_every_default(tiny_recipe: Callable[..., Recipe]) -> None:
    data = tiny_recipe().dump()
    assert data["fusion"] | {"use": "mlp", "patches_per_token": 1, "shared": True, "depth": 2} == data["fusion"]
    assert data["fusion"]["separator"] == "none"
    assert data["stages"][0]["schedule"] == "cosine"
    assert data["loss"] == {
        **{"load_balance": 0.01, "router_z": 0.0, "importance": 0.0, "load": 0.0},
        "balance": "first",
        "balance_layers": "sum",
    }


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_good(path: Path, registries: Registries) -> None:
    assert read_recipe(path, registries=registries).name


def test_recipes_cannot_be_changed(tiny_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny_recipe().seed = 3
