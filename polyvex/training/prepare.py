"""What training and evaluation share: samples, their cached tokens, and which samples are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polyvex.cache.encode import CacheReport, TokenCache, fill_cache
from polyvex.data.base import Sample
from polyvex.errors import DataError
from polyvex.hooks.manager import Registries
from polyvex.recipe.samples import read_split
from polyvex.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Samples of both splits whose images all have tokens, the cache, and how many samples were left out."""

    train: list[Sample]
    test: list[Sample]
    cache: TokenCache
    report: CacheReport
    skipped_train: int
    skipped_test: int


def prepare(
    recipe: Recipe,
    registries: Registries,
    *,
    folder: str | Path | None = None,
    progress: bool = True,
    refresh: bool = False,
) -> Prepared:
    """Read both splits and make sure that every readable image is in the cache.

    Args:
        refresh: encode images that are in the cache again.
    """
    train = list(read_split(recipe, registries, recipe.data.train_split))
    test = list(read_split(recipe, registries, recipe.data.test_split))
    if recipe.evaluation.limit:
        test = test[: recipe.evaluation.limit]
    cache, report = fill_cache(recipe, registries, [*train, *test], folder=folder, progress=progress, refresh=refresh)
    kept_train, kept_test = _readable(train, cache), _readable(test, cache)
    if not kept_train:
        raise DataError(f"none of the {len(train)} training samples has a readable image, so nothing can be trained")
    return Prepared(
        train=kept_train,
        test=kept_test,
        cache=cache,
        report=report,
        skipped_train=len(train) - len(kept_train),
        skipped_test=len(test) - len(kept_test),
    )


def _readable(samples: Sequence[Sample], cache: TokenCache) -> list[Sample]:
    return [sample for sample in samples if all(cache.has(path) for path in sample.images)]
