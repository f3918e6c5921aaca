"""Text that is safe to show."""

import json
import sys

import pytest

from polyvex.printable import csv_cell, markdown, one_line, printable, printable_json

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


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1-1", "@SUM(A1)", "\t=1", "\n=1", "  =1", "\uff1d1", "=cmd|' /C calc'!A0"]
)
def test_a_formula_in_a_csv_cell_is_quoted(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-0.25", "+3", "1e-3", "-1.5E+2", "fusion=mlp", "a-b", "", "x"])
def test_numbers_and_ordinary_text_stay_in_csv(text: str) -> None:
    assert csv_cell(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("[x](javascript:1)", r"\[x\](javascript:1)"),
        ("![x](y)", r"!\[x\](y)"),
        ("<script>", r"\<script\>"),
        ("a\n# b", "a # b"),
        ("# b", r"\# b"),
        ("`rm`", r"\`rm\`"),
        ("http://a.b", r"http\://a.b"),
        ("WWW.a.b", r"WWW\.a.b"),
        ("&lt;", r"\&lt;"),
        ("*a* _b_ c_d ~e~", r"\*a\* \_b\_ c_d \~e\~"),
        ("a\\|b", r"a\\\|b"),
        ("\x1b[1m", r"\\x1b\[1m"),
        ("order=a+b, 79.70% to -1.50%", "order=a+b, 79.70% to -1.50%"),
    ],
)
def test_markdown_shows_text_literally(text: str, shown: str) -> None:
    assert markdown(text) == shown
