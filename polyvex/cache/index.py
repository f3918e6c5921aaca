"""The index of a token store in SQLite: which rows of which shard hold an image's tokens."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from polyvex.errors import CacheError, PolyvexError, StorageError
from polyvex.storage import full_disk, out_of_space

TABLES = """
create table if not exists tokens (image text primary key, shard text not null, row integer not null,
    tiles integer not null, seal text not null);
create table if not exists shards (name text primary key, bytes integer not null, sha256 text not null,
    seal text not null);
"""

PATIENCE = 600
"""Seconds to wait for another process that changes the index: it holds the lock while it writes a shard."""

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
FORBIDDEN = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


class Index:
    """The index file of a store. Reading works without permission to write."""

    def __init__(self, path: Path):
        self.path = path

    def exists(self) -> bool:
        """Whether the store has an index, so that anything was written to it."""
        return self.path.exists()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for queries. The index must exist.

        Raises:
            CacheError: if the index is damaged (code ``cache-damaged``).
            StorageError: if this user has no permission to read it (code ``permission-denied``).
        """
        with self._connection("rw") as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other process can change the store beside; made permanent at the end, or undone.

        Whoever writes or removes files of the store does it in here. A file that the index does not name is therefore
        left over, as soon as one is in here.

        Raises:
            CacheError: if the index is damaged (code ``cache-damaged``), or another process holds it for very long.
            StorageError: if the disk is full, or this user has no permission to write.
        """
        with self._connection("rwc") as connection:
            connection.execute("begin immediate")
            try:
                for statement in filter(str.strip, TABLES.split(";")):
                    connection.execute(statement)
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.execute("commit")

    @contextmanager
    def _connection(self, mode: str) -> Iterator[sqlite3.Connection]:
        """``rw`` falls back to reading alone where the file or its folder cannot be written to."""
        place = f"file:{quote(str(self.path.absolute()))}?mode={mode}"
        try:
            with closing(sqlite3.connect(place, uri=True, timeout=PATIENCE, isolation_level=None)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> PolyvexError:
        """What an error of SQLite means, by its code."""
        code = (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF
        if out_of_space(error):
            return full_disk(self.path)
        if code in FORBIDDEN:
            return StorageError(
                f"{self.path}: no permission to use this index ({error}). Ask its owner for it, or choose another "
                f"folder with --cache",
                code="permission-denied",
            )
        if code in DAMAGED:
            return CacheError(
                f"the index {self.path} is damaged: {error}. Remove it and what it names with: polyvex cache prune "
                f"--damaged",
                code="cache-damaged",
            )
        return CacheError(f"the index {self.path} cannot be used: {error}. Try again", code="cache-unusable")
