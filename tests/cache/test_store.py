"""Tokens on disk: whole shards or nothing, and damage is told and mended."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from polyvex.cache.store import TokenStore
from polyvex.encoders.weights import sha256_of
from polyvex.errors import CacheError

ABOUT = {"encoder": "patchify", "dtype": "float32"}


def values(*numbers: float) -> Tensor:
    """One token of width 2 per image."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None].expand(-1, 1, 2).clone()


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    made = TokenStore(tmp_path / "store", ABOUT)
    made.write(["a", "b"], values(1, 2))
    made.write(["c"], values(3))
    return made


def shards(store: TokenStore) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)


def test_tokens_come_back_in_the_order_of_the_question(store: TokenStore) -> None:
    assert torch.equal(store.read(["c", "a", "c"]), values(3, 1, 3))


def test_another_process_finds_them(store: TokenStore) -> None:
    again = TokenStore(store.folder, ABOUT)
    assert len(again) == 3
    assert torch.equal(again.read(["a", "b", "c"]), values(1, 2, 3))


def test_a_new_store_is_empty_and_makes_no_folder(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "new", ABOUT)
    assert (len(store), "a" in store, (tmp_path / "new").exists()) == (0, False, False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_precision_on_disk_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    TokenStore(tmp_path, ABOUT).write(["a"], values(1 / 3).to(dtype))
    read = TokenStore(tmp_path, ABOUT).read(["a"])
    assert read.dtype == dtype
    assert torch.equal(read, values(1 / 3).to(dtype))


def test_what_it_was_made_with_is_written_beside_it(store: TokenStore) -> None:
    assert json.loads((store.folder / "about.json").read_text()) == ABOUT


def test_the_first_of_two_writers_wins(store: TokenStore) -> None:
    other = TokenStore(store.folder, ABOUT)
    other._rows.clear()  # as if it had opened the store before the images were there
    other.write(["a", "d"], values(9, 4))
    again = TokenStore(store.folder, ABOUT)
    assert torch.equal(again.read(["a", "d"]), values(1, 4))


def test_writers_that_encode_the_same_images_leave_no_unused_shard(store: TokenStore) -> None:
    late, partly = TokenStore(store.folder / "x", ABOUT), TokenStore(store.folder / "x", ABOUT)
    TokenStore(store.folder / "x", ABOUT).write(["a", "b"], values(1, 2))
    late.write(["a", "b"], values(8, 9))
    assert len(shards(TokenStore(store.folder / "x", ABOUT))) == 1
    assert torch.equal(late.read(["a", "b"]), values(1, 2))  # what the first one wrote
    partly.write(["d", "a", "e"], values(4, 5, 9, 6, 7), [2, 1, 2])
    assert torch.equal(partly.read(["e", "d", "a"]), values(6, 7, 4, 5, 1))
    (added,) = set(shards(partly)) - {store.folder / "x" / late._rows["a"][0]}
    assert load_file(added)["tokens"].shape[0] == 4


def test_an_image_twice_in_one_shard_is_kept_once(tmp_path: Path) -> None:
    made = TokenStore(tmp_path, ABOUT)
    made.write(["a", "b", "a"], values(1, 2, 3))
    assert torch.equal(made.read(["a", "b"]), values(1, 2))


def test_shards_have_ordinary_permissions(store: TokenStore) -> None:
    (store.folder / "plain").touch()
    expected = (store.folder / "plain").stat().st_mode
    assert {path.stat().st_mode for path in store.folder.iterdir()} == {expected}


def test_a_missing_image_is_an_error_with_the_command(store: TokenStore) -> None:
    with pytest.raises(CacheError) as caught:
        store.read(["a", "x", "y"])
    assert str(caught.value) == f"2 images are not in the cache {store.folder}. Run: polyvex cache RECIPE"


@pytest.mark.parametrize("damage", ["truncated", "gone", "longer"])
def test_a_damaged_shard_is_dropped_with_a_warning_and_the_others_stay(damage: str, store: TokenStore) -> None:
    shard = shards(store)[0]
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1] if damage == "truncated" else shard.read_bytes() + b"x")
    with pytest.warns(UserWarning, match=f"cache shard {shard} is damaged; its images are encoded again"):
        again = TokenStore(store.folder, ABOUT)
    assert ("a" in again, "b" in again, "c" in again) == (False, False, True)


