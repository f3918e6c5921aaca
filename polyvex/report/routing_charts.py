"""Which tokens go to which experts, layer by layer: MoE-LLaVA's pictures, and those of each visual encoder.

Bars where every expert can have a colour of its own; with more experts than colours a table of shades instead, in
which an expert is told by its line. What is drawn are first choices, as MoE-LLaVA draws them (arXiv:2401.15947,
its ``vis1.py`` to ``vis3.py``).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from polyvex.report.canvas import COLORS, Look, Picture, canvas, short
from polyvex.report.marks import (
    BAR,
    Box,
    boxes,
    heat,
    layer_axes,
    legend,
    line_legend,
    lines,
    nothing,
    scale,
    stacks,
    width_of,
)
from polyvex.report.routing_certainty import certainty_picture
from polyvex.report.routing_paths import flows_picture, pathways_picture

SIDE = 1.5
"""Inches that labels on both sides of a panel take."""
SPLIT = 0.18
"""Where an expert's colour ends to the right of its layer, and the strip of text and visual tokens begins."""

SHADES = "viridis"
TWO_ENDS = ("text", "both", "visual")

Found = Mapping[str, Any]
"""What ``routing.json`` holds."""


def routing_pictures(found: Found) -> list[Picture]:
    """All pictures of a run's routing, in the order in which they are shown."""
    makers = (load_picture, modality_picture, encoders_picture, pathways_picture, flows_picture, certainty_picture)
    return [make(found) for make in makers]


def draw_routing(found: Found, folder: Path, *, png: bool) -> None:
    """Write ``load.svg``, ``modality.svg``, ``encoders.svg``, ``pathways.svg``, ``flows.svg`` and ``certainty.svg``.

    Args:
        found: what ``routing.json`` holds.
        folder: where to; it must exist.
        png: whether to write each as PNG too.
    """
    for picture in routing_pictures(found):
        for ending in (".svg", ".png") if png else (".svg",):
            picture.write(Path(folder) / f"{picture.name}{ending}")


def load_picture(found: Found) -> Picture:
    """MoE-LLaVA's "expert loading": first choices of all tokens, and how each expert's are split by modality.

    Text tokens are scaled to the number of visual tokens, as in ``vis1.py``: an expert's split is half and half if
    it is the first choice of the same share of text tokens and of visual tokens.
    """
    told = "; ".join(
        f"layer {layer['layer']}: "
        + ", ".join(
            f"expert {expert} {share:.1%} (visual {part:.0%})" if np.isfinite(part) else f"expert {expert} {share:.1%}"
            for expert, (share, part) in enumerate(zip(layer["first"]["all"], visual_part(layer), strict=True))
        )
        for layer in found["layers"]
    )
    title = "Expert load: first choices of all tokens"
    return Picture(name="load", title=title, about=told, draw=partial(_draw_load, found))


def modality_picture(found: Found) -> Picture:
    """MoE-LLaVA's "modality preference": first choices of text tokens and of visual tokens, side by side."""
    title = "Modality: first choices of text and of visual tokens"
    draw = partial(_draw_shares, found, ("text", "visual"), name="modality")
    return Picture(name="modality", title=title, about=_told(found, ("text", "visual")), draw=draw)


def encoders_picture(found: Found) -> Picture:
    """First choices of each visual encoder's tokens, and how far its load is from that of all tokens."""
    keys = encoders_of(found)
    title = "Encoders: first choices of each visual encoder’s tokens"
    draw = partial(_draw_shares, found, keys, name="encoders", apart=True)
    return Picture(name="encoders", title=title, about=_told(found, keys) or "no visual encoder", draw=draw)


def encoders_of(found: Found) -> tuple[str, ...]:
    """The sources that are visual encoders, in order."""
    return tuple(source for source in found["sources"] if source != "text")


def tokens_of(found: Found, key: str) -> int:
    """How many tokens a key of the tables covers: a source, ``visual`` or ``all``."""
    if key in found["tokens"]:
        return int(found["tokens"][key])
    return sum(count for source, count in found["tokens"].items() if key == "all" or source != "text")


