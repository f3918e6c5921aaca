"""Tokens on disk: shards of equal-sized tensors, and an index from an image's hash to its rows, one for each tile."""

import hashlib
import json
import sqlite3
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyvex.cache.index import Index
from polyvex.encoders.weights import sha256_of
from polyvex.errors import CacheError, StorageError
from polyvex.storage import permission_denied, replace_file, space_for, write_text

INDEX, ABOUT, LAST_USE = "index.sqlite", "about.json", "last-use"
"""Files of a store beside its shards. ``about.json`` says how tokens were made, ``last-use`` is dated at each use."""

SHARD = ".safetensors"
"""Ending of a shard."""

REPAIR = "Remove it with: polyvex cache prune --damaged. Its images are then encoded again"
"""What to do about a damaged shard or index."""


class TokenStore:
    """The tokens of one encoder by image, in ``folder``.

    Images are named by the SHA-256 of their file. A shard is written and entered in the index while the index is
    locked, so a process that is killed leaves either all of it or nothing that counts. Several processes may write at
    once; an image that two of them encoded is kept once. A shard's SHA-256 is compared when it is first read, so that
    no damaged token is ever trained on.
    """

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.folder = folder
        self.about = about
        self.index = Index(folder / INDEX)
        self._shards: dict[str, Tensor] = {}
        self._rows: dict[str, tuple[str, int, int]] = {}
        self._digests: dict[str, str] = {}
        self.load_index()

    def load_index(self) -> None:
        """Read the index again, and drop what refers to shards that are gone or cut short."""
        if not self.index.exists():
            return
        with self.index.reading() as index:
            shards, rows = read_index(index)
        if any(self._damaged(name, size) for name, (size, _) in shards.items()):
            with suppress(StorageError), self.index.changing() as index:  # a reader cannot drop them for others
                forget_shards(index, [name for name, size, _ in _shards_in(index) if self._damaged(name, size)])
            bad = {name for name, (size, _) in shards.items() if self._damaged(name, size)}
            for name in sorted(bad):
                warnings.warn(
                    f"cache shard {self.folder / name} is damaged; its images are encoded again", stacklevel=2
                )
            shards = {name: one for name, one in shards.items() if name not in bad}
            rows = {image: where for image, where in rows.items() if where[0] not in bad}
        self._digests = {name: digest for name, (_, digest) in shards.items()}
        self._rows = rows

    def _damaged(self, name: str, size: int) -> bool:
        path = self.folder / name
        return not path.exists() or path.stat().st_size != size

    def __contains__(self, image: str) -> bool:
        return image in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def tiles(self) -> int:
        """Pictures that are kept: images, or the tiles that they were cut into."""
        return sum(tiles for _, _, tiles in self._rows.values())

    def mark_used(self) -> None:
        """Date the store's last use, so that ``prune`` can tell which stores no recipe uses any more."""
        with suppress(OSError):  # another user's cache may be read-only
            if self.folder.exists():
                (self.folder / LAST_USE).touch()

    def write(
        self, images: Sequence[str], values: Float[Tensor, "tiles tokens dim"], tiles: Sequence[int] | None = None
    ) -> None:
        """Add one shard, with the images that no other process has written meanwhile.

        Args:
            tiles: how many of the ``values`` belong to each image; one if not given.

        Raises:
            StorageError: if the disk is full, or the folder cannot be written to. Nothing of the shard is left.
        """
        counts = [1] * len(images) if tiles is None else list(tiles)
        if sum(counts) != len(values):
            raise CacheError(f"got {len(values)} tiles for {len(images)} images, expected {sum(counts)}")
        try:
            with space_for(self.folder):
                self._write(images, values, counts)
        except PermissionError as error:
            raise StorageError(
                f"{len(images)} images are not in the cache {self.folder}, and this user has no permission to write "
                f"there ({error.filename}). Choose another folder with --cache",
                code="permission-denied",
            ) from None

    def _write(self, images: Sequence[str], values: Tensor, counts: Sequence[int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_about()
        path = self.folder / f"{uuid.uuid4().hex}{SHARD}"
        try:
            with self.index.changing() as index:
                self._add(index, path, images, values, counts)
                found = {image: where for image in images if (where := _row_of(index, image)) is not None}
                digests = {name: digest for name, _, digest in _shards_in(index)}
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._digests.update(digests)
        self._rows.update(found)

    def _add(
        self, index: sqlite3.Connection, path: Path, images: Sequence[str], values: Tensor, counts: Sequence[int]
    ) -> None:
        """Write those of ``images`` that the index lacks to a new shard, and enter them."""
        starts = [0, *accumulate(counts)]
        first = {image: number for number, image in reversed(list(enumerate(images)))}
        new = sorted(number for image, number in first.items() if _row_of(index, image) is None)
        if not new:
            return
        kept = values if len(new) == len(images) else torch.cat([values[starts[i] : starts[i + 1]] for i in new])
        size, digest = write_shard(path, kept)
        rows = accumulate((counts[i] for i in new), initial=0)
        enter(index, "shards", [(path.name, size, digest)])
        enter(index, "tokens", [(images[i], path.name, row, counts[i]) for i, row in zip(new, rows, strict=False)])

    def forget(self, images: Iterable[str]) -> None:
        """Drop the tokens of some images, so that they are encoded again.

        Raises:
            StorageError: if the folder cannot be written to.
        """
        if not self.index.exists():
            return
        with self.index.changing() as index:
            index.executemany("delete from tokens where image = ?", [(image,) for image in images])
            unused = "select name from shards where name not in (select shard from tokens)"
            gone = [name for (name,) in index.execute(unused).fetchall()]
            forget_shards(index, gone)
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        self._rows, self._digests, self._shards = {}, {}, {}
        self.load_index()

    def read(self, images: Sequence[str]) -> Float[Tensor, "tiles tokens dim"]:
        """Tokens of some images, in that order, tile after tile, in the precision of the disk.

        Raises:
            CacheError: if an image is not in the cache, or its shard is damaged. The shard is named.
            StorageError: if this user has no permission to read the shard.
        """
        named = {self._rows[image][0] for image in images if image in self._rows}
        if any(name not in self._shards and not (self.folder / name).exists() for name in named):
            self.load_index()  # `prune` has written their rows to other shards
        if lost := [image for image in images if image not in self._rows]:
            raise CacheError(f"{len(lost)} images are not in the cache {self.folder}. Run: polyvex cache RECIPE")
        where = [self._rows[image] for image in images]
        return torch.cat([self._shard(shard)[row : row + tiles] for shard, row, tiles in where])

    def _shard(self, name: str) -> Tensor:
        if name not in self._shards:
            self._shards[name] = read_shard(self.folder / name, self._digests[name])
        return self._shards[name]

    def _write_about(self) -> None:
        path = self.folder / ABOUT
        if not path.exists():
            write_text(path, json.dumps(self.about, indent=2, sort_keys=True))


Row = tuple[str, str, int, int]
"""A row of the table ``tokens``: image, shard, first row in the shard, tiles."""

ShardRow = tuple[str, int, str]
"""A row of the table ``shards``: name, bytes, SHA-256."""


def read_index(index: sqlite3.Connection) -> tuple[dict[str, tuple[int, str]], dict[str, tuple[str, int, int]]]:
    """Bytes and SHA-256 of each shard by name; and shard, first row and tiles of each image by its hash.

    Raises:
        CacheError: if a row is not as it was written (code ``cache-damaged``). SQLite itself has no checksums, and a
            changed number would give an image the tokens of another one.
    """
    if len(index.execute("select 1 from sqlite_master where name in ('tokens', 'shards')").fetchall()) < 2:
        return {}, {}  # made by a process that was killed before its first shard
    rows: Iterator[Row] = _sealed(index, "select image, shard, row, tiles, seal from tokens")
    found = {image: (shard, row, tiles) for image, shard, row, tiles in rows}
    shards = {name: (size, digest) for name, size, digest in _shards_in(index)}
    if lost := {shard for shard, _, _ in found.values()} - shards.keys():
        raise _damaged_index(index, f"it lacks the shard {min(lost)}")
    return shards, found


def enter(index: sqlite3.Connection, table: str, rows: Iterable[Row | ShardRow]) -> None:
    """Insert rows into a table of the index, each with a checksum."""
    sealed = [(*row, _seal(row)) for row in rows]
    index.executemany(f"insert into {table} values ({', '.join('?' * len(sealed[0]))})", sealed)


def _seal(row: Sequence[object]) -> str:
    return hashlib.blake2b(json.dumps(row).encode(), digest_size=8).hexdigest()


def _sealed(index: sqlite3.Connection, query: str, *values: str) -> Iterator[Any]:
    """Rows of a query without their checksum in the last column, which is verified."""
    for *row, seal in index.execute(query, values):
        if any(isinstance(one, bytes) for one in row) or _seal(row) != seal:
            raise _damaged_index(index, f"the row {row} has another checksum")
        yield tuple(row)


def _damaged_index(index: sqlite3.Connection, reason: str) -> CacheError:
    path = index.execute("pragma database_list").fetchone()[2]
    return CacheError(f"the index {path} is damaged: {reason}. {REPAIR}", code="cache-damaged")


def forget_shards(index: sqlite3.Connection, names: Iterable[str]) -> None:
    """Drop shards and the images in them from the index."""
    for name in names:
        index.execute("delete from tokens where shard = ?", (name,))
        index.execute("delete from shards where name = ?", (name,))


def write_shard(path: Path, values: Tensor) -> tuple[int, str]:
    """Write a shard; return its size in bytes and its SHA-256.

    Raises:
        StorageError: if it cannot be written.
    """
    values = values.contiguous()
    try:
        replace_file(path, lambda part: save_file({"tokens": values}, part), needed=values.nbytes)
    except SafetensorError as error:
        raise StorageError(f"cannot write the cache shard {path}: {error}") from None
    return path.stat().st_size, sha256_of(path)


def read_shard(path: Path, digest: str) -> Tensor:
    """The tokens of a shard, whose content must have the SHA-256 ``digest``.

    Raises:
        CacheError: if the shard is damaged or gone (code ``cache-damaged``).
        StorageError: if this user has no permission to read it.
    """
    try:
        changed = sha256_of(path) != digest
        tokens = None if changed else load_file(path)["tokens"]
    except PermissionError as error:
        raise permission_denied(path, error) from None
    except (SafetensorError, OSError, KeyError) as error:
        raise CacheError(f"cannot read {path}: {error}. {REPAIR}", code="cache-damaged") from None
    if tokens is None:
        raise CacheError(f"{path} is damaged: its content has changed. {REPAIR}", code="cache-damaged")
    return tokens


def _shards_in(index: sqlite3.Connection) -> list[ShardRow]:
    return list(_sealed(index, "select name, bytes, sha256, seal from shards"))


def _row_of(index: sqlite3.Connection, image: str) -> tuple[str, int, int] | None:
    query = "select image, shard, row, tiles, seal from tokens where image = ?"
    return next((where for _, *where in _sealed(index, query, image)), None)  # type: ignore[misc]
