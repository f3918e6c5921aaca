"""Write the report of a run or an ablation into its folder."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from polyvex.ablation.compare import Result
from polyvex.ablation.table import result_rows
from polyvex.errors import RunError
from polyvex.evaluation.intervals import figure
from polyvex.report.collect import EvaluationRecord, RunRecord, read_run
from polyvex.report.grid import AblationRecord, is_ablation, read_ablation, verdict, warnings_of
from polyvex.report.tables import columns, csv_text, markdown_text
from polyvex.storage import write_text


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written, and its figures.

    ``evaluations`` has one entry per evaluation of a run: name, accuracy, interval, questions, kinds, and whether
    images were shown. ``results`` are an ablation's. ``loud`` says what is missing or must not be overlooked.
    """

    paths: list[Path]
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    verdict: str = ""
    loud: list[str] = field(default_factory=list)

    @property
    def page(self) -> Path:
        """The HTML report."""
        return self.paths[0]

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "paths": [str(path) for path in self.paths]}

    def __str__(self) -> str:
        lines = [f"! {sentence}" for sentence in self.loud]
        for one in self.evaluations:
            blind = "" if one["images"] else " WITHOUT images"
            low, high = one["interval"]
            show = partial(figure, graded=one["graded"])
            among = "mean over" if one["graded"] else "of"
            lines.append(
                f"{one['metric']} {one['name']}{blind}: {show(one['accuracy'])} ({show(low)} to {show(high)}) {among} "
                f"{one['questions']} questions"
            )
            lines += [f"    {kind}: {show(mean)} {among} {count}" for kind, (mean, count) in one["by_kind"].items()]
        if self.results:
            lines += [*columns(result_rows([Result(**raw) for raw in self.results])), self.verdict]
        return "\n".join([*lines, *(f"wrote {path}" for path in self.paths[1:]), str(self.page)])


def write_report(folder: Path) -> Written:
    """Write ``report.html`` into a run or an ablation; for an ablation ``results.csv`` and ``results.md`` as well.

    The page needs no other file and no network. Of an unfinished run it shows what there is, and says what is missing.

    Raises:
        RunError: if ``folder`` is neither, or a file in it is damaged.
    """
    folder = Path(folder)
    run = read_run(folder) if (folder / "recipe.toml").exists() else None
    inside = folder / "ablation" if run else folder
    ablation = read_ablation(inside) if is_ablation(inside) else None
    if run is None and ablation is None:
        what = "is neither a run nor an ablation" if folder.exists() else "does not exist"
        raise RunError(
            f"{folder} {what}: expected a folder with recipe.toml (as polyvex train RECIPE --out writes it), or with "
            f"cells and ablation.json (polyvex ablate RECIPE --out)"
        )
    return _write(folder, run, ablation)


def _write(folder: Path, run: RunRecord | None, ablation: AblationRecord | None) -> Written:
    from polyvex.report.page import render  # brings matplotlib, which takes a second

    loud = loud_lines(run, ablation)
    paths = [folder / "report.html"]
    write_text(paths[0], render(run, ablation, loud=loud))
    if ablation is not None:
        paths += [folder / "results.csv", folder / "results.md"]
        write_text(paths[1], csv_text(ablation))
        write_text(paths[2], markdown_text(ablation, loud=loud_lines(None, ablation)))
    return Written(
        paths=paths,
        evaluations=[_figures(one) for one in run.evaluations] if run else [],
        results=[result.as_dict() for result in ablation.results] if ablation else [],
        verdict=verdict(ablation.results) if ablation else "",
        loud=loud,
    )


def loud_lines(run: RunRecord | None, ablation: AblationRecord | None) -> list[str]:
    """All that must not be overlooked: what is missing, left out, failed, or rests on one seed."""
    found = []
    if run is not None:
        found += [f"UNFINISHED: {sentence}" for sentence in run.missing]
        for one in run.evaluations:
            if one.skipped:
                found.append(f"LEFT OUT: {one.skipped} questions of {one.name}, whose images cannot be read")
            if one.cut:
                found.append(f"CUT: {one.cut} answers of {one.name} did not end within evaluation.max_new_tokens")
        if run.lock and (unreadable := run.lock.get("unreadable_images")):
            shown = ", ".join(unreadable[:3]) + (", …" if len(unreadable) > 3 else "")
            lost = run.lock.get("left_out", {}).get("train", 0)
            found.append(f"UNREADABLE: {len(unreadable)} images ({shown}); {lost} training samples are left out")
    if ablation is not None:
        found += [f"UNFINISHED: {sentence}" for sentence in ablation.missing] + warnings_of(ablation)
    return found


def _figures(one: EvaluationRecord) -> dict[str, Any]:
    kept = ("name", "metric", "graded", "accuracy", "interval", "questions", "skipped", "cut", "images", "by_kind")
    return {key: getattr(one, key) for key in kept}
