"""What the command line prints is safe to show."""

import json
from pathlib import Path

import pytest

from polyvex.cli import run
from polyvex.cli.output import echo, print_json, print_table
from polyvex.errors import DataError
from polyvex.progress import bar, show_beside

ATTACK = "\x1b]0;owned\x07\x9b2J\r\u202e"


def unsafe(text: str) -> set[str]:
    return {letter for letter in text if letter in set(ATTACK) and not letter.isalnum() and letter not in ";]"}


def test_lines_tables_and_json_escape_what_controls_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    echo(ATTACK)
    print_table([{"name": f"a\n{ATTACK}", "summary": ATTACK}])
    print_json({"answer": ATTACK})
    shown = capsys.readouterr().out
    assert not unsafe(shown)
    assert json.loads(shown[shown.index("{") :])["answer"] == ATTACK


def test_errors_of_wrong_input_and_of_wrong_usage_are_escaped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["show", str(tmp_path / ATTACK)]) == 2
    assert run(["show", "a", ATTACK]) == 2
    assert run([ATTACK]) == 2
    shown = capsys.readouterr().err
    assert r"\x1b]0;owned" in shown
    assert not unsafe(shown)


def test_an_unexpected_error_is_escaped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("polyvex.recipe.read_recipe", fail)
    for failure in (RuntimeError(ATTACK), DataError(ATTACK), OSError(1, ATTACK, ATTACK)):  # noqa: B007
        assert run(["show", "x.toml"]) in (1, 2)
        assert not unsafe(capsys.readouterr().err)


def test_progress_bars_escape_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in (progress := bar([1], desc=f"answer {ATTACK}")):
        show_beside(progress, loss=ATTACK)
        progress.refresh()
    shown = capsys.readouterr().err
    assert "owned" in shown
    assert not unsafe(shown) - {"\r"}  # the bar's own
