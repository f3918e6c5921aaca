"""Two real processes that train together over gloo log and learn what one process does with both their batches."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from safetensors.torch import load_file

from polyvex.training.trainer import read_metrics

SCRIPT = """
import sys
from polyvex.recipe import read_recipe
from polyvex.training.stages import train
recipe = read_recipe(sys.argv[1], overrides=sys.argv[3:])
train(recipe, sys.argv[2], say=lambda line: None, progress=False, export=False)
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
    folder = recipe.parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {
        **os.environ,
        **{"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "POLYVEX_CACHE": str(folder / "cache")},
    }
    done = subprocess.run(
        [*command, str(folder / "train.py"), str(recipe), str(folder / out), *changes],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / out / "stages" / "0-tune"


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
