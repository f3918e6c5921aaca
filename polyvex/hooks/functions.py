"""Check a plugin's hook functions before they are registered: marked, known, without arguments."""

import inspect
from typing import Any

from polyvex.errors import PluginError
from polyvex.hooks import specs
from polyvex.hooks.registry import Plugin, unknown

MARK = f"{specs.GROUP}_impl"
"""Attribute that ``@hookimpl`` sets on a function."""

KNOWN = [name for name, _ in inspect.getmembers(specs, inspect.isfunction) if name.startswith("register_")]


def check_hooks(namespace: Any, plugin: Plugin) -> None:
    """A plugin has at least one hook, and every hook can be called.

    Args:
        namespace: the object that the entry point names: a module, or an instance with hooks as methods.

    Raises:
        PluginError: lists every problem, with the correction.
    """
    found = {name: getattr(namespace, name, None) for name in dir(namespace)}
    marked = {name: value for name, value in found.items() if callable(value) and getattr(value, MARK, None)}
    unmarked = [name for name in KNOWN if name in found and name not in marked]
    problems = [f"{name}: not marked as a hook. Write @hookimpl of polyvex.hooks above it" for name in unmarked]
    problems += [f"plugin {plugin}: {unknown('hook', name, KNOWN)}" for name in marked if name not in KNOWN]
    if inspect.isclass(namespace) or inspect.isroutine(namespace):
        kind = "class" if inspect.isclass(namespace) else "function"
        problems.append(
            f"the entry point names the {kind} {namespace.__name__}; it must name the module that has the hooks: "
            f'"{namespace.__module__}" without a colon'
        )
    elif not marked and not unmarked:
        problems.append(
            f"plugin {plugin.name} registers nothing: no hook found. Write a function such as register_encoders, with "
            "@hookimpl of polyvex.hooks above it, in the module that the entry point names"
        )
    else:
        problems += [
            f"{name} takes the arguments {arguments}, but hooks are called without any. Write: def {name}():"
            for name, hook in marked.items()
            if name in KNOWN and (arguments := _required(hook))
        ]
    if problems:
        raise PluginError("; ".join(problems), code="plugin-hook")


def _required(hook: Any) -> str:
    parameters = inspect.signature(hook).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return ", ".join(one.name for one in parameters if one.default is one.empty and one.kind not in variable)
