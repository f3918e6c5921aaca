"""Atomic writes, and names that stay below their folder.

A reader finds the old file or the new one, never half of it, whatever ends the process.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from polyvex.errors import StorageError, UnsafeNameError

PART = ".part"
"""Ending of a file or folder that is not complete; one that a killed process left behind may be deleted."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of a quota that is used up."""

LONGEST_NAME = 255 - len(".4194304") - len(PART)
"""Bytes of UTF-8 that a name may have: the limit of common file systems, less the ending of a part."""

DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))]
)
"""Names that Windows reserves for devices, with any ending."""


def below(folder: Path, name: str, *, nested: bool = False, links: bool = False) -> Path:
    """The path of ``name`` in ``folder``, checked to stay there.

    Args:
        folder: The folder; it need not exist.
        name: A name that a user or a file gives.
        nested: Accept a relative path with several parts, such as ``images/1.png``, instead of one name. The parts are
            names of existing files, so names that only Windows or polyvex reserves are accepted too.
        links: Accept symbolic links that lead out of ``folder``.

    Raises:
        UnsafeNameError: if the name is empty, absolute, too long, reserved, contains ``..``, a control character or
            text that UTF-8 cannot encode, or if a symbolic link leads out of ``folder``.
    """
    reason = _unsafe(name, nested=nested)
    path = folder / name if not reason else folder
    if not reason and not links and not path.resolve().is_relative_to(folder.resolve()):
        reason = f"it leads out of {folder} through a symbolic link"
    if reason:
        raise UnsafeNameError(f"unsafe {'path' if nested else 'name'} {_shown(name)}: {reason}")
    return path


def _unsafe(name: str, *, nested: bool) -> str:
    """Why ``name`` cannot be used below a folder; empty if it can."""
    parts = PurePosixPath(name).parts
    rules = {
        "it is empty": not parts,
        "it contains a control character": any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in name),
        "it contains a lone surrogate, which UTF-8 cannot encode": any(
            0xD800 <= ord(letter) < 0xE000 for letter in name
        ),
        "it is an absolute path; give one relative to its folder": bool(re.match(r"/|[A-Za-z]:([/\\]|$)", name)),
        "'..' leads out of its folder": ".." in parts,
        f"it is longer than {LONGEST_NAME} bytes": any(
            len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in parts
        ),
        "a name has no '/' and no '\\'": not nested and ("/" in name or "\\" in name),
        "it is reserved; choose another one": not nested
        and (name.lower().split(".")[0] in DEVICES or name.endswith((PART, " ", "."))),
    }
    return next((reason for reason, broken in rules.items() if broken), "")


def _shown(name: str) -> str:
    """A name for a message: quoted, without control characters, and short."""
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by a file with ``text`` in UTF-8; see :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` atomically by a file with ``content``, flushed to the disk; missing folders are created.

    Raises:
        StorageError: with the code ``disk-full`` if there is no space left.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    with space_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def replace_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Replace ``folder`` by one that ``fill`` has written completely.

    ``fill`` gets an empty folder beside it. The files in it get the permissions of an ordinary new file, whatever the
    library that wrote them chose.
    """
    part = folder.with_name(f"{folder.name}.{os.getpid()}{PART}")
    with space_for(folder):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            fill(part)
            share(part)
            flush(part)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def share(folder: Path) -> None:
    """Give every file below ``folder`` the permissions of an ordinary new file (the umask decides).

    Libraries that write through temporary files, safetensors among them, leave files that only their owner can read.
    """
    sample = folder / f".permissions.{os.getpid()}{PART}"
    sample.touch()
    mode = sample.stat().st_mode & 0o777
    sample.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def flush(folder: Path) -> None:
    """Flush every file below ``folder`` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


@contextmanager
def space_for(path: Path) -> Iterator[None]:
    """Turn a full disk into a :class:`StorageError` that names the place and its free space.

    Raises:
        StorageError: with the code ``disk-full``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise full_disk(path) from error


def full_disk(path: Path) -> StorageError:
    """The error for a write to ``path`` that found no space."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    return StorageError(
        f"no space left on the disk of {path} ({free / 2**20:.1f} MiB free). Free some space and run the command "
        f"again; it continues from what is stored",
        code="disk-full",
    )
