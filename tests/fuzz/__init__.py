"""Fuzzers for what people and other programs give polyvex: recipes, data lines, pictures, runs and the cache."""

from . import cache, lines, pictures, recipes, runs

KINDS = {
    "recipes": (recipes.trials, 500),
    "lines": (lines.trials, 200),
    "pictures": (pictures.trials, 300),
    "runs": (runs.trials, 100),
    "cache": (cache.trials, 50),
}
"""The fuzzer of each kind, and the number of mutants of a full round."""
