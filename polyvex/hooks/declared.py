"""What is wrong with the declaration of a component's class, found without making an instance."""

import inspect
from collections.abc import Iterator
from typing import Any, get_args

from polyvex.options import Options


def declaration_problems(component: Any, base: type) -> list[str]:
    """Why a class cannot be listed, named in recipes or called by polyvex; empty if it can.

    Every problem is a predicate, to be put behind the component's name: ``has no summary ...``.
    """
    if isinstance(component, base):
        return [f"is an instance of {type(component).__name__}; register the class itself, without parentheses"]
    if not isinstance(component, type) or not issubclass(component, base):
        return [f"is {component!r}, expected a subclass of {base.__name__}"]
    found = []
    if abstract := sorted(getattr(component, "__abstractmethods__", ())):
        found.append(f"does not implement {', '.join(abstract)} of {base.__name__}")
    summary = getattr(component, "summary", None)
    if not isinstance(summary, str) or not summary.strip():
        found.append(f"has the summary {summary!r}, expected one line for listings")
    return [*found, *_options_problems(component, base), *_member_problems(component, base)]


def _options_problems(component: type, base: type) -> Iterator[str]:
    own, given = getattr(base, "Options", None), getattr(component, "Options", None)
    if own is None:
        return
    if not (isinstance(given, type) and issubclass(given, own)):
        yield f"has the Options {given!r}, expected a subclass of {own.__name__}"
        return
    named = _options_parameter(component)
    if named is not None and not issubclass(given, named):
        yield (
            f"is declared with {named.__name__} but has the Options {given.__name__}. "
            f"Add to the class: Options = {named.__name__}"
        )


def _options_parameter(component: type) -> type | None:
    """``MyOptions`` of ``class Mine(Fusion[MyOptions])``; None without one."""
    for one in component.__mro__:
        for parent in vars(one).get("__orig_bases__", ()):
            for argument in get_args(parent):
                if isinstance(argument, type) and issubclass(argument, Options):
                    return argument
    return None


def _member_problems(component: type, base: type) -> Iterator[str]:
    """Members that differ in kind from those of the base, or that do not accept the arguments that polyvex passes."""
    for name in [*(name for name in dir(base) if not name.startswith("_")), "__init__"]:
        wanted, given = inspect.getattr_static(base, name), inspect.getattr_static(component, name)
        if given is wanted or name == "Options":
            continue
        if isinstance(wanted, classmethod) and not isinstance(given, classmethod):
            yield f"has {name} without @classmethod, expected: @classmethod def {name}(cls, ...)"
        elif isinstance(wanted, property) and callable(given):
            yield f"has {name} as a method, expected a value. Write @property above it"
        elif isinstance(wanted, bool) and not isinstance(given, bool | property):
            yield f"has {name} = {given!r}, expected True or False"
        elif inspect.isfunction(wanted) and isinstance(given, classmethod | staticmethod):
            yield f"has {name} as a {type(given).__name__}, expected a method: def {name}(self, ...)"
        elif inspect.isfunction(wanted) or isinstance(wanted, classmethod) or name == "__init__":
            yield from _call_problem(component, base, name)


def _call_problem(component: type, base: type, name: str) -> Iterator[str]:
    wanted, given = (_signature(one, name) for one in (base, component))
    if wanted is None or given is None:
        return
    parameters = wanted.parameters.values()
    if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters):
        return  # the base leaves the arguments to the component
    needed = [one for one in parameters if one.default is one.empty]
    positional = [one.name for one in needed if one.kind is not one.KEYWORD_ONLY]
    named = {one.name: None for one in needed if one.kind is one.KEYWORD_ONLY}
    try:
        given.bind(*positional, **named)
    except TypeError as error:
        call = ", ".join([*positional, *(f"{one}=..." for one in named)])
        method, callee = ("a constructor", component.__name__) if name == "__init__" else (name, name)
        yield f"has {method} with the arguments {given}, but polyvex calls {callee}({call}): {error}"


def _signature(owner: type, name: str) -> inspect.Signature | None:
    """How a member is called from outside: without ``self`` and ``cls``. None if Python cannot tell."""
    try:
        if name == "__init__":
            return inspect.signature(owner)
        member = inspect.getattr_static(owner, name)
        signature = inspect.signature(member.__func__ if isinstance(member, classmethod) else member)
    except (TypeError, ValueError):
        return None
    return signature.replace(parameters=list(signature.parameters.values())[1:])
