"""What ``polyvex positions show`` tells: positions of one image, by encoder and view."""

from collections.abc import Callable

import numpy as np
import pytest

from polyvex.hooks.manager import Registries
from polyvex.plan.positions import describe, position_map
from polyvex.recipe import Recipe

Make = Callable[..., Recipe]


def test_each_encoder_has_a_panel_of_its_grid(tiny_recipe: Make, registries: Registries) -> None:
    found = position_map(tiny_recipe(), registries)
    assert [panel.title for panel in found.panels] == ["patchify", "color-grid"]
    assert found.panels[0].places.tolist() == [[0, 0], [1, 1]]
    assert found.panels[1].places.tolist() == [[2] * 4, [3] * 4]
    assert [(share.name, share.tokens, share.positions) for share in found.shares] == [
        ("patchify", 4, 2),
        ("color-grid", 8, 2),
    ]
    assert (found.tokens, found.takes, found.size) == (12, 4, None)


def test_tiles_have_a_panel_with_the_ends_of_rows_in_its_last_column(tiny_recipe: Make, registries: Registries) -> None:
    recipe = tiny_recipe("encoders.0.tiling={grids=[[1, 2]]}", "positions.use=stride", "positions.step=0.5")
    found = position_map(recipe, registries, size=(32, 64))
    whole, tiles, other = found.panels
    assert [panel.title for panel in found.panels] == ["patchify, whole image", "patchify, tiles", "color-grid"]
    assert whole.places.tolist() == [[-0.5, 0], [0.5, 1]]
    assert tiles.ends
    assert tiles.places.tolist() == [[1.5, 2, 2.5, 3, 3.5], [4, 4.5, 5, 5.5, 6]]
    assert found.size == (32, 64)
    assert other.places[0, 0] == 6.5
    assert "an image of 64x32 pixels" in describe(found)


def test_without_a_size_the_costliest_counts(tiny_recipe: Make, registries: Registries) -> None:
    found = position_map(tiny_recipe("encoders.0.tiling={grids=[[1, 2], [2, 2]]}"), registries)
    assert found.size is not None
    assert found.panels[1].places.shape == (4, 5)


def test_tokens_without_a_grid_come_in_lines(tiny_recipe: Make, registries: Registries) -> None:
    recipe = tiny_recipe("encoders.0.reduce={use='perceiver', queries=40, heads=2}", "positions.use=share_all")
    panel = position_map(recipe, registries).panels[0]
    assert not panel.grid
    assert panel.places.shape == (2, 32)
    assert int((~np.isnan(panel.places)).sum()) == 40


def test_separators_are_told(tiny_recipe: Make, registries: Registries) -> None:
    found = position_map(tiny_recipe("fusion.separator=learned"), registries)
    assert found.separators == [2]
    assert "separators at 2" in describe(found)
    assert found.takes == 5


@pytest.mark.parametrize(("name", "takes"), [("sequential", 12), ("share_all", 2), ("share_encoder", 8)])
def test_the_budget_is_what_text_is_moved_on(name: str, takes: int, tiny_recipe: Make, registries: Registries) -> None:
    found = position_map(tiny_recipe(f"positions.use={name}"), registries)
    assert found.takes == takes
    assert f"text behind the image goes on {takes} positions further" in describe(found)
