"""``polyvex train`` and its kin, on recipes that start from another run."""

import json
import shutil
from pathlib import Path

import pytest
import tomlkit

from polyvex.cli import run as polyvex

EXPERTS = {"name": "experts", "trains": ["lm.moe"], "upcycle": True, "steps": 1, "batch_size": 4}


@pytest.fixture
def recipe(tiny_recipe_file: Path, earlier_run: Path, tmp_path: Path) -> Path:
    """A recipe that upcycles after ``tune`` of ``source``, a run that a test may change."""
    shutil.copytree(earlier_run, tmp_path / "source")
    tables = tomlkit.parse(tiny_recipe_file.read_text(encoding="utf-8")).unwrap()
    tables |= {"stages": [EXPERTS], "start": {"run": "source", "stage": "tune"}}
    tiny_recipe_file.write_text(tomlkit.dumps(tables), encoding="utf-8")
    return tiny_recipe_file


def test_a_run_outlives_the_one_that_it_started_from(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train", str(recipe), "--out", "run", "--quiet"]
    assert polyvex(train) == 0
    assert f"starts from {tmp_path / 'source'}, after stage tune" in capsys.readouterr().out
    shutil.rmtree("source")
    assert polyvex(train) == 0
    assert "run is finished; nothing to do" in capsys.readouterr().out
    assert polyvex(["eval", "run", "--limit", "2", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 2
    assert polyvex(["report", "run"]) == 0
    assert "cannot be counted" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert polyvex(["train", str(recipe), "--out", "another", "--quiet"]) == 2
    assert "  - [start]: source does not exist, expected the folder of a run" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_no_traceback(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = ["--set", "encoders.patchify.dim=4"]
    assert polyvex(["plan", str(recipe), *changed]) == 2
    assert "PROBLEM: [start]: the weights of source, after stage tune, are not this model's." in capsys.readouterr().out
    assert polyvex(["train", str(recipe), "--out", "run", "--quiet", *changed]) == 2
    error = capsys.readouterr().err
    assert "What differs: encoders.0.dim: 8 there, 4 here" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
