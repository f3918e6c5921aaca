"""Stored weights and files of a run that changed are noticed before they are used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyvex.answer import load
from polyvex.errors import RunError
from polyvex.hooks.manager import Registries
from polyvex.rundir import RunDirectory
from polyvex.training.trainer import StageTrainer

from .runs import Run, Stage, Whole, same, weights


def flip(path: Path) -> None:
    """Change the lowest bit of the last byte: of a weight, it is its last or first digit."""
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(bytes(content))


def refused(action: Callable[[], object], name: str) -> str:
    with pytest.raises(RunError) as caught:
        action()
    assert caught.value.code == "changed-files"
    assert f"\n  - {name} " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_stage_whose_model_changed_is_not_continued_from(
    name: str, run: Run, earlier_run: Path, registries: Registries, tmp_path: Path
) -> None:
    shutil.copytree(earlier_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "stages" / "2-experts")
    flip(tmp_path / "run" / "stages" / "1-tune" / "model" / name)
    told = refused(lambda: run("evaluation.after=never"), name)
    assert str(tmp_path / "run" / "stages" / "1-tune") in told
    # The advice works.
    shutil.rmtree(tmp_path / "run" / "stages" / "1-tune")
    again = run("evaluation.after=never")
    assert same(weights(RunDirectory(earlier_run), "2-experts"), weights(again, "2-experts"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json"])
def test_a_finished_model_that_changed_is_not_loaded(
    name: str, whole_run: Whole, registries: Registries, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole_run[0].path, tmp_path / "run")
    flip(folder / name)
    refused(lambda: load(folder, registries=registries), name)


def test_a_finished_model_can_be_written_again(
    run: Run, whole_run: Whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registries: Registries
) -> None:
    folder = Path(shutil.copytree(whole_run[0].path, tmp_path / "run"))
    flip(folder / "model.safetensors")
    told = refused(lambda: run(export=True), "model.safetensors")
    assert f"delete {folder / 'finished.json'}" in told
    (folder / "finished.json").unlink()
    monkeypatch.setattr(StageTrainer, "compute_loss", lambda *args, **kwargs: pytest.fail("trained again"))
    run(export=True)
    assert (folder / "model.safetensors").read_bytes() == (whole_run[0].path / "model.safetensors").read_bytes()
    load(folder, registries=registries)


def test_a_tokenizer_that_changed_is_not_continued_with(run: Run, one_stage: Stage) -> None:
    first = run(**one_stage())
    flip(first.path / "tokenizer.json")
    refused(lambda: run(export=True, **one_stage()), "tokenizer.json")


def test_a_stage_of_another_run_that_changed_is_no_start(
    run: Run, earlier_run: Path, tmp_path: Path, said: list[str]
) -> None:
    source = Path(shutil.copytree(earlier_run, tmp_path / "source"))
    flip(source / "stages" / "1-tune" / "model" / "model.safetensors")
    start = {"run": str(source), "stage": "tune"}
    stages = [{"name": "more", "trains": ["connector"], "steps": 1, "batch_size": 2}]
    refused(lambda: run(start=start, stages=stages, moe=None), "model.safetensors")
    assert not any("encoded" in line for line in said)  # before any work


def test_a_stage_before_a_stored_one_is_not_trained_anew(run: Run, earlier_run: Path, tmp_path: Path) -> None:
    shutil.copytree(earlier_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "stages" / "0-align")
    with pytest.raises(RunError) as caught:
        run("evaluation.after=never")
    assert caught.value.code == "stages-out-of-order"


@pytest.mark.parametrize("name", ["stages/0-tune/done.json", "lock.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stage": '])
def test_a_damaged_record_is_named(name: str, content: str, run: Run, one_stage: Stage) -> None:
    first = run(**one_stage())
    (first.path / name).write_text(content)
    with pytest.raises(RunError, match=name) as caught:
        run(**one_stage())
    assert caught.value.code == "damaged-record"


def test_another_number_of_processes_is_refused_while_stages_are_left(
    run: Run, earlier_run: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(earlier_run, tmp_path / "run")) / "lock.json"
    lock: dict[str, Any] = json.loads(path.read_text())
    assert lock["replicas"] == 1
    path.write_text(json.dumps({**lock, "replicas": 2}))
    run("evaluation.after=never")  # no stage is left, so nothing depends on it
    shutil.rmtree(tmp_path / "run" / "stages" / "2-experts")
    with pytest.raises(RunError) as caught:
        run("evaluation.after=never")
    assert caught.value.code == "processes-changed"
