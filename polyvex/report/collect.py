"""Read a run from its folder, as plain values: no plugin, no weights and no network are needed."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polyvex.errors import RunError
from polyvex.evaluation.evaluate import Answered
from polyvex.report.files import read_json
from polyvex.report.routing_record import read_routing

RECIPE = ("name", "seed", "encoders", "fusion", "positions", "lm", "data", "stages")
DONE = ("seconds", "trained_parameters", "hashes_before", "hashes_after")
LOCK = ("samples", "images", "unreadable_images")
"""Keys without which a file of a run says too little for a report."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation with its answers. ``accuracy`` is None without answers; ``images`` false was asked blind."""

    name: str
    metric: str
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
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    recipe = _resolved(folder / "recipe.toml", text)
    stages = [_stage(folder, index, table) for index, table in enumerate(recipe["stages"])]
    lock = read_json(folder / "lock.json", needs=LOCK) if (folder / "lock.json").exists() else None
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


def _resolved(path: Path, text: str) -> dict[str, Any]:
    """A recipe in which every default is written out, as training stores it."""
    try:
        recipe = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is not valid TOML: {error}") from None
    if lost := [key for key in RECIPE if key not in recipe]:
        raise RunError(f"{path} is not the resolved recipe of a run: it lacks {', '.join(lost)}")
    return recipe


def _stage(folder: Path, index: int, table: dict[str, Any]) -> StageRecord:
    label = f"{index}-{table['name']}"
    here, summary = folder / "stages" / label, folder / "evaluation" / f"{label}.json"
    return StageRecord(
        label=label,
        table=table,
        metrics=read_lines(here / "metrics.jsonl"),
        done=read_json(here / "done.json", needs=DONE) if (here / "done.json").exists() else None,
        evaluation=_evaluation(summary) if summary.exists() else None,
    )


def _evaluation(path: Path) -> EvaluationRecord:
    raw = read_json(path)
    try:
        return EvaluationRecord(
            name=raw["name"],
            metric=raw["metric"],
            accuracy=raw["accuracy"],
            interval=tuple(raw["interval_95"]),
            questions=raw["questions"],
            skipped=raw["skipped"],
            cut=raw.get("cut", 0),
            images=raw["images"],
            by_kind={kind: (one["accuracy"], one["questions"]) for kind, one in raw["by_kind"].items()},
            expert_load=raw.get("expert_load", {}),
            encoder_weights=raw.get("encoder_weights", {}),
            answers=[_answered(line) for line in read_lines(path.with_suffix(".jsonl"))],
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is not an evaluation that polyvex wrote: {error!r}") from None


def _answered(line: Mapping[str, Any]) -> Answered:
    return Answered(**{**line, **{name: tuple(line.get(name, ())) for name in ("images", "answers")}})


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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a ``.jsonl`` file; none without a file. A last line that was cut while it was written is dropped.

    Raises:
        RunError: if another line is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # splitlines() also cuts at U+2028
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise RunError(f"cannot read {path}, line {number}: {error}") from None
    return found


def percent(share: float | None) -> str:
    """``79.7%``; a dash for None, which is the accuracy of no answers."""
    return "–" if share is None else f"{share:.1%}"
