"""Charts of runs and ablations as SVG that stands inside a page: small, with a title and a description."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from polyvex.ablation.axes import plain
from polyvex.ablation.compare import Result
from polyvex.evaluation.intervals import figure as shown
from polyvex.report.canvas import (
    COLORS,
    DARK,
    GROUND,
    INK,
    LINE,
    MARKERS,
    MUTED,
    bare,
    canvas,
    one_axes,
    short,
    svg_text,
)

WIDE, SMALL = 5.5, 3.9
"""Widths in inches of 72 units; the page shows one unit as about one pixel, so that text keeps its size."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure with its interval; ``blind`` was asked without images."""

    label: str
    value: float
    low: float
    high: float
    blind: bool = False
    graded: bool = False


def accuracy_chart(scores: Sequence[Score], *, key: str, metric: str = "accuracy") -> str:
    """Each figure on a line of its own, with its 95 % interval, from 0 to 100 %."""
    figure, axes = one_axes(width=WIDE, height=0.6 + 0.32 * len(scores))
    for row, score in enumerate(scores):
        face = "none" if score.blind else COLORS[0]
        axes.hlines(row, score.low, score.high, color=COLORS[0], linewidth=2, clip_on=False)
        look = {"color": COLORS[0], "markerfacecolor": face, "markersize": 7, "markeredgewidth": 1.6}
        axes.plot(score.value, row, "o", clip_on=False, zorder=3, **look)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.set_yticks(range(len(scores)), [short(score.label) for score in scores], parse_math=False)
    if not any(score.graded for score in scores):
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    told = "; ".join(f"{score.label}{' (no images)' if score.blind else ''} {_ends(score)}" for score in scores)
    return svg_text(figure, key=key, title=f"{metric} with 95 % intervals", about=told)


def _ends(score: Score) -> str:
    value, low, high = (shown(one, graded=score.graded) for one in (score.value, score.low, score.high))
    return f"{value}, {low} to {high}"


def loss_chart(label: str, metrics: Sequence[Mapping[str, float]], *, key: str, balanced: int) -> str:
    """Answer loss over steps; under it the load-balancing loss, where experts were trained.

    Args:
        balanced: the load-balancing loss of a perfect balance, which is the number of MoE layers, or 1 if they are
            pooled; 0 if not known.
    """
    names = [name for name in ("answer_loss", "load_balance") if any(name in line for line in metrics)]
    figure = canvas(width=SMALL, height=0.5 + 1.35 * len(names))
    told = []
    for row, name in enumerate(names):
        axes = bare(figure.add_subplot(len(names), 1, row + 1))
        steps = [line["step"] for line in metrics if name in line]
        values = [line[name] for line in metrics if name in line]
        axes.plot(steps, values, color=COLORS[row], linewidth=1.6, marker="o" if len(steps) < 3 else "", markersize=4)
        axes.set_title(name.replace("_", " "), loc="left", fontsize=11, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        if name == "load_balance" and balanced:
            axes.axhline(balanced, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.set_ylim(0.95 * balanced, max(1.25 * balanced, 1.05 * max(values)))
        if name == "answer_loss":
            axes.set_ylim(bottom=0)
        told.append(f"{name}: {values[0]:.3g} at step {steps[0]}, {values[-1]:.3g} at step {steps[-1]}")
    figure.axes[-1].set_xlabel("step")
    return svg_text(figure, key=key, title=f"Losses of stage {label}", about="; ".join(told))


def load_chart(layer: str, shares: Mapping[str, Sequence[float]], *, key: str) -> str:
    """For each source of tokens, how its assignments are shared out among a layer's experts, as one bar to 100 %."""
    figure, axes = one_axes(width=SMALL, height=0.5 + 0.34 * len(shares))
    for row, values in enumerate(shares.values()):
        left = 0.0
        for expert, share in enumerate(values):
            color = COLORS[expert % len(COLORS)]
            axes.barh(row, share, left=left, color=color, height=0.74)
            if share > 0.06:
                ink = "#ffffff" if color in DARK else "#000000"
                axes.text(left + share / 2, row, str(expert), color=ink, ha="center", va="center", fontsize=9)
            left += share
            axes.vlines(left, row - 0.37, row + 0.37, color=GROUND, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.set_yticks(range(len(shares)), [short(source) for source in shares], parse_math=False)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    told = "; ".join(
        f"{source}: " + ", ".join(f"expert {expert} {share:.0%}" for expert, share in enumerate(values))
        for source, values in shares.items()
    )
    return svg_text(figure, key=key, title=f"Expert load of {layer}", about=told)


def budget_chart(results: Sequence[Result], *, key: str) -> tuple[str, list[tuple[str, str]]]:
    """Accuracy against positions used, with intervals; small dots are single seeds.

    Returns:
        The chart, and its legend: label and colour of each series (cells that differ in nothing but positions).
    """
    figure, axes = one_axes(width=WIDE, height=3.2)
    series = _series(results)
    spread = _dodge([result.positions for result in results], len(series))
    looks = zip(series.items(), cycle(COLORS), cycle(MARKERS), strict=False)
    legend = []
    for index, ((name, members), color, marker) in enumerate(looks):
        for result in members:
            place = spread(result.positions, index)
            axes.vlines(place, *result.interval, color=color, linewidth=1.8, clip_on=False)
            axes.plot(place, result.accuracy, marker, color=color, markersize=8, clip_on=False)
            axes.plot([place] * len(result.by_seed), result.by_seed, ".", color=INK, markersize=3.5, clip_on=False)
        legend.append((name, color))
    ticks = sorted({result.positions for result in results})
    if _wide(ticks):
        axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    graded, metric = any(result.graded for result in results), " / ".join(dict.fromkeys(one.metric for one in results))
    if not graded:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    axes.set_ylabel(f"mean {short(metric)}" if graded else short(metric), parse_math=False)
    axes.set_xlabel("positions used by one image")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    told = "; ".join(
        f"{result.label}: {result.positions} positions, {shown(result.accuracy, graded=graded)}, "
        f"{shown(result.interval[0], graded=graded)} to {shown(result.interval[1], graded=graded)}"
        for result in results
    )
    return svg_text(figure, key=key, title=f"{metric} against positions used", about=told), legend


def _series(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Cells by all their values but the position scheme; one series if there would be more than colours."""
    found: dict[str, list[Result]] = {}
    for result in results:
        rest = {name: value for name, value in result.values.items() if name != "positions"}
        name = ", ".join(f"{key} {plain(value)}" for key, value in rest.items())
        found.setdefault(name, []).append(result)
    return found if len(found) <= len(COLORS) else {"": list(results)}


def _wide(ticks: Sequence[int]) -> bool:
    return ticks[0] > 0 and ticks[-1] / ticks[0] >= 8


def _dodge(positions: Sequence[int], count: int) -> Callable[[int, int], float]:
    """Where a series' point goes: beside the others of the same number of positions, so that intervals are seen."""
    ticks = sorted(set(positions))
    room = max(ticks[-1] - ticks[0], 1)

    def place(value: int, index: int) -> float:
        step = index - (count - 1) / 2
        return value * (ticks[-1] / ticks[0]) ** (0.025 * step) if _wide(ticks) else value + 0.025 * room * step

    return place
