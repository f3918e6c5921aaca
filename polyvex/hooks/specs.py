"""Every hook that a plugin can implement, on one page.

A plugin is an installed package with an entry point in the group ``polyvex``, whose module has functions marked
``@hookimpl`` and named as below. Each hook is called once, without arguments, and returns a mapping from the name
that recipes use to the class that it builds. Names are exact; two plugins that register one name are an error.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from polyvex.data.base import Dataset
    from polyvex.encoders.base import VisionEncoder
    from polyvex.evaluation.base import Metric
    from polyvex.fusion.base import Fusion
    from polyvex.lm.base import LanguageModel
    from polyvex.moe.routers import Router
    from polyvex.positions.base import PositionScheme
    from polyvex.reducers.base import Reducer

GROUP = "polyvex"
"""The entry-point group, and the name that hook markers carry."""

CONTRACT = 1
"""Number of the contract between polyvex and plugins: these hooks, and the classes that components derive from.

It grows when plugins that were written for it would no longer work. A plugin's module may say which it was written
for, ``POLYVEX_CONTRACT = 1``; one that says another number is listed as broken, with the reason.
"""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_encoders() -> "Mapping[str, type[VisionEncoder]]":  # type: ignore[empty-body]
    """Return encoders: networks that turn an image into visual tokens."""


@hookspec
def register_reducers() -> "Mapping[str, type[Reducer]]":  # type: ignore[empty-body]
    """Return reducers: fewer tokens of one encoder, before fusion."""


@hookspec
def register_fusions() -> "Mapping[str, type[Fusion]]":  # type: ignore[empty-body]
    """Return fusions: the tokens of all encoders to one sequence of the language model's width."""


@hookspec
def register_position_schemes() -> "Mapping[str, type[PositionScheme]]":  # type: ignore[empty-body]
    """Return position schemes: the layout of a sequence to position ids."""


@hookspec
def register_routers() -> "Mapping[str, type[Router]]":  # type: ignore[empty-body]
    """Return routers: which experts each token goes to, and with what weights."""


@hookspec
def register_language_models() -> "Mapping[str, type[LanguageModel]]":  # type: ignore[empty-body]
    """Return language models: where a Hugging Face causal language model and its tokenizer come from."""


@hookspec
def register_datasets() -> "Mapping[str, type[Dataset]]":  # type: ignore[empty-body]
    """Return data sets: images, questions and answers by split."""


@hookspec
def register_metrics() -> "Mapping[str, type[Metric]]":  # type: ignore[empty-body]
    """Return metrics: how right one answer is, from 0 to 1."""
