"""Visual tokens drawn back on the image: which expert each place of the grid chose, encoder by encoder."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from polyvex.report.canvas import ALONE, COLORS, short
from polyvex.training.token_views import TokenView

PANELS = 4
"""Layers shown at most: the first, the last, and two between."""
SIDE = 2.3
"""Inches of the longer side of a panel."""
TINT = 0.62
"""How much of a cell's colour is its expert's; the rest is the picture, in grey."""
LEAST = 4.5
"""Points below which nobody can read a number, so none is written."""

Rgb = tuple[float, float, float]


def draw_tokens(views: Sequence[TokenView], path: Path, *, question: str = "") -> None:
    """Write a PNG: a row per view, first the part of the image that it shows, then a panel for each of four layers.

    Args:
        views: at least one.
        question: what was asked of the image; the title.
    """
    layers = chosen_layers(views)
    ratios = [_height(view) for view in views]
    seen = {int(one) for view in views for layer in layers for one in np.unique(view.experts.get(layer, -1))}
    height = SIDE * sum(ratios) + 0.45 * len(views) + 0.5
    columns = -(-len(seen) // max(int(4.2 * height), 1))
    width = SIDE * (1 + len(layers)) + 0.3 + 0.75 * columns
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110, facecolor=ALONE.ground)
    with matplotlib.rc_context({"text.parse_math": False}):  # a question about $5 and $10 is not mathematics
        grid = figure.subplots(len(views), 1 + len(layers), squeeze=False, height_ratios=ratios)
        for row, view in zip(grid, views, strict=True):
            _draw_view(row, view, layers, room=72 * SIDE * min(_height(view), 1))
        handles = [Patch(facecolor=_over_grey(expert), label=str(expert)) for expert in sorted(seen - {-1})]
        if handles:
            figure.legend(handles=handles, title="expert", loc="outside right upper", frameon=False, ncols=columns)
        figure.suptitle(short(question, int(width * 11)), fontsize=11, color=ALONE.ink)
        figure.savefig(path, format="png")


def chosen_layers(views: Sequence[TokenView]) -> list[int]:
    """The first, the last, and two between of all layers in ``views``; fewer if there are fewer."""
    found = sorted({layer for view in views for layer in view.experts})
    places = np.linspace(0, len(found) - 1, min(PANELS, len(found))).round().astype(int)
    return [found[place] for place in places]


def tint(expert: int) -> Rgb:
    """An expert's colour: eight colours, then the same ones darker and lighter, so that no two of 64 are the same."""
    base = np.array(to_rgb(COLORS[expert % len(COLORS)]))
    step = expert // len(COLORS)
    towards, share = float(step % 2 == 0), 0.18 * ((step + 1) // 2)
    red, green, blue = base * (1 - share) + towards * share
    return float(red), float(green), float(blue)


def _over_grey(expert: int) -> Rgb:
    """A colour as cells show it, over the middle of the grey picture."""
    red, green, blue = (TINT * part + (1 - TINT) * 0.72 for part in tint(expert))
    return red, green, blue


def _height(view: TokenView) -> float:
    """Height of a view's panels as a share of their width."""
    rows, cols = view.pixels.shape[:2]
    return float(np.clip(rows / cols, 0.3, 2.0))


def _draw_view(row: Sequence[Axes], view: TokenView, layers: Sequence[int], *, room: float) -> None:
    for axes in row:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(ALONE.line)
        axes.set_box_aspect(_height(view))
    what = f"{short(view.encoder, 30)}{', tiles' if view.view else ''}"
    row[0].set_title(what, fontsize=9, color=ALONE.ink)
    row[0].imshow(view.pixels, aspect="auto", interpolation="nearest")
    for axes, layer in zip(row[1:], layers, strict=True):
        if layer in view.experts:
            axes.set_title(f"layer {layer}", fontsize=9, color=ALONE.ink)
            _draw_cells(axes, view.experts[layer], view.pixels, room=room)
        else:
            axes.text(0.5, 0.5, f"no tokens in layer {layer}", ha="center", va="center", fontsize=9, color=ALONE.muted)


def _draw_cells(
    axes: Axes,
    experts: Int[np.ndarray, "rows cols"],
    pixels: UInt8[np.ndarray, "height width 3"],
    *,
    room: float,
) -> None:
    """The picture in grey with each cell in its expert's colour, and its number if the cell has room for it."""
    rows, cols = experts.shape
    height, width = pixels.shape[:2]
    extent = (0, width, height, 0)
    axes.imshow(_grey(pixels), cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", interpolation="nearest")
    axes.imshow(_colors(experts), extent=extent, aspect="auto", interpolation="nearest")
    longest = len(str(experts.max()))
    size = min(8.0, room / max(rows, cols) / (0.75 * max(longest, 1.4)))
    for (row, col), expert in np.ndenumerate(experts) if size >= LEAST else ():
        if expert >= 0:
            place = ((col + 0.5) * width / cols, (row + 0.5) * height / rows)
            axes.text(*place, str(expert), ha="center", va="center", fontsize=size, color=_ink(int(expert)))


def _ink(expert: int) -> str:
    """Black, or white on the dark shades; luminance by Rec. 709."""
    return "#000000" if np.dot([0.2126, 0.7152, 0.0722], _over_grey(expert)) > 0.38 else "#ffffff"


def _grey(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width"]:
    """Lighter than the picture, so that colours and black numbers stay readable on it."""
    return 110 + 145 / 255 * pixels.mean(axis=2)


def _colors(experts: Int[np.ndarray, "rows cols"]) -> Float[np.ndarray, "rows cols 4"]:
    """Red, green, blue and opacity by cell; nothing where no token is."""
    found = np.zeros([*experts.shape, 4])
    for expert in np.unique(experts[experts >= 0]):
        found[experts == expert] = [*tint(int(expert)), TINT]
    return found
