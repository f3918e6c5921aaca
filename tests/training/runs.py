"""What tests of whole runs share: reading a run, and stopping it where it matters."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from polyvex.rundir import RunDirectory
from polyvex.training.trainer import StageTrainer, read_metrics

Run = Callable[..., RunDirectory]
Stage = Callable[..., dict[str, Any]]
Whole = tuple[RunDirectory, Any]
STAGES = ("0-align", "1-tune", "2-experts")


class Killed(BaseException):
    """As if the process were gone: nothing in the code under test catches it."""


def stage(run: RunDirectory, name: str) -> Path:
    return run.path / "stages" / name


def record(run: RunDirectory, name: str) -> dict[str, Any]:
    return json.loads((stage(run, name) / "done.json").read_text())


def weights(run: RunDirectory, name: str) -> dict[str, Tensor]:
    return load_file(stage(run, name) / "model" / "model.safetensors")


def curve(run: RunDirectory, name: str) -> list[dict[str, float]]:
    return read_metrics(stage(run, name) / "metrics.jsonl")


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def interrupt(patch: pytest.MonkeyPatch, name: str, step: int, action: Callable[[], None]) -> None:
    """Do something in a stage before the pass that comes after ``step`` optimizer steps."""
    plain = StageTrainer.compute_loss

    def spy(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.stage.name == name and self.state.global_step == step:
            action()
        return plain(self, *args, **kwargs)

    patch.setattr(StageTrainer, "compute_loss", spy)


def kill() -> None:
    raise Killed
