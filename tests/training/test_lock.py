"""The lock of a run: what decides its result outside the recipe."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyvex.cache import TokenCache
from polyvex.cache.images import ImageFiles
from polyvex.data import Sample
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.training.lock import LIBRARIES, encoder_code, hash_data, make_lock
from polyvex.training.prepare import prepare

SAMPLES = [Sample(id="a", question="q", answer="x", images=("1.png",)), Sample(id="b", question="p", answer="y")]


def changed(**fields: Any) -> list[Sample]:
    first = SAMPLES[0]
    return [Sample(**{**vars(first), **fields}), SAMPLES[1]]


@pytest.mark.parametrize(
    "samples",
    [
        changed(id="c"),
        changed(question="r"),
        changed(answer="z"),
        changed(images=()),
        changed(kind="k"),
        changed(answers=(SAMPLES[0].answer, "z")),
        SAMPLES[::-1],
        SAMPLES[:1],
    ],
    ids=["id", "question", "answer", "images", "kind", "answers", "order", "fewer"],
)
def test_other_samples_have_another_hash(samples: list[Sample]) -> None:
    cache = TokenCache(stores={}, files=ImageFiles(hashes={"1.png": "one"}))
    assert hash_data(samples, cache) != hash_data(SAMPLES, cache)


def test_content_counts_and_the_path_does_not() -> None:
    def cache(path: str, content: str) -> TokenCache:
        return TokenCache(stores={}, files=ImageFiles(hashes={path: content}))

    moved = changed(images=("/elsewhere/1.png",))
    assert hash_data(SAMPLES, cache("1.png", "one")) == hash_data(moved, cache("/elsewhere/1.png", "one"))
    assert hash_data(SAMPLES, cache("1.png", "one")) != hash_data(SAMPLES, cache("1.png", "two"))


@pytest.fixture
def lock(tiny_recipe: Callable[..., Recipe], registries: Registries) -> dict[str, Any]:
    recipe = tiny_recipe("seed=4")
    return make_lock(recipe, registries, prepare(recipe, registries, progress=False))


def test_it_names_versions_plugins_weights_data_and_seed(lock: dict[str, Any]) -> None:
    assert lock["seed"] == 4
    assert set(lock["libraries"]) == set(LIBRARIES)
    assert lock["plugins"]["basics"].startswith("polyvex-basics ")
    assert lock["weights_sha256"] == {"patchify": None, "color-grid": None}
    assert (lock["samples"], lock["counts"], lock["images"]) == (48, {"train": 36, "test": 12}, 24)
    assert lock["data_sha256"]["train"] != lock["data_sha256"]["test"]


def test_it_has_the_code_of_each_encoder(lock: dict[str, Any]) -> None:
    assert list(lock["code"]) == ["patchify", "color-grid"]
    for digests in lock["code"].values():
        assert any(name.startswith("polyvex_basics") for name in digests)
        assert "polyvex.encoders.images.py" in digests


def test_code_is_named_by_the_name_in_the_recipe(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    recipe = tiny_recipe(encoders=[{"use": "patchify"}, {"use": "patchify", "name": "again"}])
    code = encoder_code(recipe, registries)
    assert list(code) == ["patchify", "again"]
    assert code["again"] == code["patchify"]


def test_it_is_plain_json(lock: dict[str, Any]) -> None:
    assert json.loads(json.dumps(lock)) == lock


def test_every_unreadable_image_is_in_it(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tiny_data: Path, tmp_path: Path
) -> None:
    # Both kinds: no file, and a file that is no image.
    folder = tmp_path / "data"
    shutil.copytree(tiny_data, folder)
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    lost, damaged = sorted({line["image"] for line in lines})[:2]
    (folder / lost).unlink()
    (folder / damaged).write_bytes(b"x")
    recipe = tiny_recipe("data.max_unreadable=1.0", data={"use": "jsonl", "folder": str(folder)})
    lock = make_lock(recipe, registries, prepare(recipe, registries, progress=False))
    assert lock["unreadable_images"] == [str(folder / lost), str(folder / damaged)]
    assert lock["left_out"] == {"train": sum(line["image"] in (lost, damaged) for line in lines), "test": 0}
