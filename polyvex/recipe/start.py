"""What a recipe starts from: a finished stage of another run, found in that run's folder. No weight is read here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyvex.errors import RecipeError, RunError
from polyvex.hooks.registry import unknown
from polyvex.manifest import Manifest, read_manifest
from polyvex.recipe.schema import Recipe, StartTable
from polyvex.records.files import read_toml
from polyvex.storage import below, check_readable

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Names that the weights of a stage may have."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A finished stage of another run.

    ``model`` is the folder of its weights, ``recipe`` the resolved recipe of that run as plain data, and ``config``
    what the model's ``config.json`` holds. ``files`` are the checksums of the model, None in a run of an earlier
    version of polyvex.
    """

    run: Path
    stage: str
    model: Path
    recipe: dict[str, Any]
    config: dict[str, Any]
    files: Manifest | None = None

    def faults(self) -> list[str]:
        """One sentence for each file of the model that is not as it was stored; reads all of them."""
        return [] if self.files is None else self.files.faults(self.model)

    @property
    def sparse(self) -> bool:
        """Whether the language model was upcycled in that stage, or before."""
        return bool(self.config.get("moe"))

    @property
    def weights(self) -> Path:
        """The file of the weights, or the index of several."""
        return next(self.model / name for name in WEIGHTS if (self.model / name).is_file())

    @property
    def brings(self) -> list[str]:
        """Names of the encoders that learned there, so that their weights are the stage's own."""
        return [table["name"] for table in self.config.get("encoders") or [] if table.get("tune") != "frozen"]

    def __str__(self) -> str:
        return f"{self.run}, after stage {self.stage}"


def start_of(recipe: Recipe, out: Path | None = None) -> Start | None:
    """What the run of ``recipe`` begins with; None without ``[start]``, and where nothing of it is needed any more.

    Args:
        out: the folder of the run. Past its first stage the other run may be gone. One that was begun keeps to its
            stage, whatever the other run has finished since. In the folder of an ablation, its cells decide.

    Raises:
        RecipeError: if there is no such run, or no such finished stage.
    """
    if recipe.start is None or (out is not None and _past_first_stage(out)):
        return None
    return open_start(_pinned(recipe.start, out))


def find_start(recipe: Recipe, out: Path | None = None) -> tuple[Start | None, list[str]]:
    """As :func:`start_of`, but what is wrong comes back as sentences."""
    try:
        return start_of(recipe, out), []
    except RecipeError as error:
        return None, error.problems


def settled(recipe: Recipe, out: Path | None = None) -> Recipe:
    """The recipe with the name of the stage that it starts from, where it leaves that open; see :func:`start_of`.

    Raises:
        RecipeError: if there is no such run, or no finished stage.
    """
    if recipe.start is None or recipe.start.stage:
        return recipe
    table = _pinned(recipe.start, out)
    if not table.stage and (start := start_of(recipe, out)) is not None:
        table = table.model_copy(update={"stage": start.stage})
    return recipe.model_copy(update={"start": table})


def upcycling_problems(recipe: Recipe, start: Start | None) -> list[str]:
    """Whether the language model is upcycled once: by one stage, or by the run that this one starts from."""
    upcycling = [stage.name for stage in recipe.stages if stage.upcycle]
    told = f"{len(upcycling)} ({', '.join(upcycling) or 'none has'})"
    if start is not None and start.sparse:
        if recipe.moe is None:
            return [f"[start]: there are experts ({start}), but no [moe] table is here. Copy that of {start.run}"]
        already = f"[moe]: there are experts already ({start}), so no stage may have upcycle = true, got {told}"
        return [already] if upcycling else []
    if recipe.moe is None:
        return [f"[[stages]] {name}: upcycle is true, but there is no [moe] table" for name in upcycling]
    cannot_know = start is None and recipe.start is not None
    if len(upcycling) == 1 or (cannot_know and not upcycling):
        return []
    return [f"[moe]: exactly one stage must have upcycle = true, got {told}"]


def begins_sparse(recipe: Recipe) -> bool:
    """Whether a recipe that was checked begins with an upcycled language model: then none of its stages upcycles."""
    return recipe.start is not None and recipe.moe is not None and not any(stage.upcycle for stage in recipe.stages)


