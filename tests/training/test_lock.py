"""The lock of a run: what decides its result outside the recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyvex.cache import TokenCache, fill_cache
from polyvex.cache.images import ImageFiles
from polyvex.data import Sample
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.samples import read_split
from polyvex.training.lock import LIBRARIES, hash_data, make_lock

SAMPLES = [Sample(id="a", question="q", answer="x", images=("1.png",)), Sample(id="b", question="p", answer="y")]


def changed(**fields: Any) -> list[Sample]:
    first = SAMPLES[0]
    return [Sample(**{**vars(first), **fields}), SAMPLES[1]]


@pytest.mark.parametrize(
    "samples",
    [changed(id="c"), changed(question="r"), changed(answer="z"), changed(images=()), SAMPLES[::-1], SAMPLES[:1]],
    ids=["id", "question", "answer", "images", "order", "fewer"],
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
    samples = read_split(tiny_recipe(), registries, "train")
    cache, _ = fill_cache(tiny_recipe(), registries, samples, progress=False)
    return make_lock(tiny_recipe("seed=4"), registries, samples, cache, left_out={"train": 1, "test": 0})


def test_it_names_versions_plugins_weights_data_and_seed(lock: dict[str, Any]) -> None:
    assert lock["seed"] == 4
    assert set(lock["libraries"]) == set(LIBRARIES)
    assert lock["plugins"]["basics"].startswith("polyvex-basics ")
    assert lock["weights_sha256"] == {"patchify": None, "color-grid": None}
    assert (lock["samples"], lock["images"]) == (36, 18)


def test_it_is_plain_json(lock: dict[str, Any]) -> None:
    assert json.loads(json.dumps(lock)) == lock


def test_every_unreadable_image_is_in_it(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tmp_path: Path
) -> None:
    # Both kinds: no file, and a file that is no image.
    (tmp_path / "broken.png").write_bytes(b"x")
    samples = [
        Sample(id=name, question="q", answer="a", images=(str(tmp_path / name),)) for name in ("none.png", "broken.png")
    ]
    cache, report = fill_cache(tiny_recipe("data.max_unreadable=1.0"), registries, samples, progress=False)
    lock = make_lock(tiny_recipe(), registries, samples, cache, left_out={"train": 2, "test": 0})
    assert lock["unreadable_images"] == sorted(report.unreadable)
    assert lock["left_out"] == {"train": 2, "test": 0}
