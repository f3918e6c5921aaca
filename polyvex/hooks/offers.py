"""What a hook returned: a mapping from name to class, each of which declares what listings and recipes ask it for."""

import re
from collections.abc import Mapping

from polyvex.errors import PluginError
from polyvex.hooks.declared import declaration_problems

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""What a component may be called: its name stands in recipes, after dots and between commas."""


def checked_offer(kind: str, result: object) -> dict[str, type]:
    """The mapping from name to class that the hook ``register_<kind>`` has to return.

    Every recipe is read against all components that are installed, so one that lacks what they are asked for would
    stop commands that never name it.

    Raises:
        PluginError: if it is no such mapping, or names or classes in it cannot be used. Lists every problem.
    """
    if not isinstance(result, Mapping):
        raise PluginError(
            f"register_{kind} returned {type(result).__name__}, expected a mapping from name to class. "
            'Write: return {"my-name": MyClass}',
            code="plugin-hook",
        )
    problems = [problem for name, component in result.items() for problem in _problems(kind, name, component)]
    if problems:
        raise PluginError(f"register_{kind}: {'; '.join(problems)}", code="plugin-component")
    return dict(result)


def _problems(kind: str, name: object, component: object) -> list[str]:
    if not isinstance(name, str):
        return [f"the name {name!r} is no text, expected what recipes may write"]
    if not NAME.fullmatch(name):
        return [f"the name {name!r} cannot stand in a recipe, expected small letters, digits, - and _"]
    return [f"'{name}' {problem}" for problem in declaration_problems(component, _bases()[kind])]


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
