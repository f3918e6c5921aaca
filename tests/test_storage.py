"""Atomic writes, permissions and full disks."""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polyvex.cache.store import TokenStore, read_shard
from polyvex.cache.upkeep import verify
from polyvex.encoders.files import read_weights
from polyvex.errors import CacheError, StorageError, UnsafeNameError
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.rundir import open_run
from polyvex.storage import (
    LONGEST_NAME,
    PART,
    below,
    check_readable,
    remove_stale_parts,
    replace_file,
    replace_folder,
    share,
    space_for,
    write_bytes,
    write_text,
)


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


def test_a_failed_library_write_is_a_full_disk_if_the_disk_cannot_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch says "unexpected pos" then, safetensors raises an error of its own; neither has an errno.
    asked: list[int] = []

    def allocate(_: int, __: int, size: int) -> None:
        asked.append(size)
        if size > 5 << 20:
            raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    with pytest.raises(StorageError) as caught, space_for(tmp_path / "new" / "file", needed=6 << 20):
        raise RuntimeError("unexpected pos 576 vs 534")
    assert caught.value.code == "disk-full"
    with pytest.raises(RuntimeError, match="unexpected pos"), space_for(tmp_path, needed=0):
        raise RuntimeError("unexpected pos 576 vs 534")
    assert asked == [6 << 20, 1 << 20]
    assert list(tmp_path.iterdir()) == []


def test_without_a_size_only_the_error_itself_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyvex.storage.has_room", lambda *_: False)
    with pytest.raises(ValueError, match="unrelated"), space_for(tmp_path):
        raise ValueError("unrelated")
    with pytest.raises(CacheError), space_for(tmp_path, needed=1):
        raise CacheError("explained already")


def test_a_full_disk_behind_another_error_is_found(tmp_path: Path) -> None:
    def save() -> None:
        try:
            Path("/dev/full").write_text("x")  # the kernel's own error
        except OSError as error:
            raise RuntimeError("cannot save") from error

    with pytest.raises(StorageError) as caught, space_for(tmp_path):
        save()
    assert caught.value.code == "disk-full"


def test_sqlite_reports_a_full_disk_by_its_code(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.sqlite")
    connection.execute("pragma max_page_count = 2")
    connection.execute("create table t (a)")
    with pytest.raises(StorageError) as caught, space_for(tmp_path):
        connection.execute("insert into t values (?)", ("x" * 100_000,))
    assert caught.value.code == "disk-full"


def test_a_replaced_file_has_ordinary_permissions_whatever_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    replace_file(path, lambda part: save_file({"x": torch.zeros(2)}, part))
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def without_privileges(work: Callable[[], object]) -> str:
    """Run ``work`` as a user who is nobody's owner; return the code of its error, or "fine"."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setegid(65534)
                os.seteuid(65534)
            work()
            answer = "fine"
        except StorageError as error:
            answer = f"{error.code} {error}"
        except BaseException as error:
            answer = f"{type(error).__name__} {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return stream.read()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_file_without_permission_is_named_and_never_called_missing(open_folder: Path) -> None:
    weights = open_folder / "model.safetensors"
    save_file({"x": torch.zeros(2)}, weights)
    weights.chmod(0o000)
    (open_folder / "config.json").write_text("{}")
    for work in (
        lambda: check_readable(weights),
        lambda: check_readable(open_folder),
        lambda: read_weights(weights),
        lambda: open_run(open_folder),
        lambda: read_shard(weights, "0" * 64),
        lambda: PolyvexForConditionalGeneration.from_pretrained(open_folder),
    ):
        answer = without_privileges(work)
        assert answer.startswith("permission-denied")
        assert str(weights) in answer
    weights.chmod(0o644)
    assert without_privileges(lambda: check_readable(open_folder)) == "fine"


def test_a_folder_without_permission_is_named(open_folder: Path) -> None:
    inside = open_folder / "run" / "recipe.toml"
    inside.parent.mkdir()
    inside.touch()
    inside.parent.chmod(0o000)
    answer = without_privileges(lambda: open_run(inside.parent))
    inside.parent.chmod(0o755)
    assert answer.startswith("permission-denied")


def test_a_read_only_cache_can_be_read_and_says_why_it_cannot_be_written(open_folder: Path) -> None:
    store = TokenStore(open_folder / "store", {})
    store.write(["a"], torch.ones(1, 1, 2))
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert without_privileges(lambda: TokenStore(store.folder, {}).read(["a"])) == "fine"
    assert without_privileges(lambda: list(verify(open_folder))) == "fine"
    answer = without_privileges(lambda: TokenStore(store.folder, {}).write(["b"], torch.ones(1, 1, 2)))
    assert answer.startswith("permission-denied")
    assert str(store.folder) in answer
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o755)


def test_what_does_not_exist_or_is_no_file_is_not_judged(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    check_readable(tmp_path, tmp_path / "pipe", tmp_path / "missing", tmp_path / "missing" / "deep")


def test_parts_of_ended_processes_are_removed_and_those_of_running_ones_kept(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    running = os.getppid()
    names = (f"a.json.{child}.part", f"a.json.{os.getpid()}.part", "old.part", f"deep/b.{child}.part")
    for name in (*names, f"kept.{running}.part", f"abandoned.{running}.part", "a.json", "b.part.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    folder = tmp_path / f".config.json.{child}.part"
    folder.mkdir()
    (folder / "model.safetensors").write_text("")
    os.utime(tmp_path / f"abandoned.{running}.part", (0, 0))
    removed = remove_stale_parts(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in removed} == {
        *names,
        f"abandoned.{running}.part",
        folder.name,
    }
    assert {path.name for path in tmp_path.rglob("*")} == {"deep", f"kept.{running}.part", "a.json", "b.part.jsonl"}
