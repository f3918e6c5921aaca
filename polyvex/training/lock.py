"""The lock of a run: versions, hashes and seeds, so that it can be repeated, or told apart from one that cannot."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from polyvex.cache.code import code_of
from polyvex.cache.encode import TokenCache
from polyvex.cache.place import digest_of
from polyvex.data.base import Sample
from polyvex.encoders.base import WeightsPlace
from polyvex.hooks.manager import Registries
from polyvex.processes import Processes
from polyvex.recipe.differences import differences
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe
from polyvex.recipe.start import Start
from polyvex.records.files import read_record
from polyvex.records.run import WeightsLock
from polyvex.training.prepare import Prepared

LIBRARIES = ("polyvex", "torch", "transformers", "accelerate", "peft", "tokenizers", "safetensors", "pillow")


def make_lock(
    recipe: Recipe,
    registries: Registries,
    data: Prepared,
    *,
    start: Start | None = None,
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Everything outside the recipe that decides a run's result.

    Args:
        start: the weights that the run begins with, if they come from another run and still matter.
        processes: those that train together; one if not given.
    """
    cache = data.cache
    # A start brings the fusion's weights too, so that its file is not read.
    fusion = registries.fusions[recipe.fusion.use].weights(recipe.fusion) if recipe.start is None else None
    begun = WeightsPlace(path=start.weights, install="") if start is not None else None
    return {
        "seed": recipe.seed,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "replicas": (processes or Processes()).replicas,
        "libraries": {name: version(name) for name in LIBRARIES},
        "plugins": {
            status.plugin.name: f"{status.plugin.distribution} {status.plugin.version}"
            for status in registries.plugins
            if status.state == "loaded"
        },
        "code": encoder_code(recipe, registries),
        "weights_sha256": cache.weights_sha256,
        "fusion_sha256": digest_of(fusion),
        "start_sha256": digest_of(begun),
        "data_sha256": {"train": hash_data(data.train, cache), "test": hash_data(data.test, cache)},
        "counts": {"train": len(data.train), "test": len(data.test)},
        "samples": len(data.train) + len(data.test),
        "left_out": {"train": data.skipped_train, "test": data.skipped_test},
        "images": len(cache.files.hashes),
        "unreadable_images": sorted(cache.unreadable),
    }


def encoder_code(recipe: Recipe, registries: Registries) -> dict[str, dict[str, str]]:
    """The digest of each file of code that decides an encoder's tokens, by the encoder's name, then the file's."""
    entries = [registries.encoders.entry(table.use) for table in recipe.encoders]
    codes = [code_of(entry.component, entry.plugin.distribution).digests for entry in entries]
    return dict(zip(encoder_names(recipe), codes, strict=True))


def other_encoders(start: Start, weights_sha256: Mapping[str, str | None]) -> list[str]:
    """Where encoders of one name have other weights than in the run that is started from, one line for each.

    Args:
        weights_sha256: digests here, by name, of the encoders that keep the weights of their own files.
    """
    path = start.run / "lock.json"
    if not path.is_file():
        return [f"the weights of {', '.join(weights_sha256)}: not known there (no lock.json)"] if weights_sha256 else []
    there = read_record(path, WeightsLock).weights_sha256
    both = [name for name in weights_sha256 if name in there]
    return list(
        differences({name: there[name] for name in both}, {name: weights_sha256[name] for name in both}, "weights of")
    )


def hash_data(samples: Sequence[Sample], cache: TokenCache) -> str:
    """SHA-256 over every question, its correct answers and image contents, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        images = [cache.files.hashes.get(path, "unreadable") for path in sample.images]
        several = [list(sample.answers)] if sample.answers else []
        digest.update(json.dumps([sample.id, sample.question, sample.answer, sample.kind, images, *several]).encode())
    return digest.hexdigest()
