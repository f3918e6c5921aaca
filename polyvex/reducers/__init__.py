"""Reducers: fewer tokens of one encoder, before fusion."""

from collections.abc import Mapping

from polyvex.hooks import hookimpl
from polyvex.reducers.base import Reducer, ReducerOptions
from polyvex.reducers.grid import AttentionPool, AveragePool, Patches, PixelShuffle
from polyvex.reducers.keep import Keep
from polyvex.reducers.perceiver import Perceiver

__all__ = ["Reducer", "ReducerOptions", "register_reducers"]


@hookimpl
def register_reducers() -> Mapping[str, type[Reducer]]:
    """The reducers of the core."""
    return {
        "average_pool": AveragePool,
        "pixel_shuffle": PixelShuffle,
        "attention_pool": AttentionPool,
        "patches": Patches,
        "perceiver": Perceiver,
        "keep": Keep,
    }
