"""A recipe as plain data: parse TOML, and refuse what TOML allows but no recipe means."""

import tomllib
from collections.abc import Iterator
from typing import Any

DEEPEST = 32
"""Tables and lists inside one another."""

LARGEST = 2**63 - 1
"""The largest integer of TOML, which has 64 bits."""

LONGEST = 100_000
"""Characters of one text."""


def parse_toml(content: bytes) -> tuple[dict[str, Any], list[str]]:
    """Parse TOML in UTF-8, with or without a byte order mark; also return a sentence if it is not valid."""
    try:
        return tomllib.loads(content.decode("utf-8-sig")), []
    except RecursionError:
        return {}, ["not valid TOML: tables or lists are nested too deeply"]
    except UnicodeDecodeError as error:
        return {}, [f"not valid TOML: byte {error.start} is not UTF-8. Save the file as UTF-8"]
    except ValueError as error:  # also an integer of thousands of digits
        return {}, [f"not valid TOML: {error}"]


def find_excesses(data: Any) -> list[str]:
    """One sentence for each value that is nested too deeply, too large, too long, or contains a NUL character."""
    return list(_excesses(data))


def _excesses(data: Any) -> Iterator[str]:
    waiting: list[tuple[tuple[str, ...], Any]] = [((), data)]
    while waiting:  # not recursive: the depth is what is checked
        place, value = waiting.pop()
        if problem := _excess(value, len(place)):
            yield f"{_short('.'.join(place))}: {problem}"
        if len(place) > DEEPEST:
            continue
        if isinstance(value, dict):
            waiting += [((*place, str(key)), one) for key, one in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [((*place, str(index)), one) for index, one in reversed(list(enumerate(value)))]


def _excess(value: Any, depth: int) -> str:
    """What is wrong with one value, or nothing. Fast, since each cell of an ablation is checked."""
    if depth > DEEPEST:
        return f"nested more than {DEEPEST} levels deep"
    if isinstance(value, dict):
        return "a key contains a NUL character" if any("\0" in str(key) for key in value) else ""
    if isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
        return f"the integer has more than 64 bits; expected {-LARGEST - 1} to {LARGEST}"
    if isinstance(value, str) and len(value) > LONGEST:
        return f"the text has {len(value):,} characters; expected at most {LONGEST:,}"
    return "the text contains a NUL character" if isinstance(value, str) and "\0" in value else ""


def copy_plain(value: Any) -> Any:
    """A copy of plain data, tables and lists copied at every level: several times as fast as ``copy.deepcopy``."""
    if isinstance(value, dict):
        return {key: copy_plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [copy_plain(one) for one in value]
    return value


def _short(place: str) -> str:
    return place if len(place) <= 80 else f"{place[:77]}…"
