"""Text that is safe to show."""

import json
import sys

import pytest

from polyvex.printable import one_line, printable, printable_json

HOSTILE = {
    "\x1b[2J": r"\x1b[2J",
    "\x1b]8;;http://x\x07link\x1b]8;;\x07": r"\x1b]8;;http://x\x07link\x1b]8;;\x07",
    "\x9b31m": r"\x9b31m",
    "safe\rfake": r"safe\rfake",
    "a\x08b\x00": r"a\x08b\x00",
    "abc\u202egpj.exe": r"abc\u202egpj.exe",
    "\u2066x\u2069": r"\u2066x\u2069",
    "\ud800": r"\ud800",
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items(), ids=ascii)
def test_unsafe_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode("utf-8")


def test_ordinary_text_of_any_language_is_unchanged() -> None:
    for text in ("a\tb\nc", "Größe 5 %", "שלום \u200fעולם", "日本語", "👩\u200d👧", "C:\\x1b"):
        assert printable(text) == text


def test_one_line_has_no_line_break() -> None:
    assert one_line("a\n\nb\tc\r") == r"a b c\r"


def test_json_means_the_same_and_is_safe_to_show() -> None:
    """Every code point but surrogates, which pairs of escapes would join."""
    text = (
        "".join(map(chr, range(0xD800))) + "".join(map(chr, range(0xE000, sys.maxunicode + 1, 7))) + "\U000e0041\ud800"
    )
    shown = printable_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(shown) == text
    assert printable(shown) == shown