def visual_part(layer: Found) -> list[float]:
    """By expert: visual tokens among its first choices, with as many text tokens as visual ones; NaN if it has none."""
    pairs = zip(layer["first"]["text"], layer["first"]["visual"], strict=True)
    return [visual / (text + visual) if text + visual else float("nan") for text, visual in pairs]


def _told(found: Found, keys: Sequence[str]) -> str:
    return "; ".join(
        f"{key}, layer {layer['layer']}: "
        + ", ".join(f"expert {expert} {share:.1%}" for expert, share in enumerate(layer["first"][key]))
        if tokens_of(found, key)
        else f"{key}: no tokens"
        for key in keys
        for layer in (found["layers"] if tokens_of(found, key) else found["layers"][:1])
    )


def _many(found: Found) -> bool:
    return most_experts(found) > len(COLORS)


def most_experts(found: Found) -> int:
    """Experts of the layer that has most."""
    return max(layer["num_experts"] for layer in found["layers"])


def layer_names(found: Found) -> list[str]:
    """The MoE layers' places in the language model, as text."""
    return [str(layer["layer"]) for layer in found["layers"]]


def _swatches(found: Found) -> list[Patch]:
    """Colours of experts, the highest on top as in the bars."""
    return [Patch(color=COLORS[expert], label=str(expert)) for expert in reversed(range(most_experts(found)))]


def _rows(found: Found, key: str) -> list[list[float]]:
    return [layer["first"][key] for layer in found["layers"]]


def _top(found: Found, keys: Sequence[str]) -> float:
    """The end of a scale of shades: the largest share there is."""
    return max(max(max(row, default=0.0) for row in _rows(found, key)) for key in keys) or 1.0


def _draw_load(found: Found, look: Look) -> Figure:
    return _load_as_shades(found, look) if _many(found) else _load_as_bars(found, look)


def _load_as_bars(found: Found, look: Look) -> Figure:
    names, width = layer_names(found), width_of(len(found["layers"]))
    figure = canvas(width=width, height=3.5, look=look)
    axes = layer_axes(figure, figure.add_gridspec(1, 1)[0], names, look, inches=width - SIDE)
    points = 72 * (width - SIDE) / len(names) * (BAR + SPLIT)
    stacks(axes, _rows(found, "all"), look, name="load", points=(points, 190), half=SPLIT)
    text, visual = _strips(found)
    boxes(axes, text, name="text", color=look.ink)
    boxes(axes, visual, name="visual", color=look.ground, edge=look.muted)
    split = [
        Patch(facecolor=look.ground, edgecolor=look.muted, label="visual"),
        Patch(facecolor=look.ink, label="text"),
    ]
    legend(axes, [*_swatches(found), *split], look, title="expert, and\nits tokens")
    return figure


def _strips(found: Found) -> tuple[list[Box], list[Box]]:
    """Beside each expert's part of a bar: text below, visual tokens above."""
    text, visual = [], []
    for at, layer in enumerate(found["layers"]):
        low = 0.0
        for share, part in zip(layer["first"]["all"], visual_part(layer), strict=True):
            if np.isfinite(part):
                gap = min(0.004, share / 4)
                cut = low + gap + (share - 2 * gap) * (1 - part)
                text.append((at + SPLIT + 0.04, at + BAR, low + gap, cut))
                visual.append((at + SPLIT + 0.04, at + BAR, cut, low + share - gap))
            low += share
    return text, visual


