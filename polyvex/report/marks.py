"""Marks of the routing charts: many bars, ribbons and cells as few shapes, so that eighty layers stay a small file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Shape

from polyvex.report.canvas import COLORS, DARK, MARKERS, Look, bare, short

BAR = 0.4
"""Half of a bar's width; layers are 1 apart."""
WIDEST = 11.4
"""Width in inches of a chart of many layers: as wide as the page."""

Box = tuple[float, float, float, float]
"""Left, right, bottom, top."""
Layers = Sequence[Mapping]


def width_of(layers: int, *, panels: int = 1) -> float:
    """Width of a chart in inches, that gives each layer room for a number as long as the page has it."""
    return min(WIDEST, max(5.5, panels * (1.4 + 0.42 * layers)))


def layer_axes(
    figure: Figure, place: SubplotSpec, names: Sequence[str], look: Look, *, title: str = "", inches: float
) -> Axes:
    """Axes with one place per layer, 0, 1, 2 …; of their numbers as many as ``inches`` hold."""
    axes = bare(figure.add_subplot(place), look, size=10)
    axes.set_title(title, loc="left", fontsize=10.5, color=look.ink)
    axes.set_xlim(-0.6, len(names) - 0.4)
    step = -(-len(names) * max(map(len, names)) * 7 // max(int(72 * inches), 1))
    axes.set_xticks(range(0, len(names), max(step, 1)), names[:: max(step, 1)])
    axes.set_xlabel("layer")
    return axes


def boxes(axes: Axes, found: Sequence[Box], *, name: str, color: str, edge: str = "none") -> None:
    """All of one look as one shape; ``name`` becomes part of its id."""
    drawn = [
        Shape([(left, low), (right, low), (right, high), (left, high), (left, low)], closed=True)
        for left, right, low, high in found
        if high > low
    ]
    if drawn:
        shape = Shape.make_compound_path(*drawn)
        axes.add_patch(PathPatch(shape, facecolor=color, edgecolor=edge, linewidth=0.7, gid=name))


def stacks(
    axes: Axes, rows: Sequence[Sequence[float]], look: Look, *, name: str, points: tuple[float, float], half: float
) -> None:
    """A bar to 100 % per layer, the first expert lowest, with the experts' numbers where there is room for them.

    Args:
        rows: the shares of each layer's experts.
        points: width and height of a whole bar, in points.
        half: where bars end to the right of their layer's place; they begin at ``-BAR``.
    """
    tops = [np.concatenate([[0.0], np.cumsum(row)]) for row in rows]
    for expert in range(max(map(len, rows))):
        color = COLORS[expert % len(COLORS)]
        own = [(at, top) for at, top in enumerate(tops) if len(top) > expert + 1]
        found = [(at - BAR, at + half, float(top[expert]), float(top[expert + 1])) for at, top in own]
        boxes(axes, found, name=f"{name}-{expert}", color=color, edge=look.ground)
        for at, top in own:
            if points[0] >= 5.5 and (top[expert + 1] - top[expert]) * points[1] >= 9:
                ink = "#ffffff" if color in DARK else "#000000"
                place = (at + (half - BAR) / 2, _beside_quarters(top[expert], top[expert + 1]))
                size = 8 if points[0] >= 7 else 6.5
                axes.text(*place, str(expert), ha="center", va="center", fontsize=size, color=ink)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])


def _beside_quarters(low: float, high: float) -> float:
    """The middle of a bar's part, or a little beside it where the line of a quarter would cross the number."""
    middle = (low + high) / 2
    quarter = round(4 * middle) / 4
    if high - low < 0.15 or not 0 < quarter < 1 or abs(middle - quarter) >= 0.06:
        return middle
    return quarter + 0.06 if middle >= quarter else quarter - 0.06


def heat(
    axes: Axes,
    rows: Sequence[Sequence[float]],
    look: Look,
    *,
    top: float,
    map_of: str,
    power: float,
    numbers: bool,
) -> None:
    """A column per layer and a line per expert, 0 lowest; shades from 0 to ``top``. NaN and missing experts are blank.

    Args:
        power: shades go by values to this power; with 0.5 small shares differ while one expert has nearly all.
        numbers: whether to write percentages into the cells.
    """
    values = filled(rows)
    image = np.ma.masked_invalid(values)
    axes.imshow(image, cmap=map_of, norm=PowerNorm(power, 0, top), origin="lower", aspect="auto", interpolation="none")
    axes.set_ylim(-0.5, len(values) - 0.5)
    step = next(step for step in (1, 2, 4, 8, 16, 32) if len(values) / step <= 16)
    axes.set_yticks(range(0, len(values), step))
    axes.set_ylabel("expert")
    for (expert, at), value in np.ndenumerate(values) if numbers else ():
        if np.isfinite(value):
            ink = "#ffffff" if value / top < 0.6 ** (1 / power) else "#000000"
            axes.text(at, expert, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    axes.tick_params(colors=look.muted)


def filled(rows: Sequence[Sequence[float]]) -> Float[np.ndarray, "experts layers"]:
    """Lists of different length as one table, NaN where a layer has no such expert."""
    values = np.full((max(map(len, rows)), len(rows)), np.nan)
    for at, row in enumerate(rows):
        values[: len(row), at] = row
    return values


def scale(axes: Axes, look: Look, *, map_of: str, labels: Sequence[str]) -> None:
    """The colours of ``heat``, with what their lower end, middle and upper end mean."""
    bare(axes, look, size=9)
    shades = np.linspace(0, 1, 64)[:, None]
    axes.imshow(shades, cmap=map_of, origin="lower", aspect="auto", extent=(0, 1, 0, 1), interpolation="none")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks(np.linspace(0, 1, len(labels)), labels)


def lines(axes: Axes, series: Mapping[str, Sequence[float]], look: Look) -> None:
    """A line per source over layers; each has a colour and a marker of its own. ``all`` is the page's ink."""
    for index, (name, values) in enumerate(series.items()):
        color, marker, dash = line_look(name, index, look)
        axes.plot(range(len(values)), values, color=color, marker=marker, linestyle=dash, linewidth=1.4, markersize=4.5)
    axes.grid(axis="y", color=look.line, linewidth=0.8)


def line_look(name: str, index: int, look: Look) -> tuple[str, str, Any]:
    """Colour, marker and dash of a source's line."""
    if name == "all":
        return look.ink, "", "-"
    return COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)], "--" if index >= len(COLORS) else "-"


def line_legend(series: Mapping[str, Sequence[float]], look: Look) -> list[Line2D]:
    """What ``lines`` mean."""
    found = []
    for index, name in enumerate(series):
        color, marker, dash = line_look(name, index, look)
        found.append(Line2D([], [], color=color, marker=marker, linestyle=dash, label=short(name), markersize=4.5))
    return found


def legend(axes: Axes, handles: Sequence[Patch | Line2D], look: Look, *, title: str = "") -> None:
    """What looks mean, to the right of ``axes``."""
    found = axes.legend(
        handles=list(handles),
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9.5,
        labelcolor=look.ink,
        handlelength=1.4,
        borderaxespad=0.0,
        alignment="left",
    )
    found.get_title().set(fontsize=9.5, color=look.muted)
    for text in found.get_texts():
        text.set_parse_math(False)


def nothing(axes: Axes, words: str, look: Look) -> None:
    """Words where there is nothing to draw."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("")
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=10, color=look.muted, transform=axes.transAxes)
