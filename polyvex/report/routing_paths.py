"""The way of tokens from layer to layer: MoE-LLaVA's pathways by principal components, and the true flows.

A pathway of MoE-LLaVA is a principal component of all tokens' paths, scaled to expert numbers (``vis3.py``): a
direction in which paths differ, and no way that a token went. Flows are counted: which share of tokens goes from
which expert to which.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Shape

from polyvex.report.canvas import COLORS, Look, Picture, canvas
from polyvex.report.marks import layer_axes, legend, nothing, width_of

BOLD: Sequence[tuple[str, Any]] = ((COLORS[0], "-"), (COLORS[5], (0, (5, 1.5))), (COLORS[2], (0, (1.5, 1))))
"""Colour and dash of the first, second and third."""
RANKS = ("first", "second", "third")
KEYS = {"all": "all tokens", "text": "text tokens", "visual": "visual tokens"}
MOST = 900
"""Flows that a panel draws at most, the largest."""
STEP = 0.5
"""Widths of flows are rounded to so many points, so that flows of one width are one shape."""
ONE_LAYER = "one MoE layer: tokens go nowhere from it"

Point = tuple[float, float]


def pathways_picture(found: Mapping[str, Any]) -> Picture:
    """MoE-LLaVA's "token pathways": components over layers as a bump chart, the first and the second bold."""
    ways = found["pathways"]
    told = "; ".join(
        f"{KEYS[key]}, {rank}: " + ", ".join(f"{value:.1f}" for value in values)
        for key in KEYS
        for rank, values in zip(RANKS[:2], ways["components"][key] if _count(found, key) else [], strict=False)
    )
    title = "Pathways: principal components of tokens’ paths, as expert numbers"
    return Picture(name="pathways", title=title, about=told or "no pathways", draw=partial(_draw_pathways, found))


def flows_picture(found: Mapping[str, Any]) -> Picture:
    """Shares of tokens that go from expert to expert between neighbouring layers, and the three most common paths."""
    told = "; ".join(
        f"{KEYS[key]}, {rank} path {'-'.join(map(str, one['path']))}: {_share(one['share'])}"
        for key in KEYS
        for rank, one in zip(RANKS, _common(found, key), strict=False)
    )
    title = "Flows: tokens from expert to expert, and their most common paths"
    return Picture(name="flows", title=title, about=told or "no paths", draw=partial(_draw_flows, found))


def _count(found: Mapping[str, Any], key: str) -> int:
    """How many tokens there are of a kind."""
    kinds = {source: ("all", "text" if source == "text" else "visual") for source in found["tokens"]}
    return sum(count for source, count in found["tokens"].items() if key in kinds[source])


