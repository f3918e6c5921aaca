"""``--set a.b=c``: change values of a recipe before it is checked."""

import copy
import tomllib
from collections.abc import Sequence
from typing import Any


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return a changed copy of ``raw``, and a sentence for each change that could not be made.

    A step of a path is a key, the number of a list's item (from 0), or an item's ``name`` or ``use``:
    ``encoders.dinov2-s.image_size=224``, ``stages.align.steps=10``, ``positions.use=share_row``. Missing tables
    are made on the way. The value is read as TOML, and as plain text if it is not TOML.
    """
    data = copy.deepcopy(raw)
    problems = []
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            problems.append(f"--set {override}: expected a.b=c")
            continue
        if problem := assign(data, path.strip().split("."), _value(text.strip())):
            problems.append(f"--set {override}: {problem}")
    return data, problems


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def assign(data: dict[str, Any], steps: list[str], value: Any) -> str:
    """Set a value by its path, in place; return why that is impossible, or nothing."""
    here: Any = data
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        if isinstance(here, list):
            item = _item(here, step)
            if item is None:
                names = [str(entry.get("name") or entry.get("use")) for entry in here if isinstance(entry, dict)]
                return f"'{'.'.join(steps[:index])}' has no item '{step}'; it has {', '.join(names)}, or numbers from 0"
            if last:
                here[item] = value
            here = here[item]
        elif isinstance(here, dict):
            if last:
                here[step] = value
            here = here.setdefault(step, {})
        else:
            return f"'{'.'.join(steps[:index])}' is {here!r}, not a table"
    return ""


def _item(items: list[Any], step: str) -> int | None:
    if step.isdecimal() and int(step) < len(items):
        return int(step)
    for key in ("name", "use"):
        for index, entry in enumerate(items):
            if isinstance(entry, dict) and entry.get(key) == step:
                return index
    return None
