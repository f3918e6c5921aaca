"""Stored answers are scored with another metric, without the model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from polyvex.cli import run as polyvex
from polyvex.data import Sample
from polyvex.errors import PolyvexError
from polyvex.evaluation import Metric
from polyvex.evaluation.evaluate import Answered, Evaluation
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Registry
from polyvex.recipe import Recipe
from polyvex.rundir import RunDirectory
from polyvex.training.evaluate import describe
from polyvex.training.rescore import rescore_run


class Overlap(Metric):
    """Share of the letters of the answer that are expected."""

    summary = "letters"
    graded = True

    def score(self, answer: str, sample: Sample) -> float:
        return max(sum(letter in accepted for letter in answer) / len(answer) for accepted in sample.accepted)


@pytest.fixture
def graded(registries: Registries) -> Registries:
    metrics = Registry[Metric](registries.metrics.kind, dict(registries.metrics.entries))
    metrics.add("overlap", Overlap, registries.metrics.entry("exact_match").plugin)
    return replace(registries, metrics=metrics)


@pytest.fixture
def run(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> Path:
    """A run with two evaluations: after a stage, and of a split."""
    directory = RunDirectory(tmp_path / "run")
    directory.begin(tiny_recipe())
    answers = [
        Answered(id="1", kind="a", question="q", expected="ab", answer="ab", score=1.0),
        Answered(id="2", kind="b", question="q", expected="x", answer="ac", score=0.0, answers=("x", "ab")),
    ]
    for name in ("0-align", "test-2"):
        path = directory.evaluation(name)
        path.parent.mkdir(exist_ok=True)
        result = Evaluation(name=name, metric="exact_match", answers=answers, skipped=1)
        path.write_text(json.dumps(result.summary()))
        path.with_suffix(".jsonl").write_text(result.lines())
    return directory.path


def test_every_evaluation_is_rescored_beside_the_original(run: Path, graded: Registries) -> None:
    before = {path: path.read_bytes() for path in (run / "evaluation").iterdir()}
    results = rescore_run(run, "overlap", registries=graded)
    assert [(one.name, one.metric, one.accuracy) for one in results] == [
        ("0-align", "overlap", 0.75),
        ("test-2", "overlap", 0.75),
    ]
    assert all(path.read_bytes() == content for path, content in before.items())
    stored = json.loads((run / "evaluation" / "test-2.overlap.json").read_text())
    assert (stored["graded"], stored["skipped"], stored["rescored_from"]) == (True, 1, "test-2")
    lines = (run / "evaluation" / "test-2.overlap.jsonl").read_text().splitlines()
    assert [json.loads(line)["score"] for line in lines] == [1.0, 0.5]


def test_what_was_rescored_is_not_rescored_again(run: Path, graded: Registries) -> None:
    rescore_run(run, "overlap", registries=graded)
    assert len(rescore_run(run, "overlap", registries=graded)) == 2
    assert len(list((run / "evaluation").iterdir())) == 8


@pytest.mark.parametrize(("name", "found"), [("test", ["test-2"]), ("test-2", ["test-2"]), ("0-align", ["0-align"])])
def test_one_evaluation_or_split_is_selected(name: str, found: list[str], run: Path, graded: Registries) -> None:
    assert [one.name for one in rescore_run(run, "overlap", name=name, registries=graded)] == found


def test_wrong_names_and_damaged_answers_are_refused(run: Path, graded: Registries) -> None:
    for metric, name in (("overlp", ""), ("overlap", "nowhere"), ("overlap", "../x")):
        with pytest.raises(PolyvexError):
            rescore_run(run, metric, name=name, registries=graded)
    path = run / "evaluation" / "test-2.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(PolyvexError) as caught:
        rescore_run(run, "overlap", registries=graded)
    assert caught.value.code == "damaged-record"


def test_the_metric_stands_beside_means_with_their_interval(run: Path, graded: Registries) -> None:
    line = describe(rescore_run(run, "overlap", name="test", registries=graded)[0])
    assert line.startswith("overlap test-2: 0.7500 (0.0000 to 1.0000), mean over 2 questions (a 1.000, b 0.500)")


def test_the_command_needs_no_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert polyvex(["eval", str(run), "--metric", "exact_match", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["metric"], one["accuracy"]) for one in shown] == [
        ("0-align", "exact_match", 0.5),
        ("test-2", "exact_match", 0.5),
    ]
    assert polyvex(["eval", str(run), "--metric", "exact_match", "--limit", "3"]) == 2
