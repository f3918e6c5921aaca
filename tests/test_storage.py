"""Atomic writes, permissions and full disks."""

import errno
import os
from pathlib import Path

import pytest

from polyvex.errors import StorageError
from polyvex.storage import PART, replace_folder, share, space_for, write_bytes, write_text


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    write_text(path, "old")
    write_text(path, "ü")
    assert path.read_bytes() == b"\xc3\xbc"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    write_text(path, "old")

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(Killed):
        write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_its_own_code(tmp_path: Path, number: int) -> None:
    with pytest.raises(StorageError) as caught, space_for(tmp_path / "missing" / "file"):
        raise OSError(number, "no space")
    assert caught.value.code == "disk-full"
    assert caught.value.exit_code == 1


def test_other_faults_of_the_disk_are_passed_on(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), space_for(tmp_path):
        raise PermissionError(errno.EACCES, "denied")


def test_a_replaced_folder_has_exactly_what_was_filled_in(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    replace_folder(folder, lambda part: (part / "a").write_text("1"))
    replace_folder(folder, lambda part: (part / "b").write_text("2"))
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert not list(tmp_path.glob(f"*{PART}"))


def test_a_folder_whose_filling_fails_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    replace_folder(folder, lambda part: (part / "a").write_text("1"))

    def fail(part: Path) -> None:
        (part / "b").write_text("2")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        replace_folder(folder, fail)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "a"]


def test_files_get_the_permissions_that_the_umask_gives(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "weights"
    path.parent.mkdir()
    path.write_text("")
    path.chmod(0o600)
    before = os.umask(0o022)
    try:
        share(tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
