"""Text that is safe to show: a terminal must not obey what a run, a recipe, a model or a file name contains."""

import re
from typing import Any

UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f"  # C0 without tab and newline: escape sequences, carriage returns, backspaces
    "\x80-\x9f"  # C1: one-byte forms of the same sequences
    "\u202a-\u202e\u2066-\u206f\ufeff"  # bidi overrides and isolates, which reorder text; the byte order mark
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # lone surrogates, which no encoding can write
    "\U000e0000-\U000e007f"  # invisible tags
    "]"
)
"""Characters that control a terminal, hide or reorder text, or cannot be encoded."""


def printable(text: Any) -> str:
    r"""``text`` with every unsafe character written as its escape, such as ``\x1b`` or ``\u202e``.

    Tabs and newlines stay. Text without unsafe characters is returned unchanged.
    """
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), str(text))


def one_line(text: Any) -> str:
    """:func:`printable` text without tabs and line breaks."""
    return re.sub(r"[\t\n]+", " ", printable(text))


def printable_json(text: str) -> str:
    r"""JSON with every unsafe character written as ``\uXXXX``: it is safe to show and means the same."""
    return UNSAFE.sub(lambda found: _utf16(ord(found[0])), text)


def _utf16(code: int) -> str:
    """A character as JSON escapes: one, or a pair of surrogates beyond the first plane."""
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
