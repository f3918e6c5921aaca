"""Tab completion: which words and paths fit, and that readline is left as it was."""

import os
from pathlib import Path

import pytest

from polyvex.cli.completion import completing, matches

NAMES = ["dinov2-s", "dinov2-vit-b", "patchify"]


def test_words_are_completed_in_order() -> None:
    assert matches("dino", NAMES) == ["dinov2-s", "dinov2-vit-b"]
    assert matches("dinov2-v", NAMES) == ["dinov2-vit-b"]
    assert matches("x", NAMES) == []


def test_paths_are_completed_with_a_slash_behind_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data [1]").mkdir()
    (tmp_path / "data.toml").touch()
    assert matches("da", ["dark"], paths=True) == ["dark", f"data [1]{os.sep}", "data.toml"]
    assert matches("data [", [], paths=True) == [f"data [1]{os.sep}"]
    assert matches("", ["dark"], paths=True) == ["dark"]
    assert matches("da", ["dark"]) == ["dark"]


def test_readline_is_left_as_it_was() -> None:
    readline = pytest.importorskip("readline")
    before = readline.get_completer(), readline.get_completer_delims()
    with completing(NAMES):
        complete = readline.get_completer()
        assert [complete("dino", state) for state in range(3)] == ["dinov2-s", "dinov2-vit-b", None]
    assert (readline.get_completer(), readline.get_completer_delims()) == before
