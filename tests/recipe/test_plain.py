"""Recipes as plain data: what no recipe means is refused before anything walks through it."""

from pathlib import Path

import pytest

from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe import parse_recipe, read_recipe
from polyvex.recipe.plain import DEEPEST, LARGEST, copy_plain, find_excesses, parse_toml

DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "content", [b"a =", b"\xff", b"a = " + DEEP, b"a = " + b"9" * 5000, b"a = 1\na = 2", b"\xff\xfea\x00", b"\0"]
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes, registries: Registries) -> None:
    assert parse_toml(content)[1]
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, registries=registries)
    assert caught.value.code == "recipe-toml"


def test_a_byte_order_mark_is_accepted() -> None:
    assert parse_toml(b"\xef\xbb\xbfname = 'a'") == ({"name": "a"}, [])


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_limits_are_inclusive() -> None:
    assert find_excesses({"a": [LARGEST, -LARGEST - 1, "x" * 100_000, True, 1.5, nested(DEEPEST - 2)]}) == []


@pytest.mark.parametrize("value", [LARGEST + 1, -LARGEST - 2, "x" * 100_001, "a\0", nested(DEEPEST), {"a\0": 1}])
def test_an_excess_is_named_by_its_place(value: object) -> None:
    (sentence,) = find_excesses({"table": {"key": [0, value]}})
    assert sentence.startswith("table.key.1")
    assert len(sentence) < 200


def test_every_excess_is_named() -> None:
    assert len(find_excesses({"a\0": ["b\0", {"c": LARGEST + 1}], "d": nested(DEEPEST + 3)})) == 4


def test_a_copy_shares_no_table_and_no_list() -> None:
    plain = {"a": [{"b": 1}, [2]]}
    copied = copy_plain(plain)
    assert copied == plain
    copied["a"][0]["b"], copied["a"][1][0] = 3, 4
    assert plain == {"a": [{"b": 1}, [2]]}


@pytest.mark.parametrize("change", [f"seed={2**64}", "a." * 5000 + "b=1", 'name="a\\u0000"', "name=" + "x" * 200_000])
def test_changes_from_the_command_line_have_the_same_limits(change: str, registries: Registries) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({}, overrides=[change], registries=registries)
    assert caught.value.code == "recipe-excess"


@pytest.mark.parametrize("text", ["[" * 5000, "9" * 5000])
def test_a_value_that_toml_cannot_parse_is_text_and_shown_in_short(text: str, registries: Registries) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({}, overrides=[f"seed={text}"], registries=registries)
    assert caught.value.code == "recipe"
    assert text not in str(caught.value)
