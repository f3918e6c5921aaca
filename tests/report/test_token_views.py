"""Tokens drawn on their image: each cell in its expert's colour, nothing where no token is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polyvex.report.token_views import chosen_layers, draw_tokens, tint
from polyvex.training.token_views import TokenView


def view(experts: list[list[int]], *, layers: tuple[int, ...] = (0,)) -> TokenView:
    seen = np.full([60, 60, 3], (255, 0, 255), np.uint8)
    return TokenView(encoder="eye", view=0, pixels=seen, experts=dict.fromkeys(layers, np.array(experts)))


def colors(path: Path) -> dict[tuple[int, int, int], int]:
    """How many pixels each colour has."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {(int(one[0]), int(one[1]), int(one[2])): int(count) for one, count in zip(found, counts, strict=True)}


def large(found: dict[tuple[int, int, int], int], wanted: tuple[float, ...]) -> int:
    """Pixels of about a colour, over 1,000 of a kind."""
    near = [n for one, n in found.items() if n > 1000 and np.allclose(one, wanted, atol=3)]
    return sum(near)


def cell(expert: int) -> tuple[float, ...]:
    """62 % of the tint over the grey of magenta: 110 + 145 * (255 + 0 + 255) / 3 / 255 = 206.67."""
    return tuple(0.62 * 255 * part + 0.38 * 206.67 for part in tint(expert))


def test_cells_have_their_experts_colours_and_empty_ones_none(tmp_path: Path) -> None:
    draw_tokens([view([[0, 0], [1, -1]])], tmp_path / "a.png", question="why?")
    found = colors(tmp_path / "a.png")
    zero, one, empty = large(found, cell(0)), large(found, cell(1)), large(found, (206.67,) * 3)
    assert zero / one == pytest.approx(2, rel=0.1)
    assert empty / one == pytest.approx(1, rel=0.1)
    assert large(found, (255, 0, 255)) / one == pytest.approx(4, rel=0.15)  # the picture itself, of the same size
    assert large(found, cell(2)) == 0


def test_no_two_of_64_experts_look_the_same() -> None:
    assert len({tuple(round(255 * part) for part in tint(expert)) for expert in range(64)}) == 64


@pytest.mark.parametrize(
    ("layers", "chosen"), [((3,), [3]), ((0, 2), [0, 2]), (tuple(range(0, 22, 2)), [0, 6, 14, 20])]
)
def test_at_most_four_layers_from_first_to_last(layers: tuple[int, ...], chosen: list[int]) -> None:
    assert chosen_layers([view([[0]], layers=layers)]) == chosen


def test_layers_without_tokens_are_drawn(tmp_path: Path) -> None:
    views = [view([[0, 1]]), view([[1]], layers=(0, 4)), view([[-1]])]
    draw_tokens(views, tmp_path / "a.png", question="what costs $5 and what $10?")
    assert colors(tmp_path / "a.png")[255, 255, 255] > 1000
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_a_fine_grid_has_no_numbers(tmp_path: Path) -> None:
    for side, black in ((8, True), (60, False)):
        draw_tokens([view([[1] * side] * side)], tmp_path / "a.png")
        pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
        inside = pixels[60:, pixels.shape[1] // 2 : -120]
        assert (inside.min() < 60) == black
