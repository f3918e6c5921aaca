"""What a recipe starts from: found in another run's folder, or told why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from polyvex.errors import RecipeError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe, parse_recipe, read_recipe
from polyvex.recipe.schema import StartTable
from polyvex.recipe.start import begins_sparse, open_start, settled, start_of

Make = Callable[..., Recipe]
Problems = Callable[..., list[str]]
MORE = {"name": "more", "trains": ["lm.moe"], "steps": 1}
EXPERTS = {"name": "experts", "trains": ["lm.moe"], "steps": 1, "upcycle": True}


@pytest.fixture
def other(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the folder of another run: its stages, those that are done, those that are sparse."""

    def make(*stages: str, done: int = 9, sparse: int = 9, finished: bool = False) -> Path:
        run = tmp_path / "other"
        run.mkdir(exist_ok=True)
        text = tomlkit.dumps({"name": "other", "stages": [{"name": name} for name in stages]})
        (run / "recipe.toml").write_text(text, encoding="utf-8")
        for index, name in enumerate(stages[:done]):
            folder = run / "stages" / f"{index}-{name}"
            write_model(folder / "model", {"moe": {}} if index < sparse else {"moe": {"num_experts": 4}})
            (folder / "done.json").write_text("{}", encoding="utf-8")
        if finished:
            (run / "finished.json").write_text("{}", encoding="utf-8")
        return run

    return make


