"""The lock of a run: versions, hashes and seeds, so that it can be repeated, or told apart from one that cannot."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from polyvex.cache.encode import TokenCache
from polyvex.data.base import Sample
from polyvex.hooks.manager import Registries
from polyvex.recipe.schema import Recipe

LIBRARIES = ("polyvex", "torch", "transformers", "accelerate", "tokenizers", "safetensors", "pillow")


def make_lock(
    recipe: Recipe, registries: Registries, samples: Sequence[Sample], cache: TokenCache, *, left_out: Mapping[str, int]
) -> dict[str, Any]:
    """Everything outside the recipe that decides a run's result.

    Args:
        samples: what the run trains on and answers.
        left_out: number of samples of each split that are not among them, since an image cannot be read.
    """
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
        "weights_sha256": {name: store.about["weights_sha256"] for name, store in cache.stores.items()},
        "data_sha256": hash_data(samples, cache),
        "samples": len(samples),
        "left_out": dict(left_out),
        "images": len(cache.files.hashes),
        "unreadable_images": sorted(cache.unreadable),
    }


def hash_data(samples: Sequence[Sample], cache: TokenCache) -> str:
    """SHA-256 over every question, answer and image content, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        images = [cache.files.hashes.get(path, "unreadable") for path in sample.images]
        digest.update(json.dumps([sample.id, sample.question, sample.answer, images]).encode())
    return digest.hexdigest()
