"""Tokens on disk: shards of equal-sized tensors, and an index from an image's hash to its rows, one for each tile."""

import json
import os
import sqlite3
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyvex.encoders.weights import sha256_of
from polyvex.errors import CacheError

TABLE = """
create table if not exists tokens (image text primary key, shard text not null, row integer not null,
    tiles integer not null);
create table if not exists shards (name text primary key, bytes integer not null, sha256 text not null);
"""


class TokenStore:
    """The tokens of one encoder by image, in ``folder``.

    Images are named by the SHA-256 of their file. A shard is written beside its final name and renamed when it is
    whole, then entered in the index, so a process that is killed leaves either all of it or nothing. Several
    processes may write at once; an image that two of them encoded is kept once. A shard's SHA-256 is compared when it
    is first read, so that no damaged token is ever trained on.
    """

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.folder = folder
        self.about = about
        self._shards: dict[str, Tensor] = {}
        self._rows: dict[str, tuple[str, int, int]] = {}
        self._digests: dict[str, str] = {}
        self.load_index()

    def load_index(self) -> None:
        """Read the index again, and drop what refers to shards that are gone or cut short."""
        if not self._index_path.exists():
            return
        with self._index() as index:
            for name, size in index.execute("select name, bytes from shards").fetchall():
                path = self.folder / name
                if not path.exists() or path.stat().st_size != size:
                    warnings.warn(f"cache shard {path} is damaged; its images are encoded again", stacklevel=2)
                    index.execute("delete from tokens where shard = ?", (name,))
                    index.execute("delete from shards where name = ?", (name,))
            self._digests = dict(index.execute("select name, sha256 from shards").fetchall())
            self._rows = {image: tuple(where) for image, *where in index.execute("select * from tokens")}

    def __contains__(self, image: str) -> bool:
        return image in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def tiles(self) -> int:
        """Pictures that are kept: images, or the tiles that they were cut into."""
        return sum(tiles for _, _, tiles in self._rows.values())

    def write(
        self, images: Sequence[str], values: Float[Tensor, "tiles tokens dim"], tiles: Sequence[int] | None = None
    ) -> None:
        """Add one shard.

        Args:
            tiles: how many of the ``values`` belong to each image; one if not given.
        """
        counts = [1] * len(images) if tiles is None else list(tiles)
        if sum(counts) != len(values):
            raise CacheError(f"got {len(values)} tiles for {len(images)} images, expected {sum(counts)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_about()
        name = f"{uuid.uuid4().hex}.safetensors"
        half_done = self.folder / f"{name}.part"
        save_file({"tokens": values.contiguous()}, half_done)
        size, digest = half_done.stat().st_size, sha256_of(half_done)
        os.replace(half_done, self.folder / name)
        starts = [0, *accumulate(counts)]
        rows = [(image, name, start, count) for image, start, count in zip(images, starts, counts, strict=False)]
        with self._index() as index:
            index.execute("insert into shards values (?, ?, ?)", (name, size, digest))
            index.executemany("insert or ignore into tokens values (?, ?, ?, ?)", rows)
        self._digests[name] = digest
        self._rows.update({image: (name, start, count) for image, _, start, count in rows if image not in self._rows})

    def read(self, images: Sequence[str]) -> Float[Tensor, "tiles tokens dim"]:
        """Tokens of some images, in that order, tile after tile, in the precision of the disk.

        Raises:
            CacheError: if an image is not in the cache, or its shard is damaged. The shard is named.
        """
        if lost := [image for image in images if image not in self._rows]:
            raise CacheError(f"{len(lost)} images are not in the cache {self.folder}. Run: polyvex cache RECIPE")
        where = [self._rows[image] for image in images]
        return torch.cat([self._shard(shard)[row : row + tiles] for shard, row, tiles in where])

    def _shard(self, name: str) -> Tensor:
        if name not in self._shards:
            path = self.folder / name
            try:
                if sha256_of(path) != self._digests[name]:
                    raise CacheError(f"{path} is damaged: its content has changed. Delete it and cache again")
                self._shards[name] = load_file(path)["tokens"]
            except (SafetensorError, OSError, KeyError) as error:
                raise CacheError(f"cannot read {path}: {error}. Delete it and cache again") from None
        return self._shards[name]

    @property
    def _index_path(self) -> Path:
        return self.folder / "index.sqlite"

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._index_path, timeout=60)) as connection, connection:
                connection.executescript(TABLE)
                yield connection
        except sqlite3.DatabaseError as error:
            raise CacheError(f"the index {self._index_path} is damaged: {error}. Delete {self.folder}") from None

    def _write_about(self) -> None:
        path = self.folder / "about.json"
        if not path.exists():
            path.write_text(json.dumps(self.about, indent=2, sort_keys=True), encoding="utf-8")
