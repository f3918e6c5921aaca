"""Checksums of stored files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from polyvex.errors import RunError
from polyvex.manifest import Manifest, StoredFile, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "deep" / "b").write_bytes(b"two")
    (tmp_path / "c.7.part").touch()
    return tmp_path


def test_it_lists_every_complete_file(folder: Path) -> None:
    one, two = (StoredFile(size=3, sha256=hashlib.sha256(text).hexdigest()) for text in (b"one", b"two"))
    assert Manifest.of(folder).files == {"a": one, "deep/b": two}
    assert Manifest.of(folder, ["a"]).files == {"a": one}
    assert Manifest.of(folder).faults(folder) == []


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: path.unlink(), "deep/b is missing"),
        (lambda path: path.write_bytes(b""), "deep/b has 0 bytes instead of 3"),
        (lambda path: path.write_bytes(b"twn"), "deep/b has other content (its SHA-256 differs)"),
    ],
    ids=["lost", "cut", "one bit"],
)
def test_a_file_that_differs_is_named(damage: Callable[[Path], object], fault: str, folder: Path) -> None:
    manifest = Manifest.of(folder)
    damage(folder / "deep" / "b")
    assert manifest.faults(folder) == [fault]


def test_it_survives_json(folder: Path) -> None:
    manifest = Manifest.of(folder)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize("value", [None, [], {"files": {"a": 1}}, {"version": 2, "files": {}}])
def test_a_damaged_record_names_its_file(value: object) -> None:
    with pytest.raises(RunError, match=r"^run/finished\.json") as caught:
        read_manifest(value, Path("run/finished.json"))
    assert caught.value.code == "damaged-record"
