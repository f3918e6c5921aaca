"""The order of the encoders, as a list in the recipe."""

from collections.abc import Callable
from typing import Any

import pytest

from polyvex.errors import RecipeError
from polyvex.recipe import Recipe

Make = Callable[..., Recipe]


def names(recipe: Recipe) -> list[str]:
    return [table.name or table.use for table in recipe.encoders]


def test_an_order_moves_whole_tables(tiny_recipe: Make) -> None:
    plain, turned = tiny_recipe(), tiny_recipe('order=["color-grid", "patchify"]')
    assert names(turned) == ["color-grid", "patchify"] == names(plain)[::-1]
    assert turned.encoders[1].patch_size == plain.encoders[0].patch_size
    assert turned.order == []


def test_encoders_of_one_kind_keep_the_names_that_they_had(tiny_recipe: Make) -> None:
    same = [{"use": "color-grid", "rows": 2, "cols": 2}, {"use": "color-grid", "rows": 2, "cols": 4}]
    turned = tiny_recipe('order=["color-grid-2", "color-grid"]', encoders=same)
    assert names(turned) == ["color-grid-2", "color-grid"]
    assert [table.cols for table in turned.encoders] == [4, 2]


def test_options_with_a_value_per_encoder_go_with_it(tiny_recipe: Make) -> None:
    changes = ("fusion.patches_per_token=[1, 2]", 'order=["color-grid", "patchify"]')
    assert tiny_recipe(*changes).fusion.patches_per_token == [2, 1]


@pytest.mark.parametrize("order", [["patchify"], ["patchify", "patchify"], ["patchify", "colour-grid"]])
def test_what_is_no_order_of_the_encoders_is_refused(order: list[str], tiny_tables: Any, tiny_recipe: Make) -> None:
    with pytest.raises(RecipeError, match=r"is not an order of the encoders\. Name each of patchify, color-grid once"):
        tiny_recipe(order=order)
