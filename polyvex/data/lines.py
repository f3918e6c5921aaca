"""Lines of a text file in the encodings that editors write: UTF-8, and UTF-16 or UTF-32 with a byte order mark."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyvex.errors import DataError
from polyvex.reading import clip, open_regular

MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
LONGEST = 2**26
"""Bytes that a line may have."""
WIDEST = 2**30
"""Bytes that a file in UTF-16 or UTF-32 may have, since it is decoded as a whole."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line by its number from 1: its ``text``, or the ``problem`` why it cannot be decoded."""

    number: int
    text: str = ""
    problem: str = ""


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a text file; only a line feed ends one, since JSON allows the other line breaks inside texts.

    Raises:
        DataError: if ``path`` is no regular file, has a line that is too long, or is damaged UTF-16 or UTF-32.
    """
    with open_regular(path, what="data file") as stream:
        head = stream.read(4)
        mark, encoding = next(((mark, name) for mark, name in MARKS if head.startswith(mark)), (b"", "utf-8"))
        stream.seek(len(mark))
        if encoding != "utf-8":
            yield from _wide_lines(path, stream.read(WIDEST + 1), encoding)
            return
        number = 0
        while content := stream.readline(LONGEST + 1):
            number += 1
            if len(content) > LONGEST:
                raise DataError(f"{path}:{number}: more than {LONGEST:,} bytes without a line break", code="data-lines")
            yield _line(number, content)


def _line(number: int, content: bytes) -> Line:
    try:
        return Line(number=number, text=content.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        return Line(
            number=number,
            problem=f"byte {error.start + 1} (0x{content[error.start]:02x}) is not UTF-8. Save the file as UTF-8; a "
            f"file of an older Windows program: iconv -f WINDOWS-1252 -t UTF-8",
        )


def _wide_lines(path: Path, content: bytes, encoding: str) -> Iterator[Line]:
    if len(content) > WIDEST:
        raise DataError(
            f"{clip(str(path))}: more than {WIDEST:,} bytes in {encoding}. Save it as UTF-8", code="data-lines"
        )
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise DataError(
            f"{path}:{line}: byte {error.start + 1} behind the byte order mark is not {encoding.upper()}: "
            f"{error.reason}. Save the file as UTF-8",
            code="data-lines",
        ) from None
    for number, one in enumerate(text.split("\n"), 1):
        yield Line(number=number, text=one)
