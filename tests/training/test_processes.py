"""Two real processes that train together over gloo log and learn what one process does with both their batches."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomlkit
from safetensors.torch import load_file

from polyvex.errors import RunError
from polyvex.rundir import RunDirectory
from polyvex.training import together
from polyvex.training.trainer import read_metrics

from .runs import Run, Stage

SCRIPT = """
import sys
from polyvex.recipe import read_recipe
from polyvex.training.stages import train
recipe = read_recipe(sys.argv[1], overrides=sys.argv[3:])
train(recipe, sys.argv[2], say=lambda line: None, progress=False, export=recipe.evaluation.after != "never")
"""


@pytest.fixture
def recipe_file(tiny_tables: Callable[[], dict[str, Any]], tmp_path: Path) -> Path:
    stages = [{"name": "tune", "trains": ["connector", "lm"], "steps": 3, "batch_size": 2, "schedule": "constant"}]
    tables = {**tiny_tables(), "stages": stages, "evaluation": {"after": "never"}}
    tables.pop("moe")
    (tmp_path / "recipe.toml").write_text(tomlkit.dumps(tables), encoding="utf-8")
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    return tmp_path / "recipe.toml"


def launch(processes: int, recipe: Path, out: str, *changes: str) -> Path:
    done = start(processes, recipe, out, *changes)
    assert done.returncode == 0, done.stderr[-3000:]
    return recipe.parent / out / "stages" / "0-tune"


def start(
    processes: int, recipe: Path, out: str, *changes: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    folder = recipe.parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLYVEX_CACHE": str(folder / "cache"), **variables}
    return subprocess.run(
        [*command, str(folder / "train.py"), str(recipe), str(folder / out), *changes],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_two_processes_log_and_learn_what_one_does_with_their_batches(recipe_file: Path) -> None:
    one = launch(1, recipe_file, "one", "stages.tune.batch_size=4")
    two = launch(2, recipe_file, "two")
    alone, together = (read_metrics(folder / "metrics.jsonl") for folder in (one, two))
    assert [line["step"] for line in together] == [1, 2, 3]
    for line, other in zip(alone, together, strict=True):
        for name in ("loss", "answer_loss", "grad_norm"):
            assert line[name] == pytest.approx(other[name], rel=1e-3), name
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    gaps = [(weights[name] - others[name]).abs().max().item() for name in weights]
    assert max(gaps) < 1e-4


def test_text_alone_keeps_processes_in_step(recipe_file: Path, tiny_data: Path) -> None:
    # Half of the samples have no image, so that in some steps one process sees none while the other does.
    folder = recipe_file.parent / "mixed"
    shutil.copytree(tiny_data, folder)
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines):
        if number % 2:
            line.pop("image")
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    changes = (
        f"data.folder={folder}",
        "lm.partial_lora={rank=2, dropout=0.0, per_encoder=true}",
        "lm.lora={rank=2}",
        "stages.tune.trains=['connector', 'lm.partial_lora', 'lm.lora']",
        "stages.tune.steps=4",
    )
    one = launch(1, recipe_file, "one", "stages.tune.batch_size=2", *changes)
    two = launch(2, recipe_file, "two", "stages.tune.batch_size=1", *changes)
    for line, other in zip(*(read_metrics(one_of / "metrics.jsonl") for one_of in (one, two)), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    assert max((weights[name] - others[name]).abs().max().item() for name in weights) < 1e-4
    assert any(weights[name].any() for name in weights if "plora_B" in name)


def test_two_processes_store_one_run_whole(recipe_file: Path) -> None:
    # With an evaluation and a finished model, which the first process writes for both.
    folder = launch(2, recipe_file, "two", "evaluation.after=each_stage").parents[1]
    answers = (folder / "evaluation" / "0-tune.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answers) == json.loads((folder / "evaluation" / "0-tune.json").read_text())["questions"] == 12
    assert json.loads((folder / "lock.json").read_text())["replicas"] == 2
    RunDirectory(folder).check_finished()
    names = {path.name for path in folder.rglob("*")}
    assert not [name for name in names if name.endswith((".part", ".store", ".part.jsonl"))]


def test_processes_that_would_train_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29501"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # What Accelerate finds where it has no way to connect the processes.
    monkeypatch.setattr(together, "TrainingArguments", lambda **options: SimpleNamespace(world_size=1, n_gpu=0))
    with pytest.raises(RunError) as caught:
        together.join()
    assert caught.value.code == "processes-apart"


def test_a_stray_rank_does_not_skip_the_hold(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with RunDirectory(tmp_path / "run").alone(), pytest.raises(RunError, match="another process is training in"):
        run(**one_stage())


def test_a_rank_that_is_no_number_is_refused_before_anything_is_written(
    run: Run, one_stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "abc")
    with pytest.raises(RunError) as caught:
        run(**one_stage())
    assert caught.value.code == "process-environment"
    assert not (tmp_path / "run").exists()
