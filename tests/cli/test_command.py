"""Options that may stand anywhere, and what holds for one command."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from polyvex.cache.place import Place, places
from polyvex.cli import run
from polyvex.cli.command import one_command, take_options
from polyvex.hooks.files import FILES
from polyvex.hooks.manager import load_registries
from polyvex.recipe import parse_recipe

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


ENCODER = """
from polyvex.hooks import hookimpl
from polyvex_basics.color_grid import ColorGrid

class Mine(ColorGrid):
    summary = "an encoder in a file"

@hookimpl
def register_encoders():
    return {"mine": Mine}
"""


def test_a_run_needs_the_file_that_it_was_trained_with(tiny_recipe_file: Path, tmp_path: Path, capsys: Capture) -> None:
    file, out, image = tmp_path / "mine.py", tmp_path / "run", tmp_path / "red.png"
    file.write_text(ENCODER)
    Image.new("RGB", (64, 64), "red").save(image)
    shorter = ["evaluation.after=never", "stages.experts=false", "stages.align=false", "moe=false"]
    changes = [part for change in ["encoders.patchify=mine", *shorter] for part in ("--set", change)]
    train = ["train", str(tiny_recipe_file), "--out", str(out), *changes, "--quiet"]
    assert run([*train, "--plugin", str(file)]) == 0, capsys.readouterr().err
    code = json.loads((out / "lock.json").read_text())["code"]
    assert "mine.py" in code["mine"]
    ask = ["ask", str(out), str(image), "which color?", "--json"]
    capsys.readouterr()
    assert run(ask) == 2
    assert "It came from the file mine.py: add --plugin mine.py to the command" in capsys.readouterr().err
    assert run([*ask, "--plugin", str(file)]) == 0
    assert "answer" in json.loads(capsys.readouterr().out)


def test_cached_tokens_belong_to_the_content_of_the_file(
    tiny_tables: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(folder: str, text: str) -> Place:
        file = tmp_path / folder / "mine.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        monkeypatch.setenv(FILES, str(file))
        registries = load_registries()
        recipe = parse_recipe({**tiny_tables(), "encoders": [{"use": "mine"}]}, registries=registries)
        return places(recipe, registries, root=tmp_path)["mine"]

    edited = ENCODER + "# a remark\n"
    first, other = place("a", ENCODER), place("a", edited)
    assert first.about["plugin"] == f"mine.py sha256:{hashlib.sha256(ENCODER.encode()).hexdigest()}"
    assert other.folder != first.folder
    assert place("b", ENCODER).folder == first.folder  # a moved file is the same file


def test_completion_is_offered(capsys: Capture) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert "--install-completion" in out
    assert "--show-completion" in out
    assert "--plugin" in out
