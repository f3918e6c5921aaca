"""The words, table and chart of an ablation, for the template."""

import tomllib
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from polyvex.ablation.axes import plain
from polyvex.ablation.compare import Result
from polyvex.evaluation.intervals import figure
from polyvex.report.charts import Score, accuracy_chart, budget_chart
from polyvex.report.grid import HOW, AblationRecord, verdict
from polyvex.report.tables import axis_names

COUNTS = {"tokens": "visual_tokens", "positions used": "positions", "questions": "questions"}
"""A count's name on the page, and the field that has it."""

HALF = 50.0
"""Half the width of a strip, which shows an interval around zero."""


def grid_view(record: AblationRecord) -> dict[str, Any]:
    """What the template says of an ablation."""
    chart, legend = _chart(record.results)
    base = tomllib.loads(record.base_text)
    return {
        "name": str(base.get("name", record.folder.name)),
        "axes": [
            (name, values if isinstance(values, str) else ", ".join(map(plain, values)))
            for name, values in record.axes.items()
        ],
        "cells": len(record.cells),
        "metric": _metric(record),
        "graded": any(one.graded for one in record.results),
        "heads": axis_names(record.results),
        "rows": _rows(record.results),
        "first": record.results[0].label if record.results else "",
        "same": _same(record.results),
        "varies": _varying(record.results),
        "chart": chart,
        "legend": legend,
        "verdict": verdict(record.results),
        "how": HOW,
        "failed": [(label, reason, record.tracebacks.get(label, "")) for label, reason in record.failed.items()],
        "finished": _finished(record),
        "base": record.base_text,
    }


def _compared(results: Sequence[Result]) -> bool:
    return any(one.difference is not None for one in results)


def _varying(results: Sequence[Result]) -> list[str]:
    """Which counts differ between cells and need a column; the others are told once."""
    return [word for word, field in COUNTS.items() if len({getattr(one, field) for one in results}) > 1]


def _same(results: Sequence[Result]) -> str:
    """What all cells have in common, in one sentence; empty if nothing."""
    if not results:
        return ""
    shared = [f"{getattr(results[0], field)} {word}" for word, field in COUNTS.items() if word not in _varying(results)]
    if _one_seed(results):
        shared.append(f"seed {results[0].seeds[0]}")
    return f"All cells: {', '.join(shared)}." if shared else ""


def _one_seed(results: Sequence[Result]) -> bool:
    return {tuple(one.seeds) for one in results} == {tuple(results[0].seeds)} and len(results[0].seeds) == 1


def _rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    reach = max((abs(end) for one in results for end in one.difference_interval or ()), default=0.0) or 1.0
    return [
        {
            "values": [plain(value) for value in one.values.values()],
            "counts": [getattr(one, COUNTS[word]) for word in _varying(results)],
            "accuracy": figure(one.accuracy, graded=one.graded),
            "interval": " – ".join(figure(end, graded=one.graded) for end in one.interval),
            "difference": _signed(one.difference, graded=one.graded),
            "difference_interval": " to ".join(
                _signed(end, graded=one.graded) for end in one.difference_interval or ()
            ),
            "strip": _strip(one, reach),
            "reference": "first" if one is results[0] and _compared(results) else "not compared",
            "seeds": []
            if _one_seed(results)
            else [(seed, figure(share, graded=one.graded)) for seed, share in zip(one.seeds, one.by_seed, strict=True)],
        }
        for one in results
    ]


def _metric(record: AblationRecord) -> str:
    """The metric of the cells; both where a cell of an earlier plan has another one."""
    names = [one.metric for one in record.results] or [str(one["metric"]) for one in record.finished]
    return " / ".join(dict.fromkeys(names))


def _signed(gap: float | None, *, graded: bool) -> str:
    if gap is None:
        return ""
    return (f"{gap:+.3f}" if graded else f"{gap:+.1%}").replace("-", "\N{MINUS SIGN}")


def _strip(one: Result, reach: float) -> dict[str, float] | None:
    """Where the ends and the middle of a difference's interval lie on a strip; None for the first cell."""
    if one.difference is None or one.difference_interval is None:
        return None
    low, high = one.difference_interval
    return {
        name: round(HALF + 0.94 * HALF * value / reach, 1)
        for name, value in (("low", low), ("high", high), ("at", one.difference))
    }


def _chart(results: Sequence[Result]) -> tuple[Markup | None, list[tuple[str, str]]]:
    """Accuracy against positions used; where all use the same number, each cell on a line of its own."""
    if not results:
        return None, []
    if len({one.positions for one in results}) > 1:
        svg, legend = budget_chart(results, key="grid")
        return Markup(svg), legend if len(legend) > 1 else []
    scores = [
        Score(
            label=" ".join(map(plain, one.values.values())),
            value=one.accuracy,
            low=one.interval[0],
            high=one.interval[1],
            graded=one.graded,
        )
        for one in results
    ]
    return Markup(
        accuracy_chart(scores, key="grid", metric=" / ".join(dict.fromkeys(one.metric for one in results)))
    ), []


def _finished(record: AblationRecord) -> list[tuple[str, str, str]]:
    """Of a grid that has not run to its end: cell, seed and accuracy of those that are finished."""
    if record.cells:
        return []
    return [
        (str(one["label"]), str(one["seed"]), figure(one["accuracy"], graded=one["graded"])) for one in record.finished
    ]
