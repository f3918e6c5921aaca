"""Change values of a recipe before it is checked: ``--set a.b=c``, the values of an axis, ``[ablation.set]``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from polyvex.recipe.plain import copy_plain
from polyvex.recipe.schema import numbered
from polyvex.recipe.values import parse_value
from polyvex.recipe.walk import Model, choices_at, component_class, get, names_of

Place = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One assignment. ``source`` is how messages refer to it, such as ``--set a.b=c``."""

    source: str
    path: str
    value: Any


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A key that was removed from a table, since the component that the table names now does not take it.

    ``default`` tells that the value was the default of the component before, so that nothing chosen is lost.
    """

    source: str
    use: str
    key: str
    value: Any
    default: bool


def describe_dropped(dropped: Iterable[Dropped]) -> list[str]:
    """One sentence for each change that dropped keys, each sentence once."""
    keys: dict[tuple[str, str], dict[str, Any]] = {}
    for one in dropped:
        keys.setdefault((one.source, one.use), {})[one.key] = one.value
    return [
        f"{source}: dropped {', '.join(f'{key} = {value!r}' for key, value in found.items())}, which '{use}' does not "
        f"accept"
        for (source, use), found in keys.items()
    ]


@dataclass(kw_only=True)
class Changed:
    """A changed copy of a recipe; a sentence for each change that could not be made; and the keys that were dropped."""

    data: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


def read_overrides(overrides: Sequence[str]) -> tuple[list[Change], list[str]]:
    """Read ``a.b=c`` from the command line; also return a sentence for each that cannot be read."""
    changes, problems = [], []
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            problems.append(f"--set {override}: expected a.b=c")
            continue
        path = path.strip()
        changes.append(Change(source=f"--set {override}", path=path, value=parse_value(text, order=path == "order")))
    return changes, problems


def apply_changes(raw: Mapping[str, Any], changes: Sequence[Change], model: Model | None = None) -> Changed:
    """Make changes in a copy of ``raw``.

    A step of a path is a key, the number of a list's item (from 0), or an item's ``name`` or ``use`` before all
    changes: ``encoders.dinov2-s.image_size=224``, ``stages.align.steps=10``. Missing tables are made on the way. A text
    assigned to a table that names a component, ``fusion=gated``, means its ``use``. Another ``use`` keeps the options
    that were set and that the new component accepts. ``false`` removes an item of a list.

    Tables are changed before their keys, so that the order of changes to different places does not matter; of two
    changes to one place, the later one wins.

    Args:
        model: the class that checks the recipe. Without it, no table is known to name a component.
    """
    result = Changed(data=copy_plain(dict(raw)))
    placed: list[tuple[Place, Change]] = []
    for change in changes:
        place = _place(raw, change.path.split("."))
        if place[-1:] == ("use",) and isinstance(change.value, str):
            place = place[:-1]
        placed.append((place, change))
    removed: list[Place] = []
    for place, change in sorted(placed, key=lambda one: len(one[0])):
        if change.value is False and isinstance(place[-1], int) and isinstance(_at(raw, place), dict):
            removed.append(place)
        elif change.path == "order" and isinstance(change.value, str):
            continue
        elif problem := _make(result, place, change, model):
            result.problems.append(f"{change.source}: {problem}")
    for place in sorted(removed, reverse=True):
        del _at(result.data, place[:-1])[place[-1]]
    for change in changes:
        if change.path == "order" and isinstance(change.value, str) and (problem := _reorder(result.data, change)):
            result.problems.append(f"{change.source}: {problem}")
    return result


def _make(result: Changed, place: Place, change: Change, model: Model | None) -> str:
    """Make one change in place; return why that is impossible, or nothing."""
    switches = isinstance(change.value, str) and model is not None
    choices = choices_at(model, place, result.data) if switches and model is not None else []
    if any(names_of(one) for one in choices):
        if problem := assign(result.data, [*place], _at(result.data, place) or {}):
            return problem
        table = _at(result.data, place)
        if isinstance(table, dict):
            new, dropped = _switched(table, change, choices)
            result.dropped += dropped
            table.clear()
            table.update(new)
            return ""
    ends_in_use = change.path.rpartition(".")[2] == "use" and isinstance(change.value, str)
    return assign(result.data, [*place, "use"] if ends_in_use else [*place], change.value)


def _switched(table: dict[str, Any], change: Change, choices: Sequence[Model]) -> tuple[dict[str, Any], list[Dropped]]:
    """The table of another component with the options that were set and that it accepts, and those it does not."""
    old, new = component_class(choices, table.get("use")), component_class(choices, change.value)
    if new is None or table.get("use") == change.value:  # an unknown name is reported when the recipe is checked
        return {**table, "use": change.value}, []
    options = {key: value for key, value in table.items() if key != "use"}
    refused = _refused(new, {"use": change.value, **options})
    plain = {key for key, value in options.items() if old is not None and _is_default(old, key, value)}
    dropped = [
        Dropped(source=change.source, use=change.value, key=key, value=value, default=key in plain)
        for key, value in options.items()
        if key in refused
    ]
    return {"use": change.value, **{k: v for k, v in options.items() if k not in refused | plain}}, dropped


def _refused(model: Model, table: dict[str, Any]) -> set[str]:
    """Keys of a table that a class does not accept."""
    try:
        model.model_validate(table)
    except ValidationError as error:
        return {str(one["loc"][0]) for one in error.errors() if one["loc"] and one["loc"][0] in table}
    return set()


def _is_default(model: Model, key: str, value: Any) -> bool:
    known = model.model_fields.get(key)
    return known is not None and not known.is_required() and value == known.get_default(call_default_factory=True)


def _place(raw: Any, steps: Sequence[str]) -> Place:
    """A path with the items of lists by number, as far as they are there."""
    place: list[str | int] = []
    here: Any = raw
    for step in steps:
        item = _item(here, step) if isinstance(here, list) else None
        place.append(step if item is None else item)
        here = here[item] if item is not None else here.get(step) if isinstance(here, dict) else None
    return tuple(place)


def _at(data: Any, place: Place) -> Any:
    for step in place:
        data = get(data, step)
    return data


def assign(data: dict[str, Any], steps: Sequence[str | int], value: Any) -> str:
    """Set a value by its path, in place; return why that is impossible, or nothing."""
    here: Any = data
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        if isinstance(here, list):
            item = step if isinstance(step, int) else _item(here, step)
            if item is None:
                names = [str(entry.get("name") or entry.get("use")) for entry in here if isinstance(entry, dict)]
                where = ".".join(map(str, steps[:index]))
                return f"'{where}' has no item '{step}'; it has {', '.join(names)}, or numbers from 0"
            if last:
                here[item] = value
            here = here[item]
        elif isinstance(here, dict):
            if last:
                here[str(step)] = value
            elif here.get(str(step)) is None or here[str(step)] is False:  # both mean that there is no such table
                here[str(step)] = {}
            here = here[str(step)]
        else:
            return f"'{'.'.join(map(str, steps[:index]))}' is {here!r}, not a table"
    return ""


def _item(items: list[Any], step: str) -> int | None:
    if step.isdecimal() and int(step) < len(items):
        return int(step)
    for key in ("name", "use"):
        for index, entry in enumerate(items):
            if isinstance(entry, dict) and entry.get(key) == step:
                return index
    return None


def _reorder(data: dict[str, Any], change: Change) -> str:
    """``order=reversed``: the encoders of the recipe the other way round."""
    if change.value != "reversed":
        return "stands for several orders, so only an axis takes it: polyvex ablate … --axis order=all"
    tables = [table for table in data.get("encoders") or [] if isinstance(table, dict)]
    names = data.get("order") or numbered([str(table.get("name") or table.get("use")) for table in tables])
    data["order"] = [*reversed(names)]
    return ""