def _common(found: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The paths to be drawn bold; one that a single token took is not common."""
    count = _count(found, key)
    paths = found["pathways"]["common"][key] if count else []
    return [one for one in paths[: len(BOLD)] if one["share"] * count > 1.5]


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{share:.2%}" if share >= 0.0001 else "under 0.01%"


def _panels(found: Mapping[str, Any], look: Look) -> tuple[Figure, dict[str, Axes]]:
    """Three panels over each other, with layers across and experts upwards; those without anything say so."""
    ways, experts = found["pathways"], max(layer["num_experts"] for layer in found["layers"])
    names = [str(layer) for layer in ways["layers"]]
    width, height = width_of(len(names)), min(3.4, 1.4 + 0.1 * experts)
    single = len(names) < 2
    figure = canvas(width=width, height=1.2 if single else 3 * height + 0.4, look=look)
    if single:
        nothing(layer_axes(figure, figure.add_gridspec(1, 1)[0], names, look, inches=width), ONE_LAYER, look)
        return figure, {}
    grid, drawn = figure.add_gridspec(3, 1), {}
    for row, (key, title) in enumerate(KEYS.items()):
        axes = layer_axes(figure, grid[row], names, look, title=title, inches=width - 2)
        if not _count(found, key):
            nothing(axes, "no tokens", look)
            continue
        step = next(step for step in (1, 2, 4, 8, 16, 32) if experts / step <= 12)
        axes.set_yticks(range(0, experts, step))
        axes.set_ylim(-0.5, experts - 0.5)
        axes.set_ylabel("expert")
        axes.grid(axis="y", color=look.line, linewidth=0.8)
        drawn[key] = axes
    return figure, drawn


def _draw_pathways(found: Mapping[str, Any], look: Look) -> Figure:
    figure, panels = _panels(found, look)
    for key, axes in panels.items():
        values = found["pathways"]["components"][key]
        rest = [_curve(list(enumerate(one))) for one in values[2:]]
        _stroke(axes, rest, name=f"{key}-others", color=look.muted, width=0.8, alpha=0.55)
        for rank, one in reversed(list(enumerate(values[:2]))):
            color, dash = BOLD[rank]
            _stroke(
                axes, [_curve(list(enumerate(one)))], name=f"{key}-{RANKS[rank]}", color=color, width=2.8, dash=dash
            )
            axes.plot(range(len(one)), one, "os"[rank], color=color, markersize=5)
        handles = [_key_line(rank, f"{RANKS[rank]} component") for rank in range(min(2, len(values)))]
        handles += [Line2D([], [], color=look.muted, linewidth=0.8, label="others")] if rest else []
        legend(axes, handles, look)
    return figure


def _draw_flows(found: Mapping[str, Any], look: Look) -> Figure:
    figure, panels = _panels(found, look)
    ways = found["pathways"]
    for key, axes in panels.items():
        height = 72 * (figure.get_size_inches()[1] / 3 - 0.8)
        widest = min(16.0, 0.9 * height / (axes.get_ylim()[1] + 0.5))
        kept = _draw_ribbons(axes, ways["flows"][key], look, name=key, widest=widest)
        common = _common(found, key)
        for rank, one in reversed(list(enumerate(common))):
            color, dash = BOLD[rank]
            beside = 0.07 * (rank - (len(common) - 1) / 2)  # so that paths through the same experts are all seen
            points = [(at, expert + beside) for at, expert in enumerate(one["path"])]
            _stroke(axes, [_curve(points)], name=f"{key}-{RANKS[rank]}", color=color, width=2.2, dash=dash)
        handles = [
            _key_line(rank, f"{_share(one['share'])} on the {RANKS[rank]} path") for rank, one in enumerate(common)
        ]
        note = f"grey: {kept:.0%} of all steps" if kept < 0.995 else "grey: all steps"
        legend(axes, handles, look, title=note if common else f"{note}\nno path was taken twice")
    return figure


def _draw_ribbons(
    axes: Axes, flows: Sequence[Sequence[Sequence[float]]], look: Look, *, name: str, widest: float
) -> float:
    """Lines from expert to expert, ``widest`` points for all tokens; returns which share of all steps is drawn."""
    found = [
        (float(share), at, start, end)
        for at, table in enumerate(flows)
        for (start, end), share in np.ndenumerate(np.asarray(table))
        if share > 0
    ]
    largest = sorted(found, reverse=True)[:MOST]
    by_width: dict[float, list[list[Point]]] = {}
    for share, at, start, end in largest:
        width = max(STEP, STEP * round(widest * share / STEP))
        by_width.setdefault(width, []).append([(at, start), (at + 1, end)])
    for width, pairs in sorted(by_width.items()):
        curves = [_curve(pair) for pair in pairs]
        _stroke(axes, curves, name=f"{name}-flow-{width:g}", color=look.muted, width=width, alpha=0.35)
    total = sum(share for share, *_ in found)
    return sum(share for share, *_ in largest) / total if total else 1.0


def _curve(points: Sequence[Point]) -> Shape:
    """A line through points that is level at each of them."""
    vertices, codes = [points[0]], [Shape.MOVETO]
    for (left, low), (right, high) in pairwise(points):
        middle = (left + right) / 2
        vertices += [(middle, low), (middle, high), (right, high)]
        codes += [Shape.CURVE4] * 3
    return Shape(vertices, codes)


def _stroke(
    axes: Axes, curves: Sequence[Shape], *, name: str, color: str, width: float, dash: Any = "-", alpha: float = 1.0
) -> None:
    """All curves of one look as one shape."""
    if curves:
        shape = Shape.make_compound_path(*curves)
        look = {"edgecolor": color, "linewidth": width, "linestyle": dash, "alpha": alpha, "capstyle": "butt"}
        axes.add_patch(PathPatch(shape, fill=False, gid=name, **look))


def _key_line(rank: int, words: str) -> Line2D:
    color, dash = BOLD[rank]
    return Line2D([], [], color=color, linestyle=dash, linewidth=2.4, label=words)
