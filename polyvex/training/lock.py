"""The lock of a run: versions, hashes and seeds, so that it can be repeated, or told apart from one that cannot."""

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from polyvex.cache.encode import TokenCache
from polyvex.cache.place import digest_of
from polyvex.data.base import Sample
from polyvex.hooks.manager import Registries
from polyvex.recipe.schema import Recipe
from polyvex.training.prepare import Prepared

LIBRARIES = ("polyvex", "torch", "transformers", "accelerate", "peft", "tokenizers", "safetensors", "pillow")


def make_lock(recipe: Recipe, registries: Registries, data: Prepared) -> dict[str, Any]:
    """Everything outside the recipe that decides a run's result."""
    cache = data.cache
    return {
        "seed": recipe.seed,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "plugins": {
            status.plugin.name: f"{status.plugin.distribution} {status.plugin.version}"
            for status in registries.plugins
            if status.state == "loaded"
        },
        "weights_sha256": cache.weights_sha256,
        "fusion_sha256": digest_of(registries.fusions[recipe.fusion.use].weights(recipe.fusion)),
        "data_sha256": {"train": hash_data(data.train, cache), "test": hash_data(data.test, cache)},
        "counts": {"train": len(data.train), "test": len(data.test)},
        "samples": len(data.train) + len(data.test),
        "left_out": {"train": data.skipped_train, "test": data.skipped_test},
        "images": len(cache.files.hashes),
        "unreadable_images": sorted(cache.unreadable),
    }


def hash_data(samples: Sequence[Sample], cache: TokenCache) -> str:
    """SHA-256 over every question, answer and image content, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        images = [cache.files.hashes.get(path, "unreadable") for path in sample.images]
        digest.update(json.dumps([sample.id, sample.question, sample.answer, sample.kind, images]).encode())
    return digest.hexdigest()
