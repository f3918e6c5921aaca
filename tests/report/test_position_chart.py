"""The picture of positions: a file that is what its ending says, with every panel, the same each time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from polyvex.hooks.manager import Registries
from polyvex.plan.positions import PositionMap, position_map
from polyvex.recipe import Recipe
from polyvex.report.position_chart import draw_positions


@pytest.fixture
def found(tiny_recipe: Callable[..., Recipe], registries: Registries) -> PositionMap:
    return position_map(tiny_recipe(), registries)


def test_a_png_has_the_colours_of_all_positions(found: PositionMap, tmp_path: Path) -> None:
    draw_positions(found, tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3)
    colors, counts = np.unique(pixels, axis=0, return_counts=True)
    large = {tuple(color) for color, count in zip(colors.tolist(), counts, strict=True) if count > 2000}
    wanted = {tuple(int(one) for one in colormaps["viridis"](position / 3, bytes=True)[:3]) for position in range(4)}
    assert wanted <= large


def test_an_svg_names_every_panel_and_is_the_same_each_time(found: PositionMap, tmp_path: Path) -> None:
    draw_positions(found, tmp_path / "a.svg")
    draw_positions(found, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    for part in ("patchify", "color-grid", "2x4 places, 2 positions", "tiny: share_row, 12 tokens on 4 positions"):
        assert part in text