def test_a_dropped_image_can_be_written_again(store: TokenStore) -> None:
    shards(store)[0].unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        again = TokenStore(store.folder, ABOUT)
    again.write(["a", "b"], values(1, 2))
    assert torch.equal(TokenStore(store.folder, ABOUT).read(["a", "b", "c"]), values(1, 2, 3))


def test_damage_is_told_once(store: TokenStore) -> None:
    shards(store)[0].unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        TokenStore(store.folder, ABOUT)
    TokenStore(store.folder, ABOUT)  # warnings are errors here


def test_a_shard_of_the_right_size_that_cannot_be_read_is_an_error_with_its_path(store: TokenStore) -> None:
    shard = shards(store)[0]
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(CacheError) as caught:
        TokenStore(store.folder, ABOUT).read(["a"])
    assert caught.value.code == "cache-damaged"
    assert str(shard) in str(caught.value)


def test_a_shard_without_tokens_is_an_error(store: TokenStore) -> None:
    from safetensors.torch import save_file

    shard = shards(store)[0]
    size = shard.stat().st_size
    save_file({"notoks": values(1, 2)}, shard)  # as long a name, so the file is as long
    assert shard.stat().st_size == size
    again = TokenStore(store.folder, ABOUT)
    again._digests[shard.name] = sha256_of(shard)  # written so by somebody
    with pytest.raises(CacheError, match="cannot read"):
        again.read(["a"])


def test_a_damaged_index_is_an_error_with_the_folder(store: TokenStore) -> None:
    (store.folder / "index.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(CacheError) as caught:
        TokenStore(store.folder, ABOUT)
    assert caught.value.code == "cache-damaged"
    assert str(store.folder / "index.sqlite") in str(caught.value)


@pytest.mark.parametrize("step", ["cache.store.save_file", "storage.os.replace", "cache.store.sha256_of"])
def test_a_writer_that_is_killed_leaves_all_of_a_shard_or_nothing(
    step: str, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*args: object, **kwargs: object) -> None:
        if step.endswith("save_file"):
            Path(args[1]).write_bytes(b"half")  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"polyvex.{step}", kill)
        with pytest.raises(Killed):
            store.write(["d"], values(4))
    again = TokenStore(store.folder, ABOUT)  # no warning: what is not in the index is not damaged
    assert ("d" in again, len(again)) == (False, 3)
    assert len(shards(store)) == 2
    again.write(["d"], values(4))
    assert torch.equal(again.read(["d", "a"]), values(4, 1))


def test_two_processes_may_write_at_once(store: TokenStore) -> None:
    # One holds the index open while the other writes: it waits, it does not fail.
    with closing(sqlite3.connect(store.folder / "index.sqlite")) as other:
        other.execute("select * from tokens").fetchone()
        store.write(["d"], values(4))
    assert "d" in TokenStore(store.folder, ABOUT)


def test_rows_of_a_shard_need_not_be_contiguous_in_memory(tmp_path: Path) -> None:
    wide = torch.arange(12.0).reshape(2, 3, 2).transpose(1, 2)
    TokenStore(tmp_path, ABOUT).write(["a", "b"], wide)
    assert torch.equal(TokenStore(tmp_path, ABOUT).read(["a", "b"]), wide)


def test_a_shard_that_changed_inside_is_never_read(store: TokenStore) -> None:
    shard = shards(store)[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # one bit of the last token: as large, and still a whole safetensors file
    shard.write_bytes(content)
    again = TokenStore(store.folder, ABOUT)
    with pytest.raises(CacheError) as caught:
        again.read(["a"])
    assert caught.value.code == "cache-damaged"
    assert str(shard) in str(caught.value)
    assert torch.equal(again.read(["c"]), values(3))


@pytest.mark.parametrize(
    "change",
    [
        "update tokens set row = 0",
        "update tokens set tiles = 2 where row = 1",
        "update tokens set shard = x'00' where row = 1",
        "update shards set bytes = bytes + 1",
        "update shards set name = 'other.safetensors'",
        "delete from shards",
    ],
)
def test_an_index_with_another_number_than_was_written_is_refused(tmp_path: Path, change: str) -> None:
    store = TokenStore(tmp_path, ABOUT)
    store.write(["a", "b"], torch.arange(4.0).reshape(2, 2, 1))
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as index, index:
        index.execute(change)
    with pytest.raises(CacheError) as caught:
        TokenStore(tmp_path, ABOUT)
    assert caught.value.code == "cache-damaged"
