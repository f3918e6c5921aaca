"""Open files that a user names: only regular ones, and only up to a size."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from polyvex.errors import DataError

CLIP = 120
"""Characters of a value from a file that an error message shows."""

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str | Path, *, what: str, limit: int | None = None) -> BinaryIO:
    """Open a regular file for reading in binary mode.

    Named pipes, devices, sockets and folders are refused without being read: a pipe blocks, and ``/dev/zero`` never
    ends.

    Args:
        what: what the file is, for the message: ``"image"``.
        limit: most bytes that the file may have.

    Raises:
        DataError: with the code ``file-missing``, ``file-path`` (no file can have this name), ``file-kind``,
            ``file-too-large`` or ``file-unreadable``.
    """
    named = clip(str(path))
    try:
        _check(os.stat(path), named, what, limit)
        # The file may have been replaced since: O_NONBLOCK opens even a pipe at once, and the check is made again.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        stream = os.fdopen(os.open(path, flags), "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no {what} at {named}", code="file-missing") from None
    except OSError as error:
        raise DataError(f"cannot read the {what} {named}: {error.strerror or error}", code="file-unreadable") from None
    except ValueError as error:  # a NUL character, or half of a surrogate pair
        raise DataError(f"cannot read the {what} {named}: no file has this name ({error})", code="file-path") from None
    try:
        _check(os.fstat(stream.fileno()), named, what, limit)
    except DataError:
        stream.close()
        raise
    return stream


def read_regular(path: str | Path, *, what: str, limit: int) -> bytes:
    """The content of a regular file; raises as :func:`open_regular`."""
    with open_regular(path, what=what, limit=limit) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:  # it grew meanwhile, or its size was not true, as in /proc
        raise _too_large(clip(str(path)), what, len(content), limit)
    return content


def clip(text: str, most: int = CLIP) -> str:
    """``text`` for a message: shortened to ``most`` characters, and such that it can be printed and stored."""
    shown = text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
    return shown.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _check(status: os.stat_result, named: str, what: str, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in KINDS if is_kind(status.st_mode)), "something else")
        raise DataError(f"cannot read the {what} {named}: it is {kind}; expected a regular file", code="file-kind")
    if limit is not None and status.st_size > limit:
        raise _too_large(named, what, status.st_size, limit)


def _too_large(named: str, what: str, size: int, limit: int) -> DataError:
    return DataError(
        f"cannot read the {what} {named}: it has {size:,} bytes; at most {limit:,} are read", code="file-too-large"
    )
