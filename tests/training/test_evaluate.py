"""Evaluation inside a run: nothing that was answered is lost, and nothing that changed is silent."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from polyvex_basics import Patchify

from polyvex.answer import load
from polyvex.encoders import WeightsPlace
from polyvex.errors import DataError
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.recipe import Recipe
from polyvex.rundir import RunDirectory
from polyvex.training.evaluate import evaluate_run
from polyvex.training.stages import train

QUICK = {"moe": None, "stages": [{"name": "tune", "trains": ["connector", "lm"], "steps": 1, "batch_size": 4}]}
Change = Callable[[Callable[[dict[str, Any]], None]], None]


@pytest.fixture
def folder(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may change."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def finished(tiny_recipe: Callable[..., Recipe], registries: Registries, folder: Path, tmp_path: Path) -> RunDirectory:
    recipe = tiny_recipe(data={"use": "jsonl", "folder": str(folder), "max_unreadable": 0.1}, **QUICK)
    return train(recipe, tmp_path / "run", registries=registries, say=lambda _: None, progress=False)


def change_test_split(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        change(line)
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def evaluated(run: RunDirectory, registries: Registries, **options: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    return evaluate_run(run.path, registries=registries, say=said.append, progress=False, **options), said


def test_the_same_questions_again(finished: RunDirectory, registries: Registries) -> None:
    result, said = evaluated(finished, registries)
    assert said == []
    kept = json.loads(finished.evaluation("0-tune").read_text(encoding="utf-8"))
    assert (result.accuracy, len(result.answers)) == (kept["accuracy"], 12)


def test_what_encoders_weigh_is_said_and_kept(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    said: list[str] = []
    stages = [{"name": "blind", "trains": ["lm"], "steps": 1, "batch_size": 4, "images": False}, *QUICK["stages"]]
    recipe = tiny_recipe(**{**QUICK, "stages": stages}, fusion={"use": "gated", "grid": [2, 2], "gate": "sample"})
    run = train(recipe, tmp_path / "run", registries=registries, say=said.append, progress=False)
    kept = json.loads(run.evaluation("1-tune").read_text(encoding="utf-8"))["encoder_weights"]
    assert list(kept) == ["all", "color", "side"]
    weights = [kept["all"][name]["weight"] for name in ("patchify", "color-grid")]
    assert sum(weights) == pytest.approx(1)
    (line,) = [line for line in said if "encoders weigh" in line]
    assert line.endswith(f"encoders weigh patchify {weights[0]:.1%}, color-grid {weights[1]:.1%}")
    assert json.loads(run.evaluation("0-blind").read_text(encoding="utf-8"))["encoder_weights"] == {}
    result, _ = evaluated(run, registries)
    again = result.summary()["encoder_weights"]["side"]["patchify"]
    assert again == pytest.approx(kept["side"]["patchify"])


def test_changed_questions_are_told(finished: RunDirectory, registries: Registries, folder: Path) -> None:
    change_test_split(folder, lambda line: line.update(answer="red"))
    _, said = evaluated(finished, registries)
    assert said == ["CHANGED: the split 'test' is not as it was when the run was trained"]
    assert evaluated(finished, registries, split="train")[1] == []


def test_fewer_questions_than_before_are_a_change(finished: RunDirectory, registries: Registries, folder: Path) -> None:
    lines = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "test.jsonl").write_text("\n".join(lines[:5]), encoding="utf-8")
    assert len(evaluated(finished, registries)[1]) == 1


def test_a_part_of_the_questions_is_no_change(finished: RunDirectory, registries: Registries) -> None:
    result, said = evaluated(finished, registries, limit=5)
    assert (len(result.answers), said) == (5, [])


def test_unreadable_images_are_left_out_and_counted_even_if_they_are_many(
    finished: RunDirectory, registries: Registries, folder: Path
) -> None:
    first = json.loads((folder / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])["image"]
    (folder / first).write_bytes(b"no picture")
    result, _ = evaluated(finished, registries)
    assert (result.skipped, len(result.answers)) == (2, 10)


def test_no_readable_image_at_all_is_an_error(finished: RunDirectory, registries: Registries, folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match="no image of the split 'test' can be read"):
        evaluated(finished, registries)


def test_a_question_beyond_the_context_is_an_error(
    finished: RunDirectory, registries: Registries, folder: Path
) -> None:
    change_test_split(folder, lambda line: line.update(question="why? " * 60))
    with pytest.raises(DataError, match="12 of 12 samples do not fit the language model's context of 128 tokens"):
        evaluated(finished, registries)
    with pytest.raises(DataError, match=r"the question takes \d+ tokens with its 0 images"):
        load(finished.path, registries=registries).ask(None, "why? " * 100)


def test_the_runs_own_encoders_need_no_weight_file(
    tiny_recipe: Callable[..., Recipe], registries: Registries, folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    monkeypatch.setattr(Patchify, "weights", classmethod(lambda cls, options: WeightsPlace(path=file, install="")))
    recipe = tiny_recipe(data={"use": "jsonl", "folder": str(folder)}, **QUICK)
    run = train(recipe, tmp_path / "run", registries=registries, say=lambda _: None, progress=False)
    missing = WeightsPlace(path=None, install="nowhere")
    monkeypatch.setattr(Patchify, "weights", classmethod(lambda cls, options: missing))
    monkeypatch.setattr(Patchify, "load_pretrained", lambda self: pytest.fail("weights were looked for"))
    assert len(evaluated(run, registries)[0].answers) == 12
    cache = tmp_path / "empty"  # and with nothing in the cache, they encode
    assert evaluated(run, registries, cache=cache)[0].answers == evaluated(run, registries)[0].answers


def interrupt_at(patch: pytest.MonkeyPatch, batch: int) -> list[int]:
    """Ctrl-C in that batch, the first time that it is asked; returns a list that grows by each batch's size."""
    asked: list[int] = []
    plain = PolyvexForConditionalGeneration.generate

    def generate(self: Any, **inputs: Any) -> Any:
        asked.append(len(inputs["input_ids"]))
        if len(asked) == batch:
            raise KeyboardInterrupt
        return plain(self, **inputs)

    patch.setattr(PolyvexForConditionalGeneration, "generate", generate)
    return asked


def test_answers_of_an_interrupted_evaluation_are_kept(
    finished: RunDirectory, registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = evaluated(finished, registries)
    with monkeypatch.context() as patch:
        asked = interrupt_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            evaluated(finished, registries)
        partial = finished.evaluation("test-12").with_suffix(".part.jsonl")
        partial.write_text(partial.read_text(encoding="utf-8") + '{"number": 11, "id": "cut', encoding="utf-8")
        again, _ = evaluated(finished, registries)
    assert again.answers == whole.answers
    assert asked == [4, 4, 4, 4]  # two batches, the one that was interrupted, and that one again
    assert not partial.exists()


def test_kept_answers_are_not_taken_for_other_pictures(
    finished: RunDirectory, registries: Registries, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        asked = interrupt_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            evaluated(finished, registries)
        first, second = sorted(folder.glob("*.png"))[-2:]
        shutil.copy(first, second)
        evaluated(finished, registries)
    assert asked == [4, 4, 4, 4, 4]  # one, the one that was interrupted, and then all three
