"""Files that users name: only regular ones are opened, up to a size."""

import os
import socket
from pathlib import Path

import pytest

from polyvex.errors import DataError
from polyvex.reading import clip, open_regular, read_regular


def code(path: str | Path, limit: int = 100) -> str:
    with pytest.raises(DataError) as caught:
        read_regular(path, what="image", limit=limit)
    return caught.value.code


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", what="image", limit=5) == b"12345"
    with open_regular(tmp_path / "a", what="image") as stream:
        assert stream.read() == b"12345"


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "b", what="image", limit=5) == b"1"


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert code(tmp_path / "a", limit=4) == "file-too-large"


def test_a_file_that_hides_its_size_is_refused() -> None:
    # Files of /proc are regular ones of 0 bytes, whatever they hold.
    assert os.stat("/proc/self/status").st_size == 0
    assert code("/proc/self/status", limit=10) == "file-too-large"


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket may have about 100 characters
        server.bind("socket")
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "link", tmp_path / "socket", "/dev/zero", "/dev/null"):
            assert code(path) == "file-kind", path


def test_a_pipe_that_takes_the_files_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    status = os.stat(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "stat", lambda path: status)
    assert code(tmp_path / "pipe") == "file-kind"


@pytest.mark.parametrize("name", ["a\0b", "a\ud83db"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(DataError) as caught:
        open_regular(name, what="image")
    assert caught.value.code == "file-path"
    str(caught.value).encode("utf-8")  # it can be printed


def test_missing_long_and_looping_names(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    assert code(tmp_path / "none") == "file-missing"
    assert code(tmp_path / "file" / "below") == "file-missing"
    assert code(tmp_path / ("x" * 300)) == "file-unreadable"
    assert code(tmp_path / "loop") == "file-unreadable"


def test_messages_do_not_repeat_long_names() -> None:
    with pytest.raises(DataError) as caught:
        open_regular("data:image/png;base64," + "A" * 35_000, what="image")
    assert len(str(caught.value)) < 300


def test_clipped_texts_can_be_printed() -> None:
    assert clip("abc") == "abc"
    assert clip("a" * 130) == "a" * 120 + "… (130 characters)"
    assert clip("a\0\ud83d") == "a\\x00\\ud83d"
