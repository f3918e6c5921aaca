"""Read a run from its folder, as plain values: no plugin, no weights and no network are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from polyvex.evaluation.evaluate import Answered
from polyvex.evaluation.intervals import figure, is_graded
from polyvex.records.evaluation import EvaluationSummary
from polyvex.records.files import Record, damaged, describe, read_lines, read_record, read_toml
from polyvex.records.run import DoneRecord, LockRecord, MetricsLine
from polyvex.report.routing_record import read_routing
from polyvex.storage import below

RECIPE = ("name", "seed", "encoders", "fusion", "positions", "lm", "data", "stages")
"""Keys without which a recipe is not that of a run."""


class Component(BaseModel):
    """A table that names a component."""

    model_config = ConfigDict(extra="allow", strict=True)

    use: str


class ResolvedStage(BaseModel):
    """``[[stages]]``, as far as a report reads it."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str
    trains: list[str]
    steps: int
    batch_size: int
    lr: float | dict[str, float]


class ResolvedExperts(BaseModel):
    """``[moe]``, as far as a report reads it."""

    model_config = ConfigDict(extra="allow", strict=True)

    num_experts: int | list[int] | dict[str, int]
    router: Component


class ResolvedStart(BaseModel):
    """``[start]``, as a run stores it."""

    model_config = ConfigDict(extra="allow", strict=True)

    run: str
    stage: str


