"""Where two recipes, or two of their tables, differ as plain data."""

from collections.abc import Iterator
from typing import Any


def differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    """Say where two recipes differ, one line per value."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            path = f"{where}.{key}" if where else key
            if key not in here:
                yield f"{path}: {_shown(there[key])} there, missing here"
            elif key not in there:
                yield f"{path}: missing there, {_shown(here[key])} here"
            else:
                yield from differences(there[key], here[key], path)
    elif isinstance(there, list) and isinstance(here, list) and (len(there) == len(here) or _has_tables(there + here)):
        if len(there) != len(here):
            yield f"{where}: {len(there)} tables there, {len(here)} here"
        for index, (old, new) in enumerate(zip(there, here, strict=False)):
            yield from differences(old, new, f"{where}.{index}")
    elif there != here:
        yield f"{where}: {there!r} there, {here!r} here"


def _shown(value: Any) -> str:
    return "a table" if isinstance(value, dict) else repr(value)


def _has_tables(values: list[Any]) -> bool:
    return any(isinstance(value, dict) for value in values)
