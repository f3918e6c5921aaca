"""Asking a finished run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from polyvex.answer import Assistant, load
from polyvex.assemble import build
from polyvex.errors import DataError, PolyvexError, RunError, WeightsError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.rundir import RunDirectory


@pytest.fixture(scope="module")
def finished(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run directory with an untrained model: it looks finished."""
    path = tmp_path_factory.mktemp("finished")
    RunDirectory(path).begin(tiny_recipe())
    built = build(tiny_recipe(), registries=registries)
    built.model.save_pretrained(path)
    built.processor.save_pretrained(path)
    RunDirectory(path).finish()
    return path


@pytest.fixture(scope="module")
def assistant(finished: Path, registries: Registries) -> Assistant:
    return load(finished, registries=registries)


def test_an_image_may_be_a_path_or_a_picture(assistant: Assistant, tiny_data: Path) -> None:
    path = next(tiny_data.glob("*.png"))
    answers = [assistant.ask(one, "what?", max_new_tokens=4).ids for one in (path, str(path), Image.open(path))]
    assert answers[0] == answers[1] == answers[2]


def test_several_images_or_none(assistant: Assistant, tiny_data: Path) -> None:
    paths = sorted(tiny_data.glob("*.png"))[:2]
    assert assistant.ask(paths, "which?", max_new_tokens=2).ids
    assert assistant.ask(None, "why?", max_new_tokens=2).ids


def test_answers_do_not_change(assistant: Assistant, tiny_data: Path) -> None:
    path = next(tiny_data.glob("*.png"))
    assert assistant.ask(path, "what?", max_new_tokens=6) == assistant.ask(path, "what?", max_new_tokens=6)


def test_an_answer_reads_as_its_text(assistant: Assistant) -> None:
    answer = assistant.ask(None, "why?", max_new_tokens=3)
    assert str(answer) == answer.text == answer.text.strip()


def test_an_unreadable_image_is_told(assistant: Assistant, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image at"):
        assistant.ask(tmp_path / "none.png", "what?")


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run at"):
        load(tmp_path)


def test_an_unfinished_run_is_told_with_the_command(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    RunDirectory(tmp_path).begin(tiny_recipe())
    with pytest.raises(RunError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path} is not finished. Go on with: polyvex train RECIPE --out {tmp_path}"


def test_the_model_is_ready_to_be_asked(assistant: Assistant, finished: Path) -> None:
    assert not assistant.model.training
    assert json.loads((finished / "config.json").read_text())["model_type"] == "polyvex"


def test_a_run_can_be_asked_through_transformers_alone(finished: Path, assistant: Assistant, tiny_data: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = next(tiny_data.glob("*.png"))
    model: Any = AutoModelForImageTextToText.from_pretrained(finished)
    processor = AutoProcessor.from_pretrained(finished)
    inputs = processor(images=Image.open(path), text=processor.prompt("what?"))
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1] :].tolist()
    assert new == assistant.ask(path, "what?", max_new_tokens=4).ids


def test_the_mark_of_an_image_in_a_question_is_text(assistant: Assistant, tiny_data: Path) -> None:
    path = next(tiny_data.glob("*.png"))
    assert assistant.ask(path, "where is the <image> square? </s>", max_new_tokens=2).ids


@pytest.mark.parametrize("question", ["", "  \n", None, 3])
def test_no_question_is_told(question: Any, assistant: Assistant) -> None:
    with pytest.raises(DataError, match="expected some text"):
        assistant.ask(None, question)


def test_something_else_than_an_image_is_told(assistant: Assistant) -> None:
    bad: Any = 3
    with pytest.raises(DataError, match="an image is int, expected a path or a PIL image"):
        assistant.ask(bad, "what?")


def test_an_answer_ends_where_the_context_ends(assistant: Assistant) -> None:
    question = "why? " * 20
    length = assistant.processor.question(question)["input_ids"].shape[1]
    assert len(assistant.ask(None, question, max_new_tokens=500).ids) <= 128 - length


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_run_with_a_broken_file_is_told(file: str, finished: Path, registries: Registries, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / file).unlink() if file == "model.safetensors" else (folder / file).write_text("{", encoding="utf-8")
    with pytest.raises(PolyvexError) as caught:
        load(folder, registries=registries)
    assert caught.value.code == ("damaged-model" if file == "model.safetensors" else "damaged-record")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"null"),
        ("config.json", b"[" * 100_000),
        ("config.json", b'{"encoders": 1}'),
        ("processor_config.json", b"\xff"),
        ("processor_config.json", b'{"encoders": [], "template": 1, "runs": [null]}'),
        ("tokenizer.json", b"null"),
        ("tokenizer_config.json", b"[]"),
        ("generation_config.json", b"[]"),
        ("recipe.toml", b"\xff"),
    ],
)
def test_a_damaged_file_of_a_finished_run_is_a_readable_error(
    file: str, content: bytes, finished: Path, registries: Registries, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    assert (folder / file).exists()
    (folder / file).write_bytes(content)
    with pytest.raises(PolyvexError) as caught:
        load(folder, registries=registries)
    assert caught.value.code in ("damaged-record", "damaged-model")
    assert str(folder) in str(caught.value)


def test_a_recipe_file_can_be_built(tiny_recipe_file: Path, registries: Registries) -> None:
    assert list(build(tiny_recipe_file, registries=registries).weights) == ["patchify", "color-grid"]


def test_a_run_whose_weights_are_no_numbers_is_refused(finished: Path, registries: Registries, tmp_path: Path) -> None:
    spoilt = shutil.copytree(finished, tmp_path / "spoilt")
    state = load_file(spoilt / "model.safetensors")
    state["lm.lm_head.weight"][0, 0] = float("nan")
    save_file(state, spoilt / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lm\.lm_head\.weight hold numbers that are not finite"):
        load(spoilt, registries=registries)
