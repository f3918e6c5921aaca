"""Checksums of stored files, so that a file that was cut, lost or changed is noticed before it is used."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from polyvex.errors import RunError
from polyvex.storage import PART


class StoredFile(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """Every file that belongs to something stored, by its path relative to the folder of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    files: dict[str, StoredFile]

    @classmethod
    def of(cls, folder: Path, names: Iterable[str] | None = None) -> "Manifest":
        """Hash files of ``folder``: those with the given names, or all of them, also in folders below."""
        if names is None:
            found = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(PART))
            names = (path.relative_to(folder).as_posix() for path in found)
        return cls(files={name: _measured(folder / name) for name in sorted(names)})

    def faults(self, folder: Path) -> list[str]:
        """One sentence for each file that is missing or differs; a file of another size is not read."""
        return [fault for name, kept in self.files.items() if (fault := _fault(folder / name, name, kept))]

    def __or__(self, other: "Manifest") -> "Manifest":
        return Manifest(files={**self.files, **other.files})


def read_manifest(value: object, source: Path) -> Manifest:
    """Read a manifest from plain data, as JSON has it.

    Raises:
        RunError: with the code ``damaged-record``, if ``value`` is not a manifest; ``source`` is the file it is from.
    """
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunError(
            f"{source}: the list of checksums is damaged ({place or 'value'}: {first['msg']}). Restore the file",
            code="damaged-record",
        ) from None


def _measured(path: Path) -> StoredFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return StoredFile(size=path.stat().st_size, sha256=digest)


def _fault(path: Path, name: str, kept: StoredFile) -> str:
    if not path.is_file():
        return f"{name} is missing"
    if (size := path.stat().st_size) != kept.size:
        return f"{name} has {size} bytes instead of {kept.size}"
    return "" if _measured(path).sha256 == kept.sha256 else f"{name} has other content (its SHA-256 differs)"
