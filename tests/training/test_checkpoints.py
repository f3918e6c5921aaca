"""Which checkpoint a stage continues from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from polyvex.training.checkpoints import COMPLETE, keep_newest, newest_whole, seal, steps_of

DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "lost": lambda path: path.unlink(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (2, 9, 10):  # as text, 9 would be the newest
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
        (checkpoint / "window.json").write_text("{}")
        (checkpoint / "optimizer.pt").write_bytes(b"optimizer")
        seal(checkpoint)
    (tmp_path / "checkpoint-x").mkdir()
    return tmp_path


def newest(folder: Path, said: list[str], *, remove: bool = True) -> int | None:
    found = newest_whole(folder, remove=remove, say=said.append)
    return None if found is None else steps_of(found)


def test_the_newest_counts(folder: Path) -> None:
    said: list[str] = []
    assert newest(folder, said) == 10
    assert said == []


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt", COMPLETE])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_one_is_removed_and_the_one_before_is_used(name: str, how: str, folder: Path) -> None:
    said: list[str] = []
    DAMAGES[how](folder / "checkpoint-10" / name)
    assert newest(folder, said) == 9
    assert not (folder / "checkpoint-10").exists()
    assert len(said) == (0 if (name, how) == (COMPLETE, "lost") else 1)  # without a manifest, it never counted


def test_only_the_first_process_removes(folder: Path) -> None:
    (folder / "checkpoint-10" / COMPLETE).unlink()
    assert newest(folder, [], remove=False) == 9
    assert (folder / "checkpoint-10").exists()


def test_none_is_left(folder: Path) -> None:
    for step in (2, 9, 10):
        (folder / f"checkpoint-{step}" / "optimizer.pt").unlink()
    assert newest(folder, []) is None
    shutil.rmtree(folder)
    assert newest(folder, []) is None


def test_old_ones_are_deleted(folder: Path) -> None:
    keep_newest(folder, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-10", "checkpoint-9", "checkpoint-x"]


@pytest.mark.parametrize("files", [{}, {"optimizer.pt": {"bytes": 9, "sha256": "0" * 64}}])
def test_a_record_that_lists_too_little_does_not_count(files: dict[str, object], folder: Path) -> None:
    (folder / "checkpoint-10" / COMPLETE).write_text(json.dumps({"version": 1, "files": files}))
    assert newest(folder, []) == 9
