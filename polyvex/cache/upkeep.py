"""Look after the token cache: what is in it, what is damaged or left over, and what can be removed."""

import json
import shutil
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from polyvex.cache.index import Index
from polyvex.cache.store import ABOUT, INDEX, LAST_USE, SHARD, enter, forget_shards, read_index, read_shard, write_shard
from polyvex.encoders.weights import sha256_of
from polyvex.errors import CacheError, StorageError
from polyvex.storage import PART

DAY = 24 * 3600

TEMPORARY = ".tmp"
"""How the names of files begin that safetensors has not finished."""

Shards = dict[str, tuple[int, str]]
"""Bytes and SHA-256 of each shard by its name."""

Rows = dict[str, tuple[str, int, int]]
"""Shard, first row and tiles of each image by its hash."""


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """One store: the tokens of an encoder with given options, weights and code. ``last_use`` is a date in UTC."""

    folder: str
    encoder: str
    options: dict[str, Any]
    dtype: str
    images: int
    tiles: int
    bytes: int
    last_use: str
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A file of the cache that is damaged, left over, or larger than what the index uses of it.

    ``kind`` is ``damaged``, ``orphan`` (a shard that the index does not name), ``part`` (a file that was never
    finished), ``dead rows`` (tokens in a shard that the index does not use), or ``unused`` (a whole store).
    """

    path: str
    kind: str
    bytes: int
    details: str = ""


def stores(root: Path) -> list[Path]:
    """The folders of a cache that hold a store, sorted. Other folders are never touched."""
    if not root.is_dir():
        return []
    found = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.is_symlink())
    return [path for path in found if (path / INDEX).is_file() or (path / ABOUT).is_file()]


def info(root: Path) -> list[StoreInfo]:
    """What each store holds. A damaged store is listed with its problem."""
    return [_info(folder) for folder in stores(root)]


def read_about(folder: Path) -> dict[str, Any]:
    """What a store's tokens were made with; empty if that cannot be read."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _info(folder: Path) -> StoreInfo:
    about, problem, rows = read_about(folder), "", {}
    try:
        if (index := Index(folder / INDEX)).exists():
            with index.reading() as connection:
                _, rows = read_index(connection)
    except CacheError as error:
        problem = str(error)
    return StoreInfo(
        folder=str(folder),
        encoder=str(about.get("encoder", folder.name)),
        options=about.get("options") or {},
        dtype=str(about.get("dtype", "")),
        images=len(rows),
        tiles=sum(tiles for _, _, tiles in rows.values()),
        bytes=_size(folder),
        last_use=datetime.fromtimestamp(_last_use(folder), UTC).date().isoformat(),
        problem=problem,
    )


def verify(root: Path) -> Iterator[Finding]:
    """Compare every shard with its SHA-256 and every file with the index. Nothing is changed.

    Raises:
        StorageError: if this user has no permission to read a store.
    """
    for folder in stores(root):
        try:
            shards, rows, files = _snapshot(folder)
        except CacheError as error:
            yield _unreadable(folder, error)
            continue
        yield from _left_over(folder, shards, files)
        yield from _worthless(folder, shards, rows, damaged=True)


def prune(
    root: Path, *, unused_days: float | None = None, damaged: bool = False, dry_run: bool = False
) -> Iterator[Finding]:
    """Remove what no recipe can use: orphans, unfinished files, and rows that the index does not use.

    Each store is locked meanwhile, so that other processes may write to the cache at the same time.

    Args:
        unused_days: also remove whole stores that were not used for so many days.
        damaged: also read every shard, and remove the damaged ones; their images are encoded again when needed.
        dry_run: only list what would be removed.

    Raises:
        StorageError: if this user has no permission to change a store, or the disk is full.
    """
    for folder in stores(root):
        if unused_days is not None and (age := (time.time() - _last_use(folder)) / DAY) > unused_days:
            details = f"last used {age:.0f} days ago"
            yield Finding(path=str(folder), kind="unused", bytes=_size(folder), details=details)
            if not dry_run:
                shutil.rmtree(folder)
            continue
        try:
            yield from _prune_store(folder, damaged=damaged, dry_run=dry_run)
        except CacheError as error:
            yield _unreadable(folder, error) if damaged else replace(_unreadable(folder, error), bytes=0)
            if damaged and not dry_run:
                shutil.rmtree(folder)