def write_model(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")


def problem(run: Path, stage: str = "") -> str:
    with pytest.raises(RecipeError) as caught:
        open_start(StartTable(run=str(run), stage=stage))
    (told,) = caught.value.problems
    return told


def test_a_stage_is_found_by_its_name(other: Callable[..., Path]) -> None:
    run = other("align", "tune", "experts", sparse=2)
    align, experts = (open_start(StartTable(run=str(run), stage=name)) for name in ("align", "experts"))
    assert (align.model, align.sparse) == (run / "stages" / "0-align" / "model", False)
    assert (experts.model, experts.sparse) == (run / "stages" / "2-experts" / "model", True)
    assert str(experts) == f"{run}, after stage experts"


def test_without_a_name_it_is_the_last_one_that_is_finished(other: Callable[..., Path]) -> None:
    assert open_start(StartTable(run=str(other("align", "tune", "experts", done=2)))).stage == "tune"


def test_encoders_that_learned_are_what_a_stage_brings(other: Callable[..., Path]) -> None:
    run = other("tune")
    tables = [{"name": "a", "tune": "lora"}, {"name": "b", "tune": "frozen"}, {"name": "c", "tune": "trainable"}]
    write_model(run / "stages" / "0-tune" / "model", {"encoders": tables})
    assert open_start(StartTable(run=str(run))).brings == ["a", "c"]


def test_the_finished_run_stands_in_for_its_last_stage(other: Callable[..., Path]) -> None:
    run = other("align", "tune", finished=True)
    write_model(run, {})
    for index, name in enumerate(("align", "tune")):
        (run / "stages" / f"{index}-{name}" / "model" / "model.safetensors").unlink()
    assert open_start(StartTable(run=str(run))).model == run
    assert problem(run, "align").startswith(f"[start]: stage align of {run} has no model: expected config.json and ")
    (run / "finished.json").unlink()  # then what lies there may be half written
    assert problem(run, "tune").startswith(f"[start]: stage tune of {run} has no model")


def test_several_weight_files_have_an_index(other: Callable[..., Path]) -> None:
    model = other("tune") / "stages" / "0-tune" / "model"
    (model / "model.safetensors").rename(model / "model.safetensors.index.json")
    assert open_start(StartTable(run=str(model.parents[2]))).weights.name == "model.safetensors.index.json"


def test_no_such_folder(tmp_path: Path) -> None:
    assert problem(tmp_path / "no") == (
        f"[start]: {tmp_path / 'no'} does not exist, expected the folder of a run: polyvex train RECIPE --out FOLDER"
    )


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert problem(tmp_path).startswith(f"[start]: {tmp_path} is not a run (no recipe.toml there), expected the folder")
    (tmp_path / "cells").mkdir()
    assert problem(tmp_path) == (
        f"[start]: {tmp_path} is not a run (no recipe.toml there). It is an ablation; take one of its cells, "
        f"{tmp_path / 'cells'}/…"
    )


@pytest.mark.parametrize("text", ["x = ", 'name = "a"', "stages = 3", "stages = [1]"])
def test_a_recipe_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    assert problem(tmp_path).startswith(f"[start]: {tmp_path / 'recipe.toml'} is ")


def test_an_unknown_stage(other: Callable[..., Path]) -> None:
    run = other("align", "tune")
    assert problem(run, "tun") == f"[start]: {run}: unknown stage 'tun'. Did you mean 'tune'? Known: align, tune"


def test_an_unfinished_stage(other: Callable[..., Path]) -> None:
    run = other("align", "tune", done=1)
    assert problem(run, "tune") == (
        f"[start]: stage tune of {run} is not finished; align can be had. Finish it: polyvex train RECIPE --out {run}"
    )


def test_a_run_without_any_finished_stage(other: Callable[..., Path]) -> None:
    run = other("align", done=0)
    assert problem(run) == f"[start]: no stage of {run} is finished. Finish it: polyvex train RECIPE --out {run}"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_configuration_that_cannot_be_read(text: str, other: Callable[..., Path]) -> None:
    run = other("align")
    (run / "stages" / "0-align" / "model" / "config.json").write_text(text, encoding="utf-8")
    assert "config.json" in problem(run)


def test_what_is_wrong_with_it_is_told_with_all_else(problems_of: Problems, tmp_path: Path) -> None:
    told = problems_of("moe.router.k=9", "stages.0.warmup=4", start={"run": str(tmp_path / "no")})
    assert [one.partition(":")[0] for one in told] == ["[start]", "[moe.router]", "[[stages]] align"]


def test_the_table_is_strict(problems_of: Problems) -> None:
    assert problems_of("start.rum=x") == [
        "[start]: missing key 'run' (Folder of the other run)",
        "[start]: unknown key 'rum', did you mean 'run'? Known: run, stage",
    ]


def test_a_dense_start_is_upcycled_as_ever(other: Callable[..., Path], check: Make, problems_of: Problems) -> None:
    start = {"run": str(other("align", "tune"))}
    assert not begins_sparse(check(start=start))
    assert problems_of(start=start, stages=[MORE]) == [
        "[moe]: exactly one stage must have upcycle = true, got 0 (none has)",
        "[[stages]] more: trains lm.moe, but no expert exists yet; set upcycle = true here or before",
    ]


def test_a_sparse_start_is_not_upcycled_again(other: Callable[..., Path], check: Make, problems_of: Problems) -> None:
    run = other("tune", "experts", sparse=1)
    assert begins_sparse(check(start={"run": str(run)}, stages=[MORE]))
    assert problems_of(start={"run": str(run)}, stages=[MORE, EXPERTS]) == [
        f"[moe]: there are experts already ({run}, after stage experts), so no stage may have upcycle = true, got 1 "
        f"(experts)"
    ]
    assert not begins_sparse(check(start={"run": str(run), "stage": "tune"}, stages=[EXPERTS]))


def test_a_sparse_start_needs_its_table(other: Callable[..., Path], problems_of: Problems) -> None:
    run = other("experts", sparse=0)
    assert problems_of(start={"run": str(run)}, stages=[MORE], moe=None) == [
        f"[start]: there are experts ({run}, after stage experts), but no [moe] table is here. Copy that of {run}"
    ]


def begun(out: Path, recipe: Recipe, *, past: bool) -> Path:
    """The folder of a run of ``recipe``, in its first stage or past it."""
    stage = out / "stages" / "0-experts"
    stage.mkdir(parents=True)
    (out / "recipe.toml").write_text(tomlkit.dumps(recipe.dump()), encoding="utf-8")
    if past:
        (stage / "done.json").write_text("{}", encoding="utf-8")
    return out


def test_a_run_keeps_to_the_stage_that_it_began_with(other: Callable[..., Path], check: Make, tmp_path: Path) -> None:
    # Begun when tune was the last one; since then the other run has gone on, and has experts.
    run = other("align", "tune", "experts", done=2)
    recipe = check(start={"run": str(run)}, stages=[EXPERTS])
    assert recipe.start is not None
    assert settled(recipe).dump()["start"] == {"run": str(run), "stage": "tune"}
    out = begun(tmp_path / "out", settled(recipe), past=False)
    other("align", "tune", "experts", sparse=2)
    assert open_start(recipe.start).stage == "experts"
    found = start_of(recipe, out)
    assert found is not None
    assert found.stage == "tune"
    assert settled(recipe, out) == settled(recipe.model_copy(update={"start": StartTable(run=str(run), stage="tune")}))


def test_past_its_first_stage_nothing_of_the_other_run_is_needed(
    other: Callable[..., Path], check: Make, known: Registries, tmp_path: Path
) -> None:
    run = other("tune")
    recipe = settled(check(start={"run": str(run)}, stages=[EXPERTS]))
    inside = begun(tmp_path / "inside", recipe, past=False)
    past = begun(tmp_path / "past", recipe, past=True)
    shutil.rmtree(run)
    with pytest.raises(RecipeError, match="does not exist"):
        read_recipe(inside / "recipe.toml", registries=known, out=inside)
    again = read_recipe(past / "recipe.toml", registries=known, out=past)
    assert again.dump() == recipe.dump()
    assert start_of(again, past) is None
    open_ended = {**recipe.dump(), "start": {"run": str(run)}}
    assert settled(parse_recipe(open_ended, registries=known, out=past), past).dump() == recipe.dump()


def test_a_start_whose_run_is_gone_may_have_been_dense_or_sparse(
    check: Make, known: Registries, tmp_path: Path
) -> None:
    recipe = check(stages=[EXPERTS])
    past = begun(tmp_path / "past", recipe, past=True)
    for stages, problems in (([EXPERTS], 0), ([MORE], 0), ([EXPERTS, {**EXPERTS, "name": "b"}], 1)):
        data = {**recipe.dump(), "start": {"run": str(tmp_path / "gone")}, "stages": stages}
        if problems:
            with pytest.raises(RecipeError, match="exactly one stage must have upcycle = true, got 2"):
                parse_recipe(data, registries=known, out=past)
        else:
            parse_recipe(data, registries=known, out=past)


def test_the_path_is_made_absolute(
    other: Callable[..., Path], check: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other("align")
    monkeypatch.chdir(tmp_path)
    located = check(start={"run": "other"}).located()
    assert located.start == StartTable(run=str(tmp_path / "other"))
