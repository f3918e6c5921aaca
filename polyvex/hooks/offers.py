"""What a hook returned: a mapping from name to class, each of which declares what listings and recipes ask it for."""

import re
from collections.abc import Mapping
from typing import Any

from polyvex.errors import PluginError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""What a component may be called: its name stands in recipes, after dots and between commas."""


def checked_offer(kind: str, result: object) -> dict[str, type]:
    """The mapping from name to class that the hook ``register_<kind>`` has to return.

    Every recipe is read against all components that are installed, so one that lacks what they are asked for would
    stop commands that never name it.

    Raises:
        PluginError: if it is no such mapping, or a name or a class in it cannot be used.
    """
    if not isinstance(result, Mapping):
        raise PluginError(f"register_{kind} returned {type(result).__name__}, expected a mapping from name to class")
    for name, component in result.items():
        if not isinstance(name, str):
            raise PluginError(f"register_{kind}: the name {name!r} is no text, expected what recipes may write")
        if not NAME.fullmatch(name):
            raise PluginError(
                f"register_{kind}: the name {name!r} cannot stand in a recipe, expected small letters, digits, - and _"
            )
        if problem := _problem(component, _bases()[kind]):
            raise PluginError(f"register_{kind}: '{name}' {problem}")
    return dict(result)


def _problem(component: Any, base: type) -> str:
    """Why a class cannot be listed or named in recipes; empty if it can."""
    if not isinstance(component, type) or not issubclass(component, base):
        return f"is {component!r}, expected a subclass of {base.__name__}"
    if abstract := sorted(getattr(component, "__abstractmethods__", ())):
        return f"does not implement {', '.join(abstract)} of {base.__name__}"
    summary = getattr(component, "summary", None)
    if not isinstance(summary, str) or not summary.strip():
        return f"has the summary {summary!r}, expected one line for listings"
    own = getattr(base, "Options", None)
    given = getattr(component, "Options", None)
    if own is not None and not (isinstance(given, type) and issubclass(given, own)):
        return f"has the Options {given!r}, expected a subclass of {own.__name__}"
    return ""


def _bases() -> dict[str, type]:
    """The class that components of each kind derive from."""
    from polyvex.data.base import Dataset
    from polyvex.encoders.base import VisionEncoder
    from polyvex.evaluation.base import Metric
    from polyvex.fusion.base import Fusion
    from polyvex.lm.base import LanguageModel
    from polyvex.moe.routers import Router
    from polyvex.positions.base import PositionScheme
    from polyvex.reducers.base import Reducer

    return {
        "encoders": VisionEncoder,
        "reducers": Reducer,
        "fusions": Fusion,
        "position_schemes": PositionScheme,
        "routers": Router,
        "language_models": LanguageModel,
        "datasets": Dataset,
        "metrics": Metric,
    }
