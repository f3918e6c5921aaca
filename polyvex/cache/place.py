"""Where cached tokens live, and what makes two of them interchangeable."""

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs

from polyvex.encoders.weights import sha256_of
from polyvex.hooks.manager import Registries
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe

FOLDER = "POLYVEX_CACHE"
"""Environment variable: folder of the cache, instead of the platform's."""

FORMAT = 2


def cache_root(folder: str | Path | None = None) -> Path:
    """The cache's folder: the one given, else the environment's, else the platform's cache folder."""
    if folder is not None:
        return Path(folder)
    if named := os.environ.get(FOLDER):
        return Path(named)
    return platformdirs.user_cache_path("polyvex") / "tokens"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tokens of one encoder of a recipe are kept, and what they were made with."""

    encoder: str
    folder: Path
    about: dict[str, Any]


def places(recipe: Recipe, registries: Registries, *, root: Path) -> dict[str, Place]:
    """The place of each encoder's tokens, by the encoder's name in the recipe.

    Tokens are shared by all recipes whose encoder has the same plugin, options, weights and precision; order,
    fusion and positions do not matter, since tokens are kept as they leave the encoder.
    """
    found = {}
    for table, name in zip(recipe.encoders, encoder_names(recipe), strict=True):
        about = _about(table, recipe.cache.dtype, registries)
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        found[name] = Place(encoder=name, folder=root / f"{table.use}-{digest}", about=about)
    return found


def _about(table: Any, dtype: str, registries: Registries) -> dict[str, Any]:
    entry = registries.encoders.entry(table.use)
    weights = entry.component.weights(table).path
    return {
        "format": FORMAT,
        "encoder": table.use,
        "options": table.model_dump(exclude={"use", "name", "weights"}),
        "weights_sha256": sha256_of(weights) if weights else None,
        "dtype": dtype,
        "plugin": f"{entry.plugin.distribution} {entry.plugin.version}",
        "libraries": {name: version(name) for name in ("torch", "pillow")},
    }
