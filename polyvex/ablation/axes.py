"""Axes: which values of a recipe vary, and how a value changes the recipe."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from polyvex.errors import RecipeError
from polyvex.recipe.overrides import Change, Changed, apply_changes
from polyvex.recipe.values import is_one_order, parse_values
from polyvex.recipe.walk import Model


def parse_axis(text: str) -> tuple[str, list[Any] | str]:
    """Read ``order=all``, ``positions=sequential,share_row`` or ``fusion.patches_per_token=2,4``.

    Names and values are written as for ``--set``; see :mod:`polyvex.recipe.values`.

    Raises:
        RecipeError: if there is no name or no value.
    """
    name, equals, values = text.partition("=")
    if not equals or not name.strip() or not values.strip():
        raise RecipeError([f"--axis {text}: expected name=value,value or order=all"], source="ablate")
    name, order = name.strip(), name.strip() == "order"
    found = parse_values(values, order=order)
    return name, found[0] if order and found == ["all"] else found


def expand(axes: Mapping[str, list[Any] | str], encoders: Sequence[str]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, the first axis slowest. Orders are lists of encoder names.

    Raises:
        RecipeError: if an order does not have exactly the recipe's encoders.
    """
    columns = {name: _orders(values, encoders) if name == "order" else list(values) for name, values in axes.items()}
    if empty := [name for name, values in columns.items() if not values]:
        raise RecipeError([f"axis {name} has no value" for name in empty], source="ablate")
    return [dict(zip(columns, combination, strict=True)) for combination in itertools.product(*columns.values())]


def _orders(values: list[Any] | str, encoders: Sequence[str]) -> list[list[str]]:
    if isinstance(values, str) or is_one_order(values):
        values = [values]
    orders: list[list[str]] = []
    for value in values:
        if value == "all":
            orders += [list(order) for order in itertools.permutations(encoders)]
        elif value == "reversed":
            orders.append([*reversed(encoders)])
        else:
            orders.append(value.split("+") if isinstance(value, str) else list(value))
    if bad := [order for order in orders if sorted(order) != sorted(encoders)]:
        known = "+".join(encoders)
        problems = [f"axis order: {'+'.join(order)} is not an order of {known}" for order in bad]
        raise RecipeError(problems, source="ablate")
    return orders


def apply(raw: Mapping[str, Any], cell: Mapping[str, Any], model: Model) -> Changed:
    """A copy of a resolved recipe (plain data, encoders named) with one combination of values.

    Args:
        model: the class that checks recipes; it knows which tables name a component.

    Raises:
        RecipeError: if a path leads nowhere.
    """
    changes = [
        Change(source=f"axis {name}", path=path, value=one)
        for name, value in cell.items()
        for path, one in _changes(name, value).items()
    ]
    changed = apply_changes(raw, changes, model)
    if changed.problems:
        raise RecipeError(changed.problems, source="ablate")
    return changed


def _changes(name: str, value: Any) -> dict[str, Any]:
    """The values by path that an axis assigns; an axis ``set`` assigns several at a time."""
    if name != "set":
        return {name: value}
    if not isinstance(value, dict):
        raise RecipeError(
            [f"axis set: got {value!r}, expected a table of paths and values, such as {{'encoders.0.tune' = 'lora'}}"],
            source="ablate",
        )
    return value


def label(cell: Mapping[str, Any]) -> str:
    """A cell in one line: ``order=a+b, positions=share_row``."""
    return ", ".join(plain(value) if name == "set" else f"{name}={plain(value)}" for name, value in cell.items())


def plain(value: Any) -> str:
    """A value of an axis in words: lists with ``+`` between, tables as ``key=value``, an empty one as ``no change``."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(one)}" for key, one in value.items()) or "no change"
    if isinstance(value, list | tuple):
        return "+".join(f"({plain(one)})" if isinstance(one, dict | list) else plain(one) for one in value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
