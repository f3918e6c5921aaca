"""Looking after the cache: what is listed, what is removed, and what never is."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import Tensor

from polyvex.cache import store as store_module
from polyvex.cache.store import INDEX, LAST_USE, TokenStore
from polyvex.cache.upkeep import info, prune, verify
from polyvex.errors import StorageError

ABOUT = {"encoder": "patchify", "options": {"dim": 2}, "dtype": "float32"}


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None].expand(-1, 1, 2).clone()


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    made = TokenStore(tmp_path / "patchify-1", ABOUT)
    made.write(["a", "b", "c"], values(1, 2, 3))
    made.mark_used()
    return made


def kinds(root: Path, find: Callable = verify, **options: object) -> list[str]:
    return sorted(finding.kind for finding in find(root, **options))


def shards(store: TokenStore) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"))


def leave_rubbish(store: TokenStore) -> list[Path]:
    """What killed writers leave: an unfinished file, one of safetensors, and a shard that the index does not name."""
    names = ("x.safetensors.123.part", ".tmpAbCdEf", "orphan.safetensors", "old.safetensors.part")
    for name in names:
        (store.folder / name).write_bytes(b"12345")
    return [store.folder / name for name in names]


def test_a_whole_store_has_nothing_to_report(store: TokenStore, tmp_path: Path) -> None:
    assert kinds(tmp_path) == []
    assert kinds(tmp_path, prune) == []
    assert torch.equal(TokenStore(store.folder, ABOUT).read(["c"]), values(3))


def test_info_counts_images_tiles_and_bytes(store: TokenStore, tmp_path: Path) -> None:
    store.write(["d"], values(4, 5), [2])
    os.utime(store.folder / LAST_USE, (0, 86400 * 365))
    os.utime(store.folder / INDEX, (0, 0))
    os.utime(store.folder / "about.json", (0, 0))
    (one,) = info(tmp_path)
    assert (one.encoder, one.options, one.dtype) == ("patchify", {"dim": 2}, "float32")
    assert (one.images, one.tiles, one.problem) == (4, 5, "")
    assert one.bytes == sum(path.stat().st_size for path in store.folder.iterdir())
    assert one.last_use == "1971-01-01"


def test_rubbish_is_listed_by_verify_and_removed_by_prune(store: TokenStore, tmp_path: Path) -> None:
    rubbish = leave_rubbish(store)
    assert kinds(tmp_path) == ["orphan", "part", "part", "part"]
    assert kinds(tmp_path, prune, dry_run=True) == kinds(tmp_path)
    assert all(path.exists() for path in rubbish)
    found = list(prune(tmp_path))
    assert {Path(one.path) for one in found} == set(rubbish)
    assert sum(one.bytes for one in found) == 20
    assert not any(path.exists() for path in rubbish)
    assert len(TokenStore(store.folder, ABOUT)) == 3


def test_other_folders_and_files_are_never_touched(store: TokenStore, tmp_path: Path) -> None:
    for path in (tmp_path / "mine" / "a.safetensors", tmp_path / "x.part", store.folder / "notes.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert kinds(tmp_path, prune, unused_days=1000.0, damaged=True) == []
    assert (tmp_path / "mine" / "a.safetensors").exists()
    assert (tmp_path / "x.part").exists()
    assert (store.folder / "notes.txt").exists()


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_a_damaged_shard_is_found_and_removed_on_request(damage: str, store: TokenStore, tmp_path: Path) -> None:
    store.write(["d"], values(4))
    shard = store.folder / store._rows["a"][0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.unlink() if damage == "gone" else shard.write_bytes(content if damage == "bit" else content[:-1])
    assert kinds(tmp_path) == ["damaged"]
    assert kinds(tmp_path, prune, damaged=True, dry_run=True) == ["damaged"]
    assert kinds(tmp_path) == ["damaged"]
    assert kinds(tmp_path, prune, damaged=True) == ["damaged"]
    assert kinds(tmp_path) == []
    again = TokenStore(store.folder, ABOUT)  # without a warning
    assert ("a" in again, "d" in again) == (False, True)


def test_a_damaged_index_takes_its_store_along_only_on_request(store: TokenStore, tmp_path: Path) -> None:
    (store.folder / INDEX).write_bytes(b"not a database" * 100)
    assert kinds(tmp_path) == ["damaged"]
    assert "damaged" in info(tmp_path)[0].problem
    assert [one.bytes for one in prune(tmp_path)] == [0]
    assert store.folder.exists()
    assert kinds(tmp_path, prune, damaged=True) == ["damaged"]
    assert not store.folder.exists()


def test_unused_rows_are_taken_out_of_a_shard(store: TokenStore, tmp_path: Path) -> None:
    # As an older version of polyvex left them: the first of two writers won, the other's rows stayed in its shard.
    with closing(sqlite3.connect(store.folder / INDEX)) as index, index:
        index.execute("delete from tokens where image = 'b'")
    before = shards(store)
    (finding,) = verify(tmp_path)
    assert (finding.kind, finding.details) == ("dead rows", "1 of 3 rows")
    open_before = TokenStore(store.folder, ABOUT)
    assert kinds(tmp_path, prune) == ["dead rows"]
    assert set(shards(store)).isdisjoint(before)
    assert kinds(tmp_path) == []
    assert torch.equal(TokenStore(store.folder, ABOUT).read(["a", "c"]), values(1, 3))
    assert torch.equal(open_before.read(["c", "a"]), values(3, 1))  # a process that trains meanwhile


def test_a_shard_without_any_row_is_removed(store: TokenStore, tmp_path: Path) -> None:
    with closing(sqlite3.connect(store.folder / INDEX)) as index, index:
        index.execute("delete from tokens")
    assert kinds(tmp_path, prune) == ["dead rows"]
    assert shards(store) == []
    assert kinds(tmp_path) == []


def test_stores_that_were_not_used_for_long_go_on_request(store: TokenStore, tmp_path: Path) -> None:
    used = TokenStore(tmp_path / "patchify-2", ABOUT)
    used.write(["a"], values(1))
    long_ago = time.time() - 31 * 86400
    for path in store.folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert kinds(tmp_path, prune) == []
    assert kinds(tmp_path, prune, unused_days=32.0) == []
    assert kinds(tmp_path, prune, unused_days=30.0, dry_run=True) == ["unused"]
    assert store.folder.exists()
    (finding,) = prune(tmp_path, unused_days=30.0)
    assert (Path(finding.path), finding.details) == (store.folder, "last used 31 days ago")
    assert not store.folder.exists()
    assert used.folder.exists()


def test_a_use_keeps_a_store(store: TokenStore, tmp_path: Path) -> None:
    for path in store.folder.iterdir():
        os.utime(path, (0, 0))
    TokenStore(store.folder, ABOUT).mark_used()
    assert kinds(tmp_path, prune, unused_days=1.0) == []


def test_what_a_killed_writer_leaves_is_removed(store: TokenStore, tmp_path: Path) -> None:
    for step in ("save_file", "sha256_of"):  # before and after the shard has its name
        child = os.fork()
        if child == 0:
            setattr(store_module, step, lambda *_, **__: os._exit(9))
            try:
                store.write(["d"], values(4))
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert kinds(tmp_path) == ["orphan", "part"]
    assert kinds(tmp_path, prune) == ["orphan", "part"]
    assert kinds(tmp_path) == []
    store.write(["d"], values(4))
    assert torch.equal(TokenStore(store.folder, ABOUT).read(["a", "d"]), values(1, 4))


def test_a_read_only_cache_can_be_looked_at(store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_rubbish(store)

    def refuse(*_: object) -> None:
        raise StorageError("read-only", code="permission-denied")

    monkeypatch.setattr("polyvex.cache.index.Index.changing", refuse)
    assert len(kinds(tmp_path)) == 4
    assert info(tmp_path)[0].images == 3
    with pytest.raises(StorageError):
        kinds(tmp_path, prune)


def test_no_cache_is_an_empty_one(tmp_path: Path) -> None:
    assert info(tmp_path / "none") == list(verify(tmp_path / "none")) == list(prune(tmp_path / "none")) == []
