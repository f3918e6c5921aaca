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
        where = _short(".".join(place))
        if len(place) > DEEPEST:
            yield f"{where}: nested more than {DEEPEST} levels deep"
        elif isinstance(value, dict):
            waiting += [((*place, str(key)), one) for key, one in reversed(value.items())]
            yield from (f"{where}: a key contains a NUL character" for key in value if "\0" in str(key))
        elif isinstance(value, list):
            waiting += [((*place, str(index)), one) for index, one in reversed(list(enumerate(value)))]
        elif isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
            yield f"{where}: the integer has more than 64 bits; expected {-LARGEST - 1} to {LARGEST}"
        elif isinstance(value, str) and len(value) > LONGEST:
            yield f"{where}: the text has {len(value):,} characters; expected at most {LONGEST:,}"
        elif isinstance(value, str) and "\0" in value:
            yield f"{where}: the text contains a NUL character"


def _short(place: str) -> str:
    return place if len(place) <= 80 else f"{place[:77]}…"
