"""A disk that is full while a run is written: its own error, nothing half written, and the run goes on afterwards."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from polyvex.errors import StorageError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.training.stages import train


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def of_torch(*_: Any, **__: Any) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


def of_safetensors(*_: Any, **__: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("writer", "error"),
    [("torch.save", of_torch), ("transformers.modeling_utils.safe_save_file", of_safetensors)],
    ids=["optimizer", "weights"],
)
def test_a_full_disk_leaves_no_half_checkpoint_and_the_run_goes_on(
    writer: str,
    error: Callable[..., None],
    tiny_recipe: Callable[..., Recipe],
    tiny_tables: Callable[[], dict[str, Any]],
    registries: Registries,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny_recipe("evaluation.after=never", stages=tiny_tables()["stages"][:1], moe=None)

    def run(out: str) -> Path:
        options: dict[str, Any] = {"registries": registries, "say": lambda _: None, "progress": False, "export": False}
        return train(recipe, tmp_path / out, **options).path

    with monkeypatch.context() as patch:
        patch.setattr(writer, error)
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(StorageError) as caught:
            run("stopped")
    assert caught.value.code == "disk-full"
    assert not any("checkpoint-" in str(path) or path.suffix == ".part" for path in (tmp_path / "stopped").rglob("*"))
    weights = [run(out) / "stages" / "0-align" / "model" / "model.safetensors" for out in ("stopped", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_another_error_while_there_is_space_is_not_called_a_full_disk(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "save", of_torch)
    with pytest.raises(RuntimeError, match="unexpected pos"):
        train(tiny_recipe(), tmp_path / "run", registries=registries, say=lambda _: None, progress=False)


def test_every_file_of_a_run_has_ordinary_permissions(earlier_run: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    expected = (tmp_path / "plain").stat().st_mode
    modes = {path.relative_to(earlier_run): path.stat().st_mode for path in earlier_run.rglob("*") if path.is_file()}
    assert any(path.suffix == ".safetensors" for path in modes)
    assert [path for path, mode in modes.items() if mode != expected] == []
