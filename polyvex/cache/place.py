"""Where cached tokens live, and what makes two of them interchangeable."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import platformdirs
import torch

from polyvex.cache.code import code_of
from polyvex.encoders.base import WeightsPlace
from polyvex.encoders.files import weight_files
from polyvex.encoders.precision import Precision, used
from polyvex.encoders.tiling import Tiling
from polyvex.encoders.weights import sha256_of
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Plugin
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe

FOLDER = "POLYVEX_CACHE"
"""Environment variable: folder of the cache, instead of the platform's."""

FORMAT = 5
"""Number of the way that tokens are computed and stored by this package; raise it when either changes."""

NO_NUMBERS = {"polyvex", "pydantic", "jaxtyping", "pytest"}
"""Requirements of plugins that no token depends on."""


NOT_IN_TOKENS = {"use", "name", "weights", "precision", "tune", "lora", "reduce", "positions"}
"""Keys of an encoder's table that are told elsewhere, or that frozen encoders' tokens do not depend on."""


def best_device() -> torch.device:
    """Where encoders run for the cache."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cache_root(folder: str | Path | None = None) -> Path:
    """The cache's folder: the one given, else the environment's, else the platform's cache folder."""
    if folder is not None:
        return Path(folder)
    if named := os.environ.get(FOLDER):
        return Path(named)
    return platformdirs.user_cache_path("polyvex") / "tokens"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tokens of one encoder of a recipe are kept, and what they are made with.

    ``unknown_code`` names classes without a source file, so that an edit of what they call goes unnoticed.
    """

    encoder: str
    folder: Path
    about: dict[str, Any]
    tiling: Tiling | None = None
    precision: Precision = "float32"
    unknown_code: tuple[str, ...] = ()


def places(
    recipe: Recipe, registries: Registries, *, root: Path, weights: Mapping[str, str | None] | None = None
) -> dict[str, Place]:
    """The place of each encoder's tokens, by the encoder's name in the recipe.

    Tokens are shared by all recipes whose encoder has the same plugin, code, options, weights and precision; order,
    fusion and positions do not matter, since tokens are kept as they leave the encoder.

    Args:
        weights: SHA-256 of each encoder's weights, by its name; of the weight files on this machine if not given.
    """
    found = {}
    for table, name in zip(recipe.encoders, encoder_names(recipe), strict=True):
        digested = weights[name] if weights else digest_of(registries.encoders[table.use].weights(table))
        entry = registries.encoders.entry(table.use)
        code = code_of(entry.component, entry.plugin.distribution)
        about = _about(table, recipe.cache.dtype, entry.plugin, digested) | {"code": code.digests}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        found[name] = Place(
            encoder=name,
            folder=root / f"{table.use}-{digest}",
            about=about,
            tiling=table.tiling,
            precision=table.precision,
            unknown_code=code.unknown,
        )
    return found


def digest_of(place: WeightsPlace | None) -> str | None:
    """SHA-256 of a weight file; of several files, of the list of theirs. None where there is none."""
    if place is None or place.path is None:
        return None
    digests = [sha256_of(path) for path in (*weight_files(place.path), *place.beside)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _about(table: Any, dtype: str, plugin: Plugin, weights: str | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "encoder": table.use,
        "options": {**table.model_dump(exclude=NOT_IN_TOKENS), "tiling": _tiles(table.tiling)},
        "computed_in": used(best_device(), table.precision),
        "weights_sha256": weights,
        "dtype": dtype,
        "plugin": f"{plugin.distribution} {plugin.version}",
        "libraries": _libraries(plugin.distribution),
    }


def _tiles(tiling: Tiling | None) -> dict[str, Any] | None:
    """What of a tiling decides the tiles themselves; the rest comes behind the fusion."""
    if tiling is None:
        return None
    return {"grids": tiling.grids, "base": tiling.base, "squash": tiling.fit == "squash"}


def _libraries(distribution: str) -> dict[str, str]:
    """Versions of what tokens depend on: torch, Pillow, and what the plugin's distribution requires itself."""
    try:
        required = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in requires(distribution) or []]
    except PackageNotFoundError:  # passed by hand, in a test or a notebook
        required = []
    found = {}
    for name in sorted({"torch", "pillow", *map(str.lower, required)} - NO_NUMBERS):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
