"""How sure routers are of their choices, over layers and by source; and the experts that no token went to."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from polyvex.report.canvas import COLORS, Look, Picture, canvas
from polyvex.report.marks import BAR, boxes, layer_axes, legend, line_legend, lines, nothing, width_of

PANELS = {
    "entropy": "entropy of a token’s probabilities, as a share of the largest",
    "confidence": "probability of a token’s first choice",
}


def certainty_picture(found: Mapping[str, Any]) -> Picture:
    """Entropy and confidence over layers by source, and how many experts of each layer are dead."""
    keys = _keys(found)
    told = [
        f"layer {layer['layer']}: "
        + ", ".join(
            f"{key} entropy {layer['entropy'][key]:.2f} confidence {layer['confidence'][key]:.2f}" for key in keys
        )
        + (f", dead experts {', '.join(map(str, layer['dead']))}" if layer["dead"] else "")
        for layer in found["layers"]
    ]
    title = "Certainty: how sure the routers are, and dead experts"
    return Picture(name="certainty", title=title, about="; ".join(told), draw=partial(_draw, found))


def _keys(found: Mapping[str, Any]) -> list[str]:
    """Each source that has tokens, and all."""
    return [*(source for source in found["sources"] if found["tokens"][source]), "all"]


def _draw(found: Mapping[str, Any], look: Look) -> Figure:
    layers = found["layers"]
    names, width = [str(layer["layer"]) for layer in layers], width_of(len(layers))
    figure = canvas(width=width, height=5.6, look=look)
    grid = figure.add_gridspec(3, 1, height_ratios=[2, 2, 0.9])
    for row, (measure, title) in enumerate(PANELS.items()):
        axes = layer_axes(figure, grid[row], names, look, title=title, inches=width - 2)
        series = {key: [layer[measure][key] for layer in layers] for key in _keys(found)}
        lines(axes, series, look)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if row == 0:
            legend(axes, line_legend(series, look), look, title="tokens of")
    axes = layer_axes(figure, grid[2], names, look, title="dead experts: no token went to them", inches=width - 2)
    _draw_dead(axes, [layer["dead"] for layer in layers], look)
    return figure


def _draw_dead(axes: Axes, dead: list[list[int]], look: Look) -> None:
    """A bar per layer with their number, or with the experts themselves if they are one or two."""
    if not any(dead):
        nothing(axes, "none", look)
        return
    most, few = max(map(len, dead)), len(dead) <= 16
    boxes(axes, [(at - BAR, at + BAR, 0, len(one)) for at, one in enumerate(dead)], name="dead", color=COLORS[5])
    axes.set_ylim(0, 1.5 * most)
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    for at, one in enumerate(dead):
        words = f"expert {one[0]}" if few and len(one) == 1 else str(len(one)) if one else ""
        axes.text(at, len(one), words, ha="center", va="bottom", fontsize=8 if few else 6.5, color=look.ink)
