"""The samples and texts that a recipe names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from polyvex.data import Sample
from polyvex.data.jsonl import JsonLines
from polyvex.errors import DataError, UnsafeNameError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.samples import image_notes, image_problems, read_split, training_texts


def test_a_split_is_read_by_the_recipes_data_set(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    assert len(read_split(tiny_recipe(), registries, "train")) == 36
    assert len(read_split(tiny_recipe(), registries, "test")) == 12


def test_an_empty_split_is_told(tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    recipe = tiny_recipe(data={"use": "jsonl", "folder": str(tmp_path)})
    with pytest.raises(DataError, match=r"^the split 'train' of jsonl has no samples; fill it"):
        read_split(recipe, registries, "train")


def test_texts_are_prompts_and_answers_without_images(
    tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    texts = list(training_texts(tiny_recipe(), registries))
    assert len(texts) == 36
    assert texts[0] == "Question: what color is the square?\nAnswer: red"


def test_only_the_training_split_is_read_for_texts(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    # Otherwise the tokenizer would know the test's words.
    assert len(list(training_texts(tiny_recipe("data.train_split=test"), registries))) == 12


def test_only_as_many_samples_are_trained_on_as_the_recipe_says(
    tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    recipe = tiny_recipe("data.train_limit=5")
    assert [sample.id for sample in read_split(recipe, registries, "train")] == [
        sample.id for sample in read_split(tiny_recipe(), registries, "train")[:5]
    ]
    assert len(read_split(recipe, registries, "test")) == 12
    assert len(list(training_texts(recipe, registries))) == 5


def test_one_id_for_two_samples_is_refused(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    line = '{"id": "a", "question": "q", "answer": "x"}\n'
    (tmp_path / "train.jsonl").write_text(line * 2, encoding="utf-8")
    recipe = tiny_recipe(data={"use": "jsonl", "folder": str(tmp_path)})
    with pytest.raises(DataError, match=r"train.jsonl:2: the id 'a' is also on line 1"):
        read_split(recipe, registries, "train")


@pytest.mark.parametrize("split", ["../test", "/etc/passwd", "a/b", "..", "test\0", "x" * 300])
def test_a_split_cannot_leave_the_folder(
    split: str, tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    with pytest.raises(UnsafeNameError):
        read_split(tiny_recipe(), registries, split)


def test_samples_of_a_plugin_are_checked(
    tiny_recipe: Callable[..., Recipe], registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = [Sample(id="1", question="q", answer=None)]  # type: ignore[arg-type]  # what a plugin may make
    monkeypatch.setattr(JsonLines, "samples", lambda self, split: odd)
    with pytest.raises(DataError, match="sample '1': answer is null; expected text") as caught:
        read_split(tiny_recipe(), registries, "train")
    assert caught.value.code == "samples"


PLAIN = Sample(id="1", question="q", answer="a")
SEEN = Sample(id="2", question="q", answer="a", images=("a.png",))


def test_stages_with_images_need_one(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe()
    assert image_problems(recipe, [PLAIN, SEEN]) == []
    (problem,) = image_problems(recipe, [PLAIN])
    assert problem.startswith(f"none of the 1 training samples has an image, but the stages {recipe.stages[0].name},")
    blind = recipe.model_copy(
        update={"stages": [stage.model_copy(update={"images": False}) for stage in recipe.stages]}
    )
    assert image_problems(blind, [PLAIN]) == []


def test_samples_without_an_image_are_counted() -> None:
    assert image_notes(training=[SEEN], test=[SEEN]) == []
    assert image_notes(training=[SEEN, PLAIN], test=[SEEN]) == ["NO IMAGE: 1 of 2 training samples are text alone"]