def open_start(table: StartTable) -> Start:
    """Find the stage that ``[start]`` names.

    Raises:
        RecipeError: if the folder is no run, or the stage is unknown, unfinished, or without its model.
    """
    run = Path(table.run)
    check_readable(run)
    recipe = _recipe(run)
    names = [stage["name"] for stage in recipe["stages"]]
    done = [name for index, name in enumerate(names) if (_folder(run, index, name) / "done.json").exists()]
    if table.stage and table.stage not in names:
        raise _problem(f"{run}: {unknown('stage', table.stage, names)}")
    if not done:
        raise _problem(f"no stage of {run} is finished. {_finish(run)}")
    name = table.stage or done[-1]
    if name not in done:
        raise _problem(f"stage {name} of {run} is not finished; {', '.join(done)} can be had. {_finish(run)}")
    model = _model(run, names.index(name), name, last=name == names[-1])
    files = _files(run if model == run else _folder(run, names.index(name), name))
    return Start(run=run, stage=name, model=model, recipe=recipe, config=_json(model / "config.json"), files=files)


def _files(folder: Path) -> Manifest | None:
    """Checksums of a stage's model, or of a finished run's."""
    stored = folder / "done.json"
    path = stored if stored.exists() else folder / "finished.json"
    record = _json(path)
    kept = record.get("files") if path == stored else record
    try:
        return read_manifest(kept, path) if kept else None
    except RunError as error:
        raise _problem(str(error)) from None


def _recipe(run: Path) -> dict[str, Any]:
    path = run / "recipe.toml"
    if not path.is_file():
        what = "is not a run (no recipe.toml there)" if run.exists() else "does not exist"
        more = f". It is an ablation; take one of its cells, {run / 'cells'}/…" if (run / "cells").is_dir() else ""
        raise _problem(f"{run} {what}{more or ', expected the folder of a run: polyvex train RECIPE --out FOLDER'}")
    try:
        recipe = read_toml(path)
    except RunError as error:
        raise _problem(str(error)) from None
    stages = recipe.get("stages")
    if not (isinstance(stages, list) and stages and all(isinstance(stage, dict) for stage in stages)):
        raise _problem(f"{path} is not the recipe of a run: it lacks [[stages]]")
    if not all(isinstance(stage.get("name"), str) for stage in stages):
        raise _problem(f"{path} is not the recipe of a run: a stage lacks its name")
    return recipe


def _model(run: Path, index: int, name: str, *, last: bool) -> Path:
    """The folder of a stage's model; that of the finished run if the last stage's own was taken away."""
    own = _folder(run, index, name) / "model"
    places = [own, *([run] if last and (run / "finished.json").exists() else [])]
    for place in places:
        if (place / "config.json").is_file() and any((place / file).is_file() for file in WEIGHTS):
            return place
    raise _problem(f"stage {name} of {run} has no model: expected config.json and {WEIGHTS[0]} in {own}")


def _folder(run: Path, index: int, name: str) -> Path:
    return below(run / "stages", f"{index}-{name}")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _problem(f"cannot read {path}: {error}") from None
    if not isinstance(value, dict):
        raise _problem(f"{path} holds {type(value).__name__}, expected an object")
    return value


def _past_first_stage(out: Path) -> bool:
    return any(any(out.glob(f"{inside}stages/0-*/done.json")) for inside in ("", "cells/*/"))


def _pinned(table: StartTable, out: Path | None) -> StartTable:
    """The table with the stage that the run in ``out`` began with, if that is there and the table leaves it open."""
    path = out / "recipe.toml" if out is not None else None
    if table.stage or path is None or not path.is_file():
        return table
    try:
        stored = read_toml(path).get("start", {})
    except RunError:
        return table  # what is wrong with that folder is told when it is to be trained in
    stage = stored.get("stage", "") if isinstance(stored, dict) else ""
    return table.model_copy(update={"stage": stage if isinstance(stage, str) else ""})


def _finish(run: Path) -> str:
    return f"Finish it: polyvex train RECIPE --out {run}"


def _problem(sentence: str) -> RecipeError:
    return RecipeError([f"[start]: {sentence}"])
