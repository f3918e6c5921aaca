"""The directory of a run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from polyvex.errors import RunError
from polyvex.recipe import Recipe
from polyvex.rundir import RunDirectory, StageDirectory, open_run


def test_a_new_directory_gets_the_resolved_recipe(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "run")
    assert run.check(tiny_recipe()) is False
    assert not run.path.exists()  # a start that fails leaves nothing
    run.begin(tiny_recipe())
    assert 'schedule = "cosine"' in run.recipe.read_text()


def test_an_empty_directory_may_be_used(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    assert RunDirectory(tmp_path).check(tiny_recipe()) is False


def test_the_same_recipe_finds_its_run(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    RunDirectory(tmp_path).begin(tiny_recipe())
    assert RunDirectory(tmp_path).check(tiny_recipe()) is True


@pytest.mark.parametrize("change", ["seed=1", "stages.align.lr=0.5", "moe.router.k=1", "encoders.patchify.dim=4"])
def test_any_other_value_is_another_recipe(change: str, tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    RunDirectory(tmp_path).begin(tiny_recipe())
    with pytest.raises(RunError, match="is the run of another recipe"):
        RunDirectory(tmp_path).check(tiny_recipe(change))


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        open_run(tmp_path)
    assert str(caught.value) == (
        f"no run at {tmp_path} (no recipe.toml there). Make one: polyvex train RECIPE --out {tmp_path}"
    )


def test_a_stage_is_done_when_it_says_so(tmp_path: Path) -> None:
    stage = StageDirectory(tmp_path / "0-align")
    assert stage.done() is None
    record = {"steps": 3, "seconds": 1.0, "trained_parameters": 2, "hashes_before": {}, "hashes_after": {}}
    stage.finish(record)
    assert stage.done() == record


def test_places(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    run, stage = RunDirectory(tmp_path), tiny_recipe().stages[1]
    assert run.stage(1, stage).metrics == tmp_path / "stages" / "1-tune" / "metrics.jsonl"
    assert run.evaluation("1-tune") == tmp_path / "evaluation" / "1-tune.json"


@pytest.mark.parametrize("change", ["name=other", "ablation.seeds=3"])
def test_what_does_not_touch_a_run_may_change(change: str, tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    RunDirectory(tmp_path).begin(tiny_recipe())
    assert RunDirectory(tmp_path).check(tiny_recipe(change)) is True


def test_a_file_is_no_run(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file, expected a folder"):
        RunDirectory(tmp_path / "file").check(tiny_recipe())


def test_one_process_at_a_time(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run, again = RunDirectory(tmp_path), RunDirectory(tmp_path)
    with run.alone(), pytest.raises(RunError, match="another process is training in"), again.alone():
        pytest.fail("two hold it")
    with again.alone():
        assert again.check(tiny_recipe()) is False  # the file of the hold is no reason to refuse


@pytest.mark.parametrize(
    ("name", "free"), [(".busy", True), ("recipe.toml.7.part", True), (".git", False), ("x", False)]
)
def test_only_what_a_killed_start_leaves_is_no_content(
    name: str, free: bool, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    if free:
        assert RunDirectory(tmp_path).check(tiny_recipe()) is False
        return
    with pytest.raises(RunError, match="is not empty and not a run"):
        RunDirectory(tmp_path).check(tiny_recipe())