def _load_as_shades(found: Found, look: Look) -> Figure:
    names, experts = layer_names(found), most_experts(found)
    width, height = width_of(len(names)), _height(experts)
    figure = canvas(width=width, height=2 * height + 0.3, look=look)
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 0.025])
    numbers = _numbers(width, len(names))
    top = _top(found, ["all"])
    parts = [visual_part(layer) for layer in found["layers"]]
    for row, (title, rows, most, map_of, power, labels) in enumerate(
        (
            ("share of all tokens", _rows(found, "all"), top, SHADES, 0.5, _ends(top)),
            ("visual tokens among an expert’s own, as many of both", parts, 1.0, "PuOr", 1.0, TWO_ENDS),
        )
    ):
        axes = layer_axes(figure, grid[row, 0], names, look, title=title, inches=width - SIDE)
        heat(axes, rows, look, top=most, map_of=map_of, power=power, numbers=numbers and experts <= 16)
        scale(figure.add_subplot(grid[row, 1]), look, map_of=map_of, labels=labels)
    return figure


def _ends(top: float) -> list[str]:
    """Shares at the ends and in the middle of shades that go by square roots."""
    return ["0%", f"{top / 4:.1%}", f"{top:.1%}"]


def _numbers(width: float, layers: int) -> bool:
    """Whether a column is wide enough for two digits."""
    return 72 * (width - SIDE) / layers >= 20


def _height(experts: int) -> float:
    """Of a panel of shades, in inches."""
    return min(4.6, 1.2 + 0.12 * experts)


def _draw_shares(found: Found, keys: Sequence[str], look: Look, *, name: str, apart: bool = False) -> Figure:
    """A panel per source, next to each other while there is room; below them how far sources are from all."""
    layers, many = len(found["layers"]), _many(found)
    across = 2 if layers <= 16 and len(keys) > 1 else 1
    width = width_of(layers, panels=across)
    tall = _height(most_experts(found)) if many else 2.2
    down = max(-(-len(keys) // across), 1)
    heights = [tall] * down + ([1.9] if apart and keys else [])
    figure = canvas(width=width, height=sum(heights) + 0.5, look=look)
    grid = figure.add_gridspec(len(heights), across + 1, height_ratios=heights, width_ratios=[1] * across + [0.03])
    inches = (width - SIDE) / across
    top, panels = _top(found, keys) if keys else 1.0, []
    for index, key in enumerate(keys):
        place = grid[index // across, index % across]
        axes = layer_axes(figure, place, layer_names(found), look, title=_counted(found, key), inches=inches - 0.3)
        panels.append(axes)
        if not tokens_of(found, key):
            nothing(axes, "no tokens", look)
        elif many:
            numbers = _numbers(inches, layers) and most_experts(found) <= 16
            heat(axes, _rows(found, key), look, top=top, map_of=SHADES, power=0.5, numbers=numbers)
        else:
            points = (72 * inches / layers * 2 * BAR, 110)
            stacks(axes, _rows(found, key), look, name=f"{name}-{index}", points=points, half=BAR)
            for share in (0.25, 0.5, 0.75):
                axes.axhline(share, color=look.ink, linewidth=0.8, linestyle=(0, (4, 3)), zorder=3)
    if not keys:
        nothing(layer_axes(figure, grid[0, 0], ["0"], look, inches=inches), "no visual encoder", look)
    elif many:
        scale(figure.add_subplot(grid[0, across]), look, map_of=SHADES, labels=_ends(top))
    else:
        legend(panels[min(across, len(panels)) - 1], _swatches(found), look, title="expert")
    if apart and keys:
        axes = layer_axes(figure, grid[down, :across], layer_names(found), look, inches=width - SIDE)
        _draw_apart(found, axes, look)
    return figure


def _counted(found: Found, key: str) -> str:
    return f"{short(key, 40)}: {tokens_of(found, key):,} tokens"


def _draw_apart(found: Found, axes: Axes, look: Look) -> None:
    """How far each source's load is from the load of all tokens, which would be 0."""
    keys = [key for key in found["sources"] if tokens_of(found, key)]
    series = {key: [layer["apart"][key] for layer in found["layers"]] for key in keys}
    axes.set_title("distance of a source’s load from that of all tokens", loc="left", fontsize=10.5, color=look.ink)
    lines(axes, series, look)
    axes.set_ylim(0, max(0.05, 1.1 * max(max(values) for values in series.values())) if series else 1)
    legend(axes, line_legend(series, look), look, title="source")
