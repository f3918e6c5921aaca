"""``polyvex plugins new`` and ``test``: what they print, and how they end."""

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from polyvex.cli import run
from polyvex.evaluation import Metric
from polyvex.evaluation.metrics import ExactMatch
from polyvex.hooks import hookimpl, manager

Capture = pytest.CaptureFixture[str]


class AllIsRight(Metric):
    summary = "a test"

    def score(self, answer: str, sample: Any) -> float:
        return 1.0


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed plugin ``mine`` with a good metric and a bad one."""
    module = ModuleType("a_plugin")
    module.register_metrics = hookimpl(lambda: {"good": ExactMatch, "bad": AllIsRight})  # type: ignore[attr-defined]
    package = SimpleNamespace(metadata={"Name": "polyvex-mine"}, version="1.0", requires=["polyvex"])
    point = SimpleNamespace(name="mine", load=lambda: module, dist=package)
    monkeypatch.setattr(manager, "entry_points", lambda group: [point])


def test_new_writes_a_plugin_and_says_how_to_go_on(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "here"
    assert run(["plugins", "new", "brightest", "--kind", "metric", "--out", str(folder)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"wrote polyvex-brightest to {folder}:\n  README.md\n  pyproject.toml\n")
    assert f"pip install --editable {folder}" in told
    assert "polyvex plugins test brightest" in told
    assert (folder / "src" / "polyvex_brightest" / "metric.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new"], "Missing argument 'name'"),
        (["new", "mine"], "Missing option '--kind'"),
        (["new", "mine", "--kind", "language-model"], "'language-model' is not one of 'encoder', 'fusion'"),
        (["new", "My Plugin", "--kind", "metric"], "'My Plugin' is no name for a plugin"),
        (["new", "basics", "--kind", "metric"], "a plugin 'basics' is installed"),
        (["new", "mine", "--kind", "metric", "--out", "{full}"], "is not empty. Give another folder by --out"),
        (["test"], "Missing argument 'name'"),
        (["test", "basic"], "unknown plugin 'basic'. Did you mean 'basics'?"),
        (["test", "basics", "--component", "patchfy"], "unknown component 'patchfy'. Did you mean 'patchify'?"),
        (["test", "basics", "--set", "image_size=3"], "expected COMPONENT.OPTION=VALUE. Components: "),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    arguments: list[str], said: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert run(["plugins", *(word.format(full=tmp_path / "full") for word in arguments)]) == 2
    told = capsys.readouterr().err
    assert said in " ".join(told.split())
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.usefixtures("mine")
def test_a_failed_check_ends_with_1(capsys: Capture) -> None:
    assert run(["plugins", "test", "mine"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "ok        metric good: same score twice" in lines
    assert any(
        line.startswith("FAILED    metric bad: another answer is not: AllIsRight.score is 1.0") for line in lines
    )
    assert lines[-1] == "8 checks passed; FAILED: metric bad"


@pytest.mark.usefixtures("mine")
def test_all_passed_ends_with_0(capsys: Capture) -> None:
    assert run(["plugins", "test", "polyvex-mine", "--component", "good"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "5 checks passed"


@pytest.mark.usefixtures("mine")
def test_outcomes_are_json_too(capsys: Capture) -> None:
    assert run(["plugins", "test", "mine", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in rows} == {"ok", "FAILED"}
    assert all(set(row) == {"component", "check", "state", "reason"} for row in rows)


def test_an_installed_encoder_is_checked_with_other_options(capsys: Capture) -> None:
    options = ["--set", "patchify.image_size=32", "--set", "patchify.patch_size=8"]
    assert run(["plugins", "test", "basics", "--component", "patchify", *options]) == 0
    assert " checks passed" in capsys.readouterr().out