def _prune_store(folder: Path, *, damaged: bool, dry_run: bool) -> list[Finding]:
    if dry_run:
        shards, rows, files = _snapshot(folder)
        return [*_left_over(folder, shards, files), *_worthless(folder, shards, rows, damaged=damaged)]
    with Index(folder / INDEX).changing() as index:
        shards, rows = read_index(index)
        left_over = _left_over(folder, shards, _files(folder))
        found = _worthless(folder, shards, rows, damaged=damaged)
        for finding in found:
            name = Path(finding.path).name
            if finding.kind == "dead rows":
                _shrink(index, folder, name, shards[name][1], rows)
            else:
                forget_shards(index, [name])
    for finding in [*left_over, *found]:  # the index no longer names them, whatever happens from here
        Path(finding.path).unlink(missing_ok=True)
    return [*left_over, *found]


def _worthless(folder: Path, shards: Shards, rows: Rows, *, damaged: bool) -> list[Finding]:
    """Shards that are damaged, if that is looked for, and those with rows that the index does not use."""
    bad = list(_damaged(folder, shards)) if damaged else []
    names = {finding.path for finding in bad}
    return [*bad, *_dead_rows(folder, [name for name in shards if str(folder / name) not in names], rows)]


def _shrink(index: sqlite3.Connection, folder: Path, name: str, digest: str, rows: Rows) -> None:
    """Write the rows of a shard that the index uses to a new one, and enter that instead."""
    kept = [(image, row, tiles) for image, (shard, row, tiles) in rows.items() if shard == name]
    forget_shards(index, [name])
    if not kept:
        return
    tokens = read_shard(folder / name, digest)
    path = folder / f"{uuid.uuid4().hex}{SHARD}"
    size, written = write_shard(path, torch.cat([tokens[row : row + tiles] for _, row, tiles in kept]))
    starts = accumulate((tiles for _, _, tiles in kept), initial=0)
    enter(index, "shards", [(path.name, size, written)])
    enter(
        index,
        "tokens",
        [(image, path.name, start, tiles) for start, (image, _, tiles) in zip(starts, kept, strict=False)],
    )


def _snapshot(folder: Path) -> tuple[Shards, Rows, list[Path]]:
    """The index and the files of a store, at a moment when no other process writes to it."""
    index = Index(folder / INDEX)
    if not index.exists():
        return {}, {}, _files(folder)
    try:
        with index.changing() as connection:
            return *read_index(connection), _files(folder)
    except StorageError:  # a read-only cache; its owner may be writing
        with index.reading() as connection:
            return *read_index(connection), _files(folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _left_over(folder: Path, shards: Shards, files: Iterable[Path]) -> list[Finding]:
    """Files that processes which were killed, or older versions of polyvex, left in a store."""
    found = []
    for path in files:
        if path.suffix == SHARD and path.name not in shards:
            found.append(Finding(path=str(path), kind="orphan", bytes=path.stat().st_size))
        elif path.name.endswith(PART) or path.name.startswith(TEMPORARY):
            found.append(Finding(path=str(path), kind="part", bytes=path.stat().st_size))
    return found


def _damaged(folder: Path, shards: Shards) -> Iterator[Finding]:
    for name, (size, digest) in shards.items():
        path = folder / name
        if not path.exists():
            yield Finding(path=str(path), kind="damaged", bytes=0, details="it is gone")
        elif (there := path.stat().st_size) != size or sha256_of(path) != digest:
            details = f"{there} bytes, expected {size}" if there != size else "its content has changed"
            yield Finding(path=str(path), kind="damaged", bytes=there, details=details)


def _dead_rows(folder: Path, names: Iterable[str], rows: Rows) -> Iterator[Finding]:
    used: Counter[str] = Counter()
    for shard, _, tiles in rows.values():
        used[shard] += tiles
    for name in names:
        path = folder / name
        if not path.exists():
            continue
        try:
            with safe_open(path, framework="pt") as file:
                written = file.get_slice("tokens").get_shape()[0]
        except SafetensorError:
            continue  # damaged, which is looked for elsewhere
        if used[name] < written:
            size = path.stat().st_size * (written - used[name]) // written
            details = f"{written - used[name]} of {written} rows"
            yield Finding(path=str(path), kind="dead rows", bytes=size, details=details)


def _unreadable(folder: Path, error: CacheError) -> Finding:
    return Finding(path=str(folder / INDEX), kind="damaged", bytes=_size(folder), details=str(error))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _last_use(folder: Path) -> float:
    """When the store was last read or written, in seconds; by its index where no use was dated."""
    dates = (folder / name for name in (LAST_USE, INDEX, ABOUT))
    return max(path.stat().st_mtime for path in dates if path.exists())