class ResolvedRecipe(BaseModel):
    """``recipe.toml`` of a run, as far as a report reads it; its plugins need not be installed."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str
    seed: int
    encoders: list[Component]
    fusion: Component
    positions: Component
    lm: Component
    data: Component
    stages: list[ResolvedStage]
    moe: ResolvedExperts | None = None
    start: ResolvedStart | None = None
    evaluation: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation with its answers. ``accuracy`` is None without answers; ``images`` false was asked blind."""

    name: str
    metric: str
    graded: bool
    accuracy: float | None
    interval: tuple[float, float]
    questions: int
    skipped: int
    cut: int
    images: bool
    by_kind: dict[str, tuple[float, int]]
    expert_load: dict[str, dict[str, list[float]]]
    encoder_weights: dict[str, dict[str, dict[str, float]]]
    answers: list[Answered]

    @property
    def label(self) -> str:
        """Its name and its metric."""
        return f"{self.name}, {self.metric}"

    def show(self, mean: float | None) -> str:
        """A mean score of it as text."""
        return figure(mean, graded=self.graded)


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One stage: its table of the recipe, what it logged, ``done.json`` (None while unfinished), its evaluation."""

    label: str
    table: dict[str, Any]
    metrics: list[dict[str, float]]
    done: dict[str, Any] | None
    evaluation: EvaluationRecord | None

    @property
    def images(self) -> bool:
        """Whether the stage trains with images."""
        return bool(self.table.get("images", True))

    @property
    def last_step(self) -> int:
        """The last logged step; 0 before the first."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All of a run that a report tells. ``others`` are evaluations outside the stages, ``missing`` what it lacks.

    ``routing`` is what ``polyvex routing`` found, None if it was never asked.
    """

    folder: Path
    name: str
    recipe: dict[str, Any]
    recipe_text: str
    lock: dict[str, Any] | None
    stages: list[StageRecord]
    others: list[EvaluationRecord]
    missing: list[str] = field(default_factory=list)
    routing: dict[str, Any] | None = None

    @property
    def evaluations(self) -> list[EvaluationRecord]:
        """Those after stages, in order, then the others."""
        return [stage.evaluation for stage in self.stages if stage.evaluation] + self.others


def read_run(folder: Path) -> RunRecord:
    """Read what there is of a run, finished or not.

    Raises:
        RunError: if a file of it is damaged; the file is named.
    """
    recipe = _resolved(folder / "recipe.toml")
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    stages = [_stage(folder, index, table) for index, table in enumerate(recipe["stages"])]
    lock = _as_plain(folder / "lock.json", LockRecord) if (folder / "lock.json").exists() else None
    known = {stage.label for stage in stages}
    others = [path for path in sorted((folder / "evaluation").glob("*.json")) if path.stem not in known]
    return RunRecord(
        folder=folder,
        name=str(recipe["name"]),
        recipe=recipe,
        recipe_text=text,
        lock=lock,
        stages=stages,
        others=[_evaluation(path) for path in others],
        missing=_missing(folder, recipe, stages, lock),
        routing=read_routing(routing) if (routing := folder / "routing" / "routing.json").exists() else None,
    )


def _resolved(path: Path) -> dict[str, Any]:
    """A recipe in which every default is written out, as training stores it."""
    recipe = read_toml(path)
    if lost := [key for key in RECIPE if key not in recipe]:
        raise damaged(path, [f"not the resolved recipe of a run: it lacks {', '.join(lost)}"])
    try:
        ResolvedRecipe.model_validate(recipe)
    except ValidationError as error:
        raise damaged(path, describe(error)) from None
    return recipe


def _stage(folder: Path, index: int, table: dict[str, Any]) -> StageRecord:
    label = f"{index}-{table['name']}"
    here, summary = below(folder / "stages", label), below(folder / "evaluation", f"{label}.json")
    return StageRecord(
        label=label,
        table=table,
        metrics=[line.model_dump(exclude={"version"}) for line in read_lines(here / "metrics.jsonl", MetricsLine)],
        done=_as_plain(here / "done.json", DoneRecord) if (here / "done.json").exists() else None,
        evaluation=_evaluation(summary) if summary.exists() else None,
    )


def _evaluation(path: Path) -> EvaluationRecord:
    raw = read_record(path, EvaluationSummary)
    answers: list[Answered] = read_lines(path.with_suffix(".jsonl"), Answered, sha256=raw.answers_sha256)
    return EvaluationRecord(
        name=raw.name,
        metric=raw.metric,
        graded=raw.graded or is_graded([answer.score for answer in answers]),
        accuracy=raw.accuracy,
        interval=raw.interval_95,
        questions=raw.questions,
        skipped=raw.skipped,
        cut=raw.cut,
        images=raw.images,
        by_kind={kind: (one.accuracy, one.questions) for kind, one in raw.by_kind.items()},
        expert_load=raw.expert_load,
        encoder_weights=raw.model_dump()["encoder_weights"],
        answers=answers,
    )


def _as_plain(path: Path, model: type[Record]) -> dict[str, Any]:
    """A record as plain data, as it is written."""
    return read_record(path, model).model_dump(exclude={"version"})


def _missing(
    folder: Path, recipe: Mapping[str, Any], stages: Sequence[StageRecord], lock: Mapping[str, Any] | None
) -> list[str]:
    """Sentences about what an unfinished run lacks; empty for a finished one."""
    found = [] if lock else ["lock.json: versions, hashes and seeds are not known"]
    when = recipe.get("evaluation", {}).get("after", "each_stage")
    for stage in stages:
        wanted = stage.table.get("steps", 0)
        if stage.done is None:
            begun = f"stopped after step {stage.last_step} of {wanted}" if stage.metrics else "has not begun"
            found.append(f"stage {stage.label}: {begun}")
        elif stage.evaluation is None and (when == "each_stage" or (when == "last_stage" and stage is stages[-1])):
            found.append(f"stage {stage.label}: trained, but not evaluated")
    if any(stage.done is None for stage in stages):
        found.append(f"go on with: polyvex train RECIPE --out {folder}")
    elif not (folder / "config.json").exists() and not (folder / "result.json").exists():
        found.append("the finished model: all stages are done, but it is not stored yet")
    return found


def percent(share: float | None) -> str:
    """``79.7%``; a dash for None, which is the accuracy of no answers."""
    return "–" if share is None else f"{share:.1%}"
