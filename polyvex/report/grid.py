"""Read an ablation from its folder, and say what its figures show."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from polyvex.ablation.compare import RESAMPLES, Result
from polyvex.records.ablation import AblationIndex, CellResult
from polyvex.records.files import read_record, read_toml
from polyvex.storage import below

HOW = (
    f"Intervals are 95 % percentile intervals of a bootstrap over questions ({RESAMPLES:,} resamples). A difference is "
    "paired: the same question is compared in both cells, for each seed that both have, and averaged over the seeds "
    "before the questions are resampled. So the intervals cover which questions were asked; they do not cover which "
    "seeds were trained, and they count each question as independent, also where several ask about one image."
)
RESULT = {field.name for field in fields(Result)}
ONE_SEED = "one seed: differences between cells also contain the luck of one training"


@dataclass(frozen=True, kw_only=True)
class AblationRecord:
    """All of an ablation that a report tells.

    ``results`` are in the order of the plan, ``failed`` maps a cell and seed to its error, ``tracebacks`` likewise.
    ``finished`` lists ``result.json`` of every finished cell; ``strangers`` counts cells of an earlier plan.
    """

    folder: Path
    base_text: str
    axes: dict[str, Any]
    cells: list[dict[str, Any]]
    results: list[Result]
    failed: dict[str, str]
    tracebacks: dict[str, str]
    finished: list[dict[str, Any]]
    strangers: int
    missing: list[str] = field(default_factory=list)


def is_ablation(folder: Path) -> bool:
    """Whether ``folder`` was written by ``polyvex ablate``, finished or not."""
    return (folder / "ablation.json").exists() or (folder / "cells").is_dir()


def read_ablation(folder: Path) -> AblationRecord:
    """Read what there is of an ablation.

    Raises:
        RunError: if a file of it is damaged; the file is named.
    """
    path, base = folder / "ablation.json", folder / "base.toml"
    index = read_record(path, AblationIndex) if path.exists() else None
    cells = [cell.model_dump() for cell in index.cells] if index else []
    planned = {cell["id"] for cell in cells}
    results = sorted((folder / "cells").glob("*/result.json"))
    finished = [read_record(found, CellResult).model_dump() for found in results]
    begun = [found for found in (folder / "cells").glob("*") if found.is_dir()] if not index else []
    if base.exists():
        read_toml(base)
    return AblationRecord(
        folder=folder,
        base_text=base.read_text(encoding="utf-8") if base.exists() else "",
        axes=index.axes if index else {},
        cells=cells,
        results=[Result(**one.model_dump(include=RESULT)) for one in index.results] if index else [],
        failed=index.failed if index else {},
        tracebacks=_tracebacks(folder, cells),
        finished=finished,
        strangers=sum(record["id"] not in planned for record in finished) if index else 0,
        missing=[] if index else _unfinished(folder, len(begun), len(finished)),
    )


def _tracebacks(folder: Path, cells: Sequence[dict[str, Any]]) -> dict[str, str]:
    paths = {
        f"{cell['label']}, seed {cell['seed']}": below(folder / "cells", cell["id"]) / "failed.txt" for cell in cells
    }
    return {
        label: path.read_text("utf-8", errors="replace")
        for label, path in paths.items()
        if path.is_file() and not path.with_name("result.json").exists()  # else another process has finished the cell
    }


def _unfinished(folder: Path, begun: int, finished: int) -> list[str]:
    return [
        f"ablation.json: the grid has not run to its end ({begun} cells begun, {finished} of them finished), so "
        f"nothing is compared yet",
        f"go on with the same command: polyvex ablate RECIPE --out {folder}",
    ]


def warnings_of(record: AblationRecord) -> list[str]:
    """What a reader must not overlook: failed cells, one seed, a first cell that is not the plan's."""
    found = [f"FAILED: {label}: {reason}" for label, reason in record.failed.items()]
    planned = [cell["label"] for cell in record.cells]
    if record.results and planned and record.results[0].label != planned[0]:
        found.append(
            f"the first cell of the plan ({planned[0]}) has no result, so differences are to {record.results[0].label}"
        )
    if record.results and any(len(result.seeds) == 1 for result in record.results):
        found.append(ONE_SEED)
    if len({tuple(result.seeds) for result in record.results}) > 1:
        found.append("cells have different seeds; each difference uses only the seeds that both cells have")
    if record.strangers:
        found.append(f"{record.strangers} finished cells in this folder belong to another plan and are left out")
    return found


def verdict(results: Sequence[Result]) -> str:
    """In plain words, whether any cell was shown to differ from the first."""
    compared = [result for result in results if result.difference_interval is not None]
    if not compared and len(results) > 1:
        return "Nothing to compare: the first combination of the plan has no result on the same questions and seeds."
    if not compared:
        return "Nothing to compare: fewer than two combinations have a result."
    shown = [result for result in compared if not _includes_zero(result)]
    first = results[0].label
    if not shown:
        return (
            f"No difference was shown: every interval of a difference to the first cell ({first}) includes 0. That is "
            f"not proof that there is none; it may be smaller than {results[0].questions} questions can tell."
        )
    chance = " Where there is no difference, about 1 comparison in 20 does so by chance alone."
    return (
        f"{len(shown)} of {len(compared)} cells {'differs' if len(shown) == 1 else 'differ'} from the first ({first}) "
        f"by an interval without 0: {_directions(shown, of=len(compared))}."
        f"{chance if len(compared) > 1 else ''}"
    )


def _directions(shown: Sequence[Result], *, of: int) -> str:
    """Which cells are higher and which lower; only how many where all of ``of`` compared ones go one way."""
    groups = {"higher": [], "lower": []}
    for result in shown:
        groups["higher" if (result.difference or 0) > 0 else "lower"].append(result.label)
    found = {way: labels for way, labels in groups.items() if labels}
    if len(found) == 1 and len(shown) == of > 1:
        return f"all of them {next(iter(found))}"
    return ", ".join(f"{'; '.join(labels)} {way}" for way, labels in found.items())


def _includes_zero(result: Result) -> bool:
    low, high = result.difference_interval or (0.0, 0.0)
    return low <= 0.0 <= high
