"""Atomic writes, and names that stay below their folder.

A reader finds the old file or the new one, never half of it, whatever ends the process.
"""

import errno
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from polyvex.errors import PolyvexError, StorageError, UnsafeNameError

PART = ".part"
"""Ending of a file or folder that is not complete; one that a killed process left behind may be deleted."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of a quota that is used up."""

SOME_SPACE = 1 << 20
"""Bytes that a disk must still provide for a failed write to be blamed on something else than a full disk."""

ABANDONED = 24 * 3600
"""Seconds after which an incomplete file is stale even if its process number is in use, perhaps by another program."""

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

    def fill(part: Path) -> None:
        part.write_bytes(content)

    replace_file(path, fill)


def replace_file(path: Path, fill: Callable[[Path], object], *, needed: int | None = None) -> None:
    """Replace ``path`` atomically by the file that ``fill`` writes at the path that it gets.

    The file is flushed to the disk and gets the permissions of an ordinary new file.

    Args:
        needed: size of the file in bytes, if ``fill`` belongs to a library that hides the error of a full disk.

    Raises:
        StorageError: with the code ``disk-full`` if there is no space left.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    with space_for(path, needed=needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.touch()  # so that a missing permission is Python's error, whatever writes the file
            fill(part)
            part.chmod(ordinary_mode(path.parent))
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(part, path)
            flush_names(path.parent)
        finally:
            part.unlink(missing_ok=True)


def replace_folder(folder: Path, fill: Callable[[Path], object], *, needed: int | None = None) -> None:
    """Replace ``folder`` by one that ``fill`` has written completely.

    ``fill`` gets an empty folder beside it. The files in it get the permissions of an ordinary new file, whatever the
    library that wrote them chose.

    Args:
        needed: bytes of the folder, if ``fill`` belongs to a library that hides the error of a full disk.

    Raises:
        StorageError: with the code ``disk-full`` if there is no space left.
    """
    part = folder.with_name(f"{folder.name}.{os.getpid()}{PART}")
    with space_for(folder, needed=needed):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            fill(part)
            share(part)
            flush(part)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)
            flush_names(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def share(folder: Path) -> None:
    """Give every file below ``folder`` the permissions of an ordinary new file (the umask decides).

    Libraries that write through temporary files, safetensors among them, leave files that only their owner can read.
    """
    mode = ordinary_mode(folder)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def ordinary_mode(folder: Path) -> int:
    """Permissions that a new file in ``folder`` gets. Reading the umask would mean to change it for all threads."""
    sample = folder / f".permissions.{os.getpid()}{PART}"
    sample.touch()
    mode = sample.stat().st_mode & 0o777
    sample.unlink()
    return mode


def flush(folder: Path) -> None:
    """Flush every file below ``folder`` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def flush_names(folder: Path) -> None:
    """Flush the names of the files in ``folder`` to the disk, so that a rename survives a loss of power."""
    if os.name != "posix":  # elsewhere, folders cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems flush no folders
            raise
    finally:
        os.close(handle)


@contextmanager
def space_for(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turn a full disk into a :class:`StorageError` that names the place and its free space.

    Args:
        needed: bytes that are written. Libraries that write by themselves, such as torch and safetensors, report a
            full disk as an error of their own. With ``needed``, any error inside is a full disk if the disk cannot
            provide so many bytes afterwards.

    Raises:
        StorageError: with the code ``disk-full``.
    """
    try:
        yield
    except PolyvexError:
        raise
    except Exception as error:
        if out_of_space(error) or (needed is not None and not has_room(path, max(needed, SOME_SPACE))):
            raise full_disk(path) from error
        raise


def out_of_space(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is that of a full disk or of a quota that is used up."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in NO_SPACE:
            return True
        if isinstance(seen, sqlite3.Error) and getattr(seen, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def has_room(path: Path, size: int) -> bool:
    """Whether the disk of ``path`` can provide ``size`` bytes, tried with a file that is removed again."""
    place = existing_folder(path)
    probe = place / f".space.{os.getpid()}{PART}"
    try:
        with probe.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        return error.errno not in NO_SPACE
    except AttributeError:  # not on this system
        return shutil.disk_usage(place).free >= size
    finally:
        probe.unlink(missing_ok=True)
    return True


def existing_folder(path: Path) -> Path:
    """``path`` itself if it is a folder, else the nearest folder above it that exists."""
    place = path.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def full_disk(path: Path) -> StorageError:
    """The error for a write to ``path`` that found no space."""
    free = shutil.disk_usage(existing_folder(path)).free
    return StorageError(
        f"no space left on the disk of {path} ({free / 2**20:.1f} MiB free, or a quota is used up). Free some space "
        f"and run the command again; it continues from what is stored",
        code="disk-full",
    )


def check_readable(*paths: Path) -> None:
    """Check that files, and the files directly in folders, can be read. Those that do not exist are passed over.

    Libraries in Rust report a file without permission as one that does not exist.

    Raises:
        StorageError: with the code ``permission-denied``.
    """
    for path in paths:
        try:
            if path.is_dir():
                check_readable(*(entry for entry in path.iterdir() if entry.is_file()))
            elif path.is_file():
                with path.open("rb"):
                    pass
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise permission_denied(path, error) from None


def permission_denied(path: Path, error: OSError) -> StorageError:
    """The error for a file that exists and that this user must not read."""
    return StorageError(
        f"{error.filename or path} exists, but this user has no permission to read it. Its owner can allow that with: "
        f"chmod -R a+rX {path}",
        code="permission-denied",
    )


def remove_stale_parts(folder: Path) -> list[Path]:
    """Remove the incomplete files and folders that killed processes left below ``folder``; return their paths.

    Only for the process that holds ``folder`` and writes nothing there yet: parts with its own number are those of a
    process that had the number before. Parts of other running processes are kept for a day.
    """
    stale = [path for path in folder.rglob(f"*{PART}") if _stale(path)]
    for path in stale:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return stale


def _stale(part: Path) -> bool:
    number = part.name.removesuffix(PART).rpartition(".")[2]
    try:
        age = time.time() - part.lstat().st_mtime
    except FileNotFoundError:
        return False
    if age > ABANDONED or not number.isdigit() or int(number) == os.getpid():
        return True
    if os.name != "posix":  # elsewhere, signal 0 ends the process
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's, so it runs
        return False
    return False
