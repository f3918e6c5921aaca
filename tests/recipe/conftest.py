"""Recipes checked against a fixed set of plugins, so that messages can be compared word for word."""

from collections.abc import Callable
from typing import Any

import polyvex_basics
import pytest

from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.recipe import Recipe, parse_recipe


@pytest.fixture(scope="session")
def known() -> Registries:
    """The built-in components and ``polyvex-basics``, whatever else is installed."""
    return load_registries(third_party=False, extra={"basics": polyvex_basics})


@pytest.fixture(scope="session")
def check(tiny_tables: Callable[[], dict[str, Any]], known: Registries) -> Callable[..., Recipe]:
    """A function that checks the tiny recipe with changes, as ``tiny_recipe`` but against ``known``."""

    def make(*overrides: str, **tables: Any) -> Recipe:
        data = {key: value for key, value in {**tiny_tables(), **tables}.items() if value is not None}
        return parse_recipe(data, overrides=overrides, registries=known)

    return make


@pytest.fixture(scope="session")
def problems_of(check: Callable[..., Recipe]) -> Callable[..., list[str]]:
    """A function that returns the problems of the tiny recipe with changes."""

    def find(*overrides: str, **tables: Any) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            check(*overrides, **tables)
        return caught.value.problems

    return find
