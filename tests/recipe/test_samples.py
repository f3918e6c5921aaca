"""The samples and texts that a recipe names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from polyvex.errors import DataError, UnsafeNameError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.samples import read_split, training_texts


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
    with pytest.raises(DataError, match="has the id 'a' twice; give each sample its own"):
        read_split(recipe, registries, "train")


@pytest.mark.parametrize("split", ["../test", "/etc/passwd", "a/b", "..", "test\0", "x" * 300])
def test_a_split_cannot_leave_the_folder(
    split: str, tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    with pytest.raises(UnsafeNameError):
        read_split(tiny_recipe(), registries, split)
