"""Atomic writes, permissions and full disks."""

import errno
import os
from pathlib import Path

import pytest

from polyvex.errors import StorageError, UnsafeNameError
from polyvex.storage import LONGEST_NAME, PART, below, replace_folder, share, space_for, write_bytes, write_text


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


@pytest.mark.parametrize(
    "name", ["test", "0-align", "Größe 2", "fusion=mlp, order=a+b", "x" * LONGEST_NAME, "..a", "nulls"]
)
def test_an_ordinary_name_stays_below_its_folder(tmp_path: Path, name: str) -> None:
    assert below(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../x", "a/../../x", "a/b", "a\\b", "/etc/passwd", "C:\\x", "C:", "a\0b", "a\nb", "a\x9bb",
        "\ud800", "x" * (LONGEST_NAME + 1), "ü" * LONGEST_NAME, "nul", "COM1.json", "x.part", "x.", "x ",
    ],
)  # fmt: skip
def test_a_name_that_leaves_its_folder_or_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeNameError) as caught:
        below(tmp_path, name)
    assert caught.value.code == "unsafe-name"
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_a_nested_path_may_have_parts_but_no_way_out(tmp_path: Path) -> None:
    assert below(tmp_path, "images/1.png", nested=True) == tmp_path / "images/1.png"
    for path in ("../1.png", "images/../../1.png", "/1.png", "images/\0.png", "images/" + "x" * 300):
        with pytest.raises(UnsafeNameError):
            below(tmp_path, path, nested=True)


def test_a_link_that_leads_out_of_the_folder_is_refused_unless_links_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    with pytest.raises(UnsafeNameError):
        below(tmp_path / "run", "out/secret", nested=True)
    assert below(tmp_path / "run", "out/secret", nested=True, links=True) == tmp_path / "run/out/secret"
    (tmp_path / "alias").symlink_to(tmp_path / "run")  # the folder itself may be a link
    assert below(tmp_path / "alias", "x") == tmp_path / "alias/x"
