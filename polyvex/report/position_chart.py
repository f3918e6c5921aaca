"""Positions of an image's tokens as a picture: one panel per encoder and view, colours by position."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polyvex.plan.positions import Panel, PositionMap, number, spread
from polyvex.plan.tokens import SLACK

FORMATS = (".png", ".svg")
ACROSS = 4
"""Panels next to each other, at most."""

PLACE = 240.0
"""Size of a sign in points, times places along the longer side and signs side by side, that fills a panel."""

LEAST = 4.0
"""Points below which nobody can read a number, so none is written."""


def draw_positions(found: PositionMap, path: Path) -> None:
    """Write the picture as PNG or SVG, by the ending of ``path``."""
    across = min(ACROSS, len(found.panels))
    down = -(-len(found.panels) // across)
    figure = Figure(figsize=(3.1 * across + 0.9, 3.0 * down + 0.7), layout="constrained", dpi=120)
    grid = figure.subplots(down, across, squeeze=False).reshape(-1)
    low, high = spread(found.panels)
    images = [_draw(axes, panel, low=low, high=high) for axes, panel in zip(grid, found.panels, strict=False)]
    for axes in grid[len(found.panels) :]:
        axes.set_axis_off()
    bar = figure.colorbar(images[0], ax=list(grid), shrink=0.8)
    bar.set_label("position, counted from the image's first")
    figure.suptitle(_title(found), fontsize=11)
    with matplotlib.rc_context({"svg.hashsalt": "polyvex", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(axes: Axes, panel: Panel, *, low: float, high: float):
    places = np.ma.masked_invalid(panel.places)
    image = axes.imshow(places, cmap="viridis", vmin=low, vmax=max(high, low + 1), interpolation="nearest")
    rows, cols = panel.places.shape
    used = panel.places[~np.isnan(panel.places)]
    ends = ", and the ends of rows" if panel.ends else ""
    what = f"{rows}x{cols - panel.ends} places{ends}" if panel.grid else f"{len(used)} tokens without a grid"
    axes.set_title(f"{panel.title}\n{what}, {len(np.unique(np.floor(used + SLACK)))} positions", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    if rows * cols <= 100:
        written = {
            (row, col): number(value) for (row, col), value in np.ndenumerate(panel.places) if np.isfinite(value)
        }
        size = min(7.0, PLACE / max(rows, cols) / max(map(len, written.values())))
        for (row, col), text in written.items() if size >= LEAST else ():
            ink = "white" if panel.places[row, col] < (low + max(high, low + 1)) / 2 else "black"
            axes.text(col, row, text, ha="center", va="center", fontsize=size, color=ink)
    if panel.ends:
        axes.axvline(cols - 1.5, color="white", linewidth=1)
    return image


def _title(found: PositionMap) -> str:
    size = f", {found.size[1]}x{found.size[0]} pixels" if found.size else ""
    return f"{found.recipe}{size}: {found.scheme}, {found.tokens} tokens on {found.takes} positions"
