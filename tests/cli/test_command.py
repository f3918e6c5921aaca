"""Options that may stand anywhere, and what holds for one command."""

import json
import logging
import os
from pathlib import Path

import pytest

from polyvex.cli import run
from polyvex.cli.command import one_command, take_options
from polyvex.hooks.files import FILES

METRIC = """
from polyvex.evaluation.base import Metric
from polyvex.hooks import hookimpl

class Always(Metric):
    summary = "always right"

    def score(self, answer, expected):
        return 1.0

@hookimpl
def register_metrics():
    return {NAME: Always}
"""

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (["train", "a.toml"], (["train", "a.toml"], False, [])),
        (["--plugin", "x.py", "train", "--debug", "--plugin=y.py"], (["train"], True, ["x.py", "y.py"])),
        (["ask", "--", "--debug", "--plugin"], (["ask", "--", "--debug", "--plugin"], False, [])),
        (["train", "--plugin"], (["train", "--plugin"], False, [])),
    ],
)
def test_options_stand_anywhere(arguments: list[str], taken: tuple[list[str], bool, list[str]]) -> None:
    assert take_options(arguments) == taken


def test_files_are_plugins_for_one_command_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILES, "before.py")
    with one_command([str(tmp_path / "a.py")]):
        assert os.environ[FILES].split(os.pathsep) == ["before.py", str(tmp_path / "a.py")]
    assert os.environ[FILES] == "before.py"


def test_log_messages_are_printed_once(capsys: Capture) -> None:
    for _ in range(2):
        with one_command([]):
            logging.getLogger("polyvex.recipe").warning("a\x1bb")
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "\x1b" not in err


def test_a_file_serves_a_whole_run(tiny_recipe_file: Path, tmp_path: Path, capsys: Capture) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(METRIC.replace("NAME", "'always'"))
    assert run(["show", str(tiny_recipe_file), "--set", "evaluation.metric=always"]) == 2
    assert run(["metrics", "--json", "--plugin", str(file)]) == 0
    assert "always" in capsys.readouterr().out
    change = ["--set", "evaluation.metric=always", "--set", "evaluation.after=never", "--set", "stages.experts=false"]
    train = ["train", str(tiny_recipe_file), "--out", str(out), *change, "--set", "moe=false", "--quiet"]
    assert run(["--plugin", str(file), *train]) == 0, capsys.readouterr().err
    plugins = json.loads((out / "lock.json").read_text())["plugins"]
    assert plugins["mine.py"].startswith("mine.py sha256:")
    assert FILES not in os.environ


def test_completion_is_offered(capsys: Capture) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert "--install-completion" in out
    assert "--show-completion" in out
    assert "--plugin" in out
