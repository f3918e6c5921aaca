"""Axes: which values of a recipe vary, and how a value changes the recipe."""

import copy
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from polyvex.errors import RecipeError
from polyvex.recipe.model import FusionKeys, LMKeys
from polyvex.recipe.overrides import assign

SHORT = {"positions": "positions", "fusion": "fusion", "lm": "lm"}
"""Axes that name a whole component: its table is replaced by the one of that name, with default options."""


KEPT = {"fusion": tuple(FusionKeys.model_fields), "lm": tuple(LMKeys.model_fields)}
"""Keys of such a table that are not the component's own, and stay."""


def parse_axis(text: str) -> tuple[str, list[Any] | str]:
    """Read ``order=all``, ``positions=sequential,share_row`` or ``fusion.patches_per_token=2,4``.

    Raises:
        RecipeError: if there is no name or no value.
    """
    name, equals, values = text.partition("=")
    if not equals or not name.strip() or not values.strip():
        raise RecipeError([f"--axis {text}: expected name=value,value or order=all"], source="ablate")
    if name.strip() == "order" and values.strip() == "all":
        return "order", "all"
    return name.strip(), _values(values.strip(), order=name.strip() == "order")


def _values(text: str, *, order: bool) -> list[Any]:
    """A TOML list, or values between commas; of an order, encoders between ``+``."""
    if text.startswith("["):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise RecipeError([f"--axis: {text} is not a TOML list: {error}"], source="ablate") from None
    parts = [part.strip() for part in _split(text) if part.strip()]
    return [part.split("+") for part in parts] if order else [_value(part) for part in parts]


def _split(text: str) -> list[str]:
    """Parts between commas, but for those inside brackets, braces or quotes, as in ``{},{grids=[[2,2]]}``."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        else:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


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
    if values == "all":
        return [list(order) for order in itertools.permutations(encoders)]
    orders = [value.split("+") if isinstance(value, str) else list(value) for value in values]
    if bad := [order for order in orders if sorted(order) != sorted(encoders)]:
        known = "+".join(encoders)
        problems = [f"axis order: {'+'.join(order)} is not an order of {known}" for order in bad]
        raise RecipeError(problems, source="ablate")
    return orders


def apply(raw: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a resolved recipe (plain data, encoders named) with one combination of values."""
    data = copy.deepcopy(dict(raw))
    for name, value in cell.items():
        if name == "order":
            data["order"] = list(value)  # options that have one value per encoder go with it, as for every recipe
        elif name in SHORT and isinstance(value, str):
            if data[name].get("use") != value:
                data[name] = {"use": value, **{key: data[name][key] for key in KEPT.get(name, ()) if key in data[name]}}
        else:
            _change(data, name, _changes(name, value))
    return data


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


def _change(data: dict[str, Any], name: str, changes: Mapping[str, Any]) -> None:
    for path, value in changes.items():
        if problem := assign(data, path.split("."), value):
            raise RecipeError([f"axis {name}: {problem}"], source="ablate")


def label(cell: Mapping[str, Any]) -> str:
    """A cell in one line: ``order=a+b, positions=share_row``."""
    return ", ".join(
        f"{name}={'+'.join(map(str, value)) if isinstance(value, list) else value}" for name, value in cell.items()
    )
