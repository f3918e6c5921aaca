"""Values as people write them after ``=``, for ``--set`` and ``--axis`` alike: TOML, but plain words need no quotes."""

import re
import tomllib
from typing import Any

WORD = r"[A-Za-z0-9_][A-Za-z0-9_./*-]*"
WORDS = re.compile(rf"\[\s*{WORD}(\s*,\s*{WORD})+\s*,?\s*\]")
PAIR = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=(.*)", re.DOTALL)

ORDER_WORDS = ("all", "reversed")
"""Orders of the encoders that have a name. ``all`` stands for several, so only an axis takes it."""

_NOT_TOML = object()


def parse_value(text: str, *, order: bool = False) -> Any:
    """Read one value: TOML, ``[a, b]`` or ``{use = a}`` with plain words, and else the text itself.

    Args:
        order: the value is an order of the encoders, so ``a+b`` is also a list.
    """
    text = text.strip()
    value = _toml(text)
    if value is _NOT_TOML:
        value = _words(text)
    if order and isinstance(value, str) and value not in ORDER_WORDS:
        return [name.strip() for name in value.split("+")]
    return value


def parse_values(text: str, *, order: bool = False) -> list[Any]:
    """Read several values: one TOML list of them, or values between commas."""
    parts = [part.strip() for part in split(text) if part.strip()]
    if len(parts) == 1 and parts[0].startswith("["):
        value = parse_value(parts[0])
        if isinstance(value, list):
            return [value] if order and is_one_order(value) else value
    return [parse_value(part, order=order) for part in parts]


def is_one_order(value: list[Any]) -> bool:
    """Whether a list names encoders, ``["a", "b"]``, rather than holding several orders, ``["a+b", "b+a"]``."""
    return bool(value) and all(isinstance(one, str) and "+" not in one and one not in ORDER_WORDS for one in value)


def split(text: str) -> list[str]:
    """Parts between commas, except those inside brackets, braces or quotes, as in ``{},{grids=[[2,2]]}``."""
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


def _toml(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # also an integer of thousands of digits
        return _NOT_TOML
    return parsed["value"] if len(parsed) == 1 else _NOT_TOML  # a line break would begin another key


def _words(text: str) -> Any:
    """A list of words, a table with words as values, or the text itself."""
    if WORDS.fullmatch(text):
        return [_or_text(word.strip()) for word in text[1:-1].split(",") if word.strip()]
    if text.startswith("{") and text.endswith("}"):
        pairs = [PAIR.fullmatch(part) for part in split(text[1:-1]) if part.strip()]
        found = {pair[1]: _or_text(pair[2].strip()) for pair in pairs if pair}
        if pairs and len(found) == len(pairs):
            return found
    return text


def _or_text(text: str) -> Any:
    value = _toml(text)
    return text if value is _NOT_TOML else value
