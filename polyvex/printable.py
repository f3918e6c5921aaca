"""Text that is safe to show and to export.

Neither a terminal, nor a spreadsheet, nor a Markdown page may obey the text of a run, a recipe, a model or a file name.
"""

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

FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a formula begins in spreadsheets; the last four are the full-width forms."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)

MARKDOWN = re.compile(
    r"[\\`*\[\]<>|~&$@]"  # code, emphasis, links, HTML, cells, strikethrough, entities, mathematics, mentions
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; inside a word an underscore is only an underscore
    r"|:(?=//)|(?<=\bwww)\."  # addresses that GitHub links by itself
    r"|^[#+\-=](?=[\s#+\-=]|$)",  # headings, lists and rules
    re.IGNORECASE,
)


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


def csv_cell(text: Any) -> str:
    """Text for a cell of a CSV file, with an apostrophe in front where a spreadsheet would calculate a formula.

    Numbers stay as they are, negative ones too. Source: OWASP, "CSV Injection".
    """
    cell = printable(text)
    return f"'{cell}" if cell.lstrip(" ").startswith(FORMULA) and not NUMBER.fullmatch(cell) else cell


def markdown(text: Any) -> str:
    """One line of Markdown text that shows ``text`` literally: no table cell, link, image, HTML or emphasis in it."""
    return MARKDOWN.sub(r"\\\g<0>", one_line(text))


def _utf16(code: int) -> str:
    """A character as JSON escapes: one, or a pair of surrogates beyond the first plane."""
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
