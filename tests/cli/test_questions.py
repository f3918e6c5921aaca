"""Composing a recipe by questions: near names, required options, failed checks, and a real terminal."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from polyvex.cli import run
from polyvex.cli.questions import Interview
from polyvex.hooks.manager import Registries

Capture = pytest.CaptureFixture[str]
Compose = Callable[[Sequence[str]], dict[str, Any]]
ENTER = ""


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """A function that runs ``compose`` with typed lines, all of which must be used, and returns the recipe."""

    def session(lines: Sequence[str]) -> dict[str, Any]:
        typed = iter(lines)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("typer.prompt", lambda text, *, default, show_default: next(typed) or default)
        monkeypatch.chdir(tmp_path)
        assert run(["compose"]) == 0
        assert list(typed) == []
        return tomllib.loads((tmp_path / "mine.toml").read_text(encoding="utf-8"))

    return session


def test_a_near_name_is_offered_in_place_of_a_mistyped_one(compose: Compose, tiny_data: Path, capsys: Capture) -> None:
    lines = ["patchfy, color-grid", ENTER, "gaetd", ENTER, "share_row", ENTER, "spars", ENTER, str(tiny_data)]
    recipe = compose([*lines, "My Recipe", "mine", ENTER])
    out = capsys.readouterr().out
    for name in ("'patchify'", "'gated'", "'sparse'"):
        assert f"Did you mean {name}" in out
    assert [table["use"] for table in recipe["encoders"]] == ["patchify", "color-grid"]
    assert (recipe["fusion"]["use"], recipe["positions"]["use"], recipe["moe"]["layers"]) == (
        *("gated", "share_row"),
        "sparse",
    )
    assert recipe["name"] == "mine"


def test_what_is_missing_stands_beside_each_choice(compose: Compose, capsys: Capture) -> None:
    compose(["patchify", ENTER, ENTER, ENTER, ENTER, "jsonl", "pictures", ENTER, "mine", ENTER])
    lines = capsys.readouterr().out.splitlines()
    found = {line.strip().partition(":")[0]: line for line in lines}
    assert "[not on this machine. To get it: hf download openai/clip-vit-large-patch14" in found["clip-l-224"]
    assert found["onnx"].endswith("[needs the options file, output]")
    assert not found["patchify"].endswith("]")
    assert found["pretrained"].endswith("[needs the option checkpoint]")
    assert found["jsonl"].endswith("[needs the option folder]")


def test_the_folder_of_jsonl_is_asked_for(compose: Compose, capsys: Capture) -> None:
    # "pictures" does not exist, so that Enter must confirm it
    recipe = compose(["patchify", ENTER, ENTER, ENTER, ENTER, "jsonl", "pictures", ENTER, "mine", ENTER])
    assert recipe["data"] == {"use": "jsonl", "folder": "pictures"} | recipe["data"]
    assert "folder = pictures: no such file or folder here" in capsys.readouterr().out


def test_options_without_a_default_are_asked_for(registries: Registries, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    typed = iter(["patchify onnx", "a.onnx", ENTER, "features"])

    def answer(text: str, *, default: str | None, show_default: bool) -> str | None:
        asked.append(text)
        return next(typed) or default

    monkeypatch.setattr("typer.prompt", answer)
    interview = Interview(registries)
    interview.ask("encoders")
    assert interview.options == {"encoders.1": {"file": "a.onnx", "output": "features"}}
    assert [text.partition(" (")[0] for text in asked[1:]] == ["file of onnx", "file of onnx", "output of onnx"]


def test_a_failed_check_repeats_only_the_wrong_question(compose: Compose, capsys: Capture) -> None:
    # grids of 4x4 and 16x16, of which "channel" needs one
    first = ["patchify dinov2-s", "channel", "share_row", ENTER, "dense", "jsonl", ".", "mine"]
    recipe = compose([*first, ENTER, "mlp", ENTER])
    out = capsys.readouterr().out
    assert "The other answers are kept" in out
    assert (recipe["fusion"]["use"], recipe["positions"]["use"], recipe["moe"]["layers"]) == (
        *("mlp", "share_row"),
        "dense",
    )
    assert (recipe["data"]["folder"], recipe["name"]) == (".", "mine")


def test_another_answer_can_be_changed_after_a_failed_check(compose: Compose) -> None:
    first = ["patchify dinov2-s", "channel", ENTER, ENTER, ENTER, "jsonl", ".", "mine"]
    recipe = compose([*first, "encoder", ENTER, "patchify patchify", ENTER])
    assert [table["use"] for table in recipe["encoders"]] == ["patchify", "patchify"]
    assert recipe["fusion"]["use"] == "channel"


def test_a_file_that_cannot_be_written_is_asked_for_again(compose: Compose, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "taken").touch()
    compose(["patchify", ENTER, ENTER, ENTER, ENTER, "jsonl", ".", "mine", "taken", "taken/mine.toml", "mine.toml"])
    out = capsys.readouterr().out
    assert "taken exists" in out
    assert "cannot write taken/mine.toml" in out


def test_a_session_on_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("readline")
    terminal = Terminal(["compose", "-o", "mine.toml"], tmp_path)
    try:
        (tmp_path / "pictures").mkdir()
        for question, keys in (
            ("encoders, in order", "patch\tcolor-g\t\n".replace("\tc", "\t c")),
            ("fusion [mlp]", "gat\t\n"),
            ("position scheme [sequential]", "share_raw\n"),
            ("Did you mean 'share_row'", "\n"),
            ("language model", "small-l\t\n"),
            ("layers that become experts", "non\t\n"),
            ("data set", "json\t\n"),
            ("folder of jsonl", "pict\t\n"),
            ("name of the recipe [my-recipe]", "mine\n"),
        ):
            terminal.answer(question, keys)
        assert terminal.finish() == 0, terminal.seen
    finally:
        terminal.close()
    recipe = tomllib.loads((tmp_path / "mine.toml").read_text(encoding="utf-8"))
    assert [table["use"] for table in recipe["encoders"]] == ["patchify", "color-grid"]
    assert (recipe["fusion"]["use"], recipe["positions"]["use"]) == ("gated", "share_row")
    assert (recipe["lm"]["use"], recipe["data"]["folder"], "moe" in recipe) == (
        "small-llama",
        f"pictures{os.sep}",
        False,
    )


class Terminal:
    """A command in a terminal of its own, as a person uses it."""

    def __init__(self, arguments: Sequence[str], folder: Path):
        import pty

        self.master, slave = pty.openpty()
        code = "import sys; from polyvex.cli import run; sys.exit(run(sys.argv[1:]))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            **{"stdin": slave, "stdout": slave, "stderr": slave, "cwd": folder, "start_new_session": True},
            env={**os.environ, "TERM": "dumb", "INPUTRC": os.devnull, "COLUMNS": "200"},
        )
        os.close(slave)
        self.seen = ""

    def answer(self, question: str, keys: str) -> None:
        """Wait until ``question`` is on the screen, then press keys; what was seen before does not count again."""
        while question not in self.seen:
            if not (more := self._read()):
                pytest.fail(f"no question {question!r} in: {self.seen}")
            self.seen += more
        self.seen = self.seen.partition(question)[2]
        os.write(self.master, keys.encode())

    def finish(self) -> int:
        """Wait for the end of the command, and return its exit code."""
        while more := self._read():
            self.seen += more
        return self.process.wait()

    def close(self) -> None:
        """End the command if it still runs."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def _read(self) -> str:
        """What appears next; empty at the end, or if nothing appears for a minute."""
        import select

        if not select.select([self.master], [], [], 60)[0]:
            return ""
        try:
            return os.read(self.master, 65536).decode(errors="replace")
        except OSError:  # Linux reports the end of a terminal this way
            return ""
