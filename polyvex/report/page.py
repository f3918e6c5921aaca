"""Fill the page: from records to the words, tables and charts that the template lays out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from polyvex.errors import PolyvexError
from polyvex.report.charts import Score, accuracy_chart, load_chart, loss_chart
from polyvex.report.collect import EvaluationRecord, RunRecord, StageRecord, percent
from polyvex.report.examples import choose
from polyvex.report.grid import AblationRecord
from polyvex.report.page_grid import grid_view
from polyvex.report.page_routing import routing_view

PROOF = {
    ("trained", False): ("trained, hash changed", True),
    ("trained", True): ("was to train, hash THE SAME", False),
    ("frozen", True): ("frozen, hash the same", True),
    ("frozen", False): ("frozen, hash CHANGED", False),
}
"""What it means that the weights of a kind have the same hash before and after: words, and whether it is right."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text. The first column is read from the left; the others are numbers, unless ``words`` is true."""

    heads: list[str]
    rows: list[list[str]]
    words: bool = False


def render(run: RunRecord | None, ablation: AblationRecord | None, *, loud: Sequence[str]) -> str:
    """The whole page. Text of people (questions, answers, names, errors) is escaped; only charts are trusted."""
    source = files("polyvex.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    grid = grid_view(ablation) if ablation is not None else None
    name = run.name if run is not None else (grid or {})["name"]
    return environment.from_string(source).render(
        name=name,
        kind="run" if run is not None else "ablation",
        loud=list(loud),
        run=run_view(run) if run is not None else None,
        grid=grid,
        version=version("polyvex"),
    )


def run_view(run: RunRecord) -> dict[str, Any]:
    """What the template says of a run."""
    budget, note = _budget(run)
    shown = next((one for one in reversed(run.evaluations) if one.answers), None)
    return {
        "what": _what(run.recipe),
        "facts": _facts(run),
        "accuracy": _accuracy(run.evaluations),
        "kinds": _kinds(run.evaluations),
        "graded": [one.name for one in run.evaluations if one.graded],
        "blind": [one.name for one in run.evaluations if not one.images],
        "shown": shown,
        "examples": choose(shown.answers, graded=shown.graded) if shown else [],
        "losses": _losses(run),
        "loads": _loads(run.stages),
        "routing": routing_view(run.routing, run.folder / "routing") if run.routing is not None else None,
        "weights": _weights(run.evaluations),
        "budget": budget,
        "budget_note": note,
        "stages": _stages(run.stages),
        "hashes": _hashes(run.stages),
        "lock": _lock(run.lock),
        "recipe": run.recipe_text,
    }


def _what(recipe: dict[str, Any]) -> str:
    """The recipe in one line, the way that an image goes."""
    encoders = " + ".join(str(table.get("name") or table["use"]) for table in recipe["encoders"])
    steps = [encoders, *(str(recipe[part]["use"]) for part in ("fusion", "positions", "lm"))]
    experts = recipe.get("moe")
    tail = f" with {experts['num_experts']} experts ({experts['router']['use']} router)" if experts else ""
    start = recipe.get("start")
    begin = f", starts from {start['run']}, after stage {start['stage']}" if start else ""
    return f"{' → '.join(steps)}{tail}, on {recipe['data']['use']}{begin}"


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    last = next((stage.evaluation for stage in reversed(run.stages) if stage.evaluation), None)
    facts = [(f"{last.metric} after {last.name}", last.show(last.accuracy))] if last else []
    facts += [("questions", f"{last.questions:,}")] if last else []
    facts.append(("seed", str(run.recipe["seed"])))
    if run.lock:
        facts += [("samples", f"{run.lock['samples']:,}"), ("images", f"{run.lock['images']:,}")]
        facts.append(("unreadable images", str(len(run.lock["unreadable_images"]))))
    facts.append(("questions left out", str(sum(one.skipped for one in run.evaluations))))
    done = [stage.done["seconds"] for stage in run.stages if stage.done]
    return [*facts, ("training", f"{sum(done):,.0f} s")]


def _accuracy(evaluations: Sequence[EvaluationRecord]) -> Markup | None:
    scores = [
        Score(
            label=one.label if one.images else f"{one.label} (blind)",
            value=one.accuracy,
            low=one.interval[0],
            high=one.interval[1],
            blind=not one.images,
            graded=one.graded,
        )
        for one in evaluations
        if one.accuracy is not None
    ]
    return (
        Markup(
            accuracy_chart(scores, key="accuracy", metric=" / ".join(dict.fromkeys(one.metric for one in evaluations)))
        )
        if scores
        else None
    )


def _kinds(evaluations: Sequence[EvaluationRecord]) -> Table:
    """Accuracy per kind (rows) and evaluation (columns)."""
    kinds = sorted({kind for one in evaluations for kind in one.by_kind})
    heads = ["kind", *(one.label if one.images else f"{one.label} (blind)" for one in evaluations)]
    rows = [[kind, *(_of_kind(one, kind) for one in evaluations)] for kind in kinds]
    rows.append(["all", *(f"{one.show(one.accuracy)} of {one.questions}" for one in evaluations)])
    rows.append(
        ["95 % interval", *(f"{one.show(one.interval[0])} – {one.show(one.interval[1])}" for one in evaluations)]
    )
    rows.append(["left out, unreadable", *(str(one.skipped) for one in evaluations)])
    rows.append(["cut at the longest length", *(str(one.cut) for one in evaluations)])
    return Table(heads=heads, rows=rows)


def _of_kind(one: EvaluationRecord, kind: str) -> str:
    return f"{one.show(one.by_kind[kind][0])} of {one.by_kind[kind][1]}" if kind in one.by_kind else "–"


def _losses(run: RunRecord) -> list[tuple[str, Markup]]:
    loads = [stage.evaluation.expert_load for stage in run.stages if stage.evaluation]
    balanced = max((len(load) for load in loads), default=0)
    if run.recipe.get("loss", {}).get("balance_layers") == "pooled":
        balanced = min(balanced, 1)
    drawn = [stage for stage in run.stages if any("answer_loss" in line for line in stage.metrics)]
    return [
        (stage.label, Markup(loss_chart(stage.label, stage.metrics, key=f"loss{index}", balanced=balanced)))
        for index, stage in enumerate(drawn)
    ]


def _loads(stages: Sequence[StageRecord]) -> dict[str, Any] | None:
    """Charts of the last evaluated stage that has experts."""
    evaluation = next(
        (one.evaluation for one in reversed(stages) if one.evaluation and one.evaluation.expert_load), None
    )
    if evaluation is None:
        return None
    charts = []
    for index, (layer, shares) in enumerate(evaluation.expert_load.items()):
        number = re.search(r"layers\.(\d+)", layer)
        label = f"layer {number[1]}" if number else layer
        charts.append((label, Markup(load_chart(label, shares, key=f"load{index}"))))
    return {"name": evaluation.name, "charts": charts}


def _weights(evaluations: Sequence[EvaluationRecord]) -> dict[str, Any] | None:
    """What encoders weigh by the last evaluation that tells it: kinds of questions (rows) and encoders (columns)."""
    last = next((one for one in reversed(evaluations) if one.encoder_weights), None)
    if last is None:
        return None
    kinds = last.encoder_weights
    rows = [[kind, *(_weighed(one) for one in encoders.values())] for kind, encoders in kinds.items()]
    return {"name": last.name, "table": Table(heads=["kind", *next(iter(kinds.values()))], rows=rows)}


def _weighed(one: dict[str, float]) -> str:
    return percent(one["weight"]) + ("" if one["used"] == 1 else f" (used at {percent(one['used'])})")


def _budget(run: RunRecord) -> tuple[Table | None, str]:
    """Tokens and positions of each encoder; a note instead if the recipe's plugins are not here."""
    from polyvex.hooks.manager import load_registries
    from polyvex.plan.tokens import budgets
    from polyvex.recipe import parse_recipe

    try:
        registries = load_registries()
        found = budgets(parse_recipe(run.recipe, registries=registries, out=run.folder), registries, dim=1)
    except (PolyvexError, ValueError) as error:
        return None, f"Tokens and positions cannot be counted here: {error}"
    heads = ["encoder", "image", "tokens", "after fusion", "grid", "positions", "width", "licence"]
    rows = [
        [
            one.name,
            one.image,
            str(one.tokens_in),
            "merged" if one.tokens_out is None else str(one.tokens_out),
            one.grid,
            "merged" if one.positions is None else str(one.positions),
            str(one.dim),
            one.license,
        ]
        for one in found.encoders
    ]
    total = [str(sum(one.tokens_in for one in found.encoders)), str(found.tokens)]
    rows.append(["all", "", *total, "", str(found.positions), "", ""])
    return Table(heads=heads, rows=rows), ""


def _stages(stages: Sequence[StageRecord]) -> list[dict[str, Any]]:
    """For each stage what it trained, and what its hashes prove."""
    return [
        {
            "label": stage.label,
            "table": stage.table,
            "rate": _rate(stage.table.get("lr")),
            "done": stage.done,
            "last_step": stage.last_step,
            "proof": _proof(stage.done) if stage.done else [],
        }
        for stage in stages
    ]


def _rate(rate: Any) -> str:
    return ", ".join(f"{part} {value:g}" for part, value in rate.items()) if isinstance(rate, dict) else f"{rate:g}"


def _proof(done: dict[str, Any]) -> list[tuple[str, bool]]:
    """What the hashes say in a few lines, each with whether that is as it should be."""
    said: dict[tuple[str, bool], list[str]] = {}
    for part, kinds in done["hashes_before"].items():
        for kind, before in kinds.items():
            same = done["hashes_after"].get(part, {}).get(kind) == before
            words = PROOF[kind, same]
            said.setdefault(words, []).append(part)
    return [(f"{words}: {', '.join(parts)}", good) for (words, good), parts in sorted(said.items(), reverse=True)]


def _hashes(stages: Sequence[StageRecord]) -> Table:
    rows = [
        [stage.label, part, kind, before[:16], stage.done["hashes_after"].get(part, {}).get(kind, "–")[:16]]
        for stage in stages
        if stage.done
        for part, kinds in stage.done["hashes_before"].items()
        for kind, before in kinds.items()
    ]
    return Table(heads=["stage", "part", "kind", "before", "after"], rows=rows, words=True)


def _lock(lock: dict[str, Any] | None) -> Table:
    """The lock as rows; tables inside it one level down."""
    rows = []
    for key, value in (lock or {}).items():
        if isinstance(value, dict):
            rows += [
                [f"{key}: {name}", str(inner) if inner is not None else "none needed"] for name, inner in value.items()
            ]
        else:
            told = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            rows.append([key.replace("_", " "), told])
    return Table(heads=["what", "value"], rows=rows, words=True)
