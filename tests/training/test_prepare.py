"""Samples of both splits, and which are left out."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyvex.errors import DataError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.training.prepare import Prepared, prepare

Prepare = Callable[..., Prepared]


@pytest.fixture
def prepared(tiny_recipe: Callable[..., Recipe], registries: Registries, tiny_data: Path, tmp_path: Path) -> Prepare:
    shutil.copytree(tiny_data, tmp_path / "data")

    def run(*overrides: str, **tables: Any) -> Prepared:
        recipe = tiny_recipe(f"data.folder={tmp_path / 'data'}", *overrides, **tables)
        return prepare(recipe, registries, progress=False)

    return run


def test_both_splits_are_read_and_cached(prepared: Prepare) -> None:
    data = prepared()
    assert (len(data.train), len(data.test)) == (36, 12)
    assert (data.skipped_train, data.skipped_test) == (0, 0)
    assert all(data.cache.has(path) for sample in [*data.train, *data.test] for path in sample.images)
    assert data.report.encoded == {"patchify": 24, "color-grid": 24}


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "broken"])
def test_unreadable_ones_are_left_out_of_their_split(missing: bool, prepared: Prepare, tmp_path: Path) -> None:
    pictures = sorted((tmp_path / "data").glob("*.png"))
    for picture in (pictures[0], pictures[-1]):
        picture.unlink() if missing else picture.write_bytes(picture.name.encode())
    data = prepared("data.max_unreadable=0.5")
    assert (data.skipped_train, data.skipped_test) == (2, 2)
    assert (len(data.train), len(data.test)) == (34, 10)


def test_a_limit_takes_the_first_of_the_test(prepared: Prepare) -> None:
    data = prepared("evaluation.limit=5")
    assert [sample.id for sample in data.test] == [sample.id for sample in prepared().test[:5]]
    assert len(data.train) == 36


def test_images_beyond_the_limit_are_not_encoded(prepared: Prepare) -> None:
    assert prepared("evaluation.limit=2").report.encoded == {"patchify": 19, "color-grid": 19}


def test_other_splits_can_be_named(prepared: Prepare) -> None:
    data = prepared("data.train_split=test", "data.test_split=train")
    assert (len(data.train), len(data.test)) == (12, 36)


def test_an_unknown_split_is_told(prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"no file .*val\.jsonl\. Splits there: test, train"):
        prepared("data.test_split=val")
