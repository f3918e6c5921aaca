"""Where the cache is, and what makes two tokens interchangeable."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import torch

from polyvex.cache import cache_root, place
from polyvex.cache.place import places
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe

Folders = Callable[..., dict[str, Path]]


@pytest.fixture
def folders(tiny_recipe: Callable[..., Recipe], registries: Registries) -> Folders:
    def find(*overrides: str, **tables: Any) -> dict[str, Path]:
        found = places(tiny_recipe(*overrides, **tables), registries, root=Path("/cache"))
        return {name: one.folder for name, one in found.items()}

    return find


def test_the_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEX_CACHE", "/from/environment")
    assert cache_root("/from/argument") == Path("/from/argument")


def test_the_environment_goes_before_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEX_CACHE", "/from/environment")
    assert cache_root() == Path("/from/environment")


def test_else_it_is_the_platforms_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLYVEX_CACHE")
    assert cache_root() == platformdirs.user_cache_path("polyvex") / "tokens"


def test_an_empty_variable_is_not_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    # `POLYVEX_CACHE= polyvex train …` unsets it, as with most programs.
    monkeypatch.setenv("POLYVEX_CACHE", "")
    assert cache_root() == platformdirs.user_cache_path("polyvex") / "tokens"


def test_a_folder_tells_its_encoder(folders: Folders) -> None:
    found = folders()
    assert found["patchify"].name.startswith("patchify-")
    assert found["color-grid"].name.startswith("color-grid-")


@pytest.mark.parametrize(
    "change",
    [
        "fusion.patches_per_token=2",
        "positions.use=sequential",
        "seed=4",
        "lm.layers=1",
        "data.max_unreadable=0.5",
        "cache.batch_size=3",
        "encoders.patchify.name=other",
    ],
)
def test_what_comes_after_the_encoder_shares_its_tokens(change: str, folders: Folders) -> None:
    assert list(folders(change).values()) == list(folders().values())


def test_order_does_not_matter(folders: Folders, tiny_tables: Callable[[], dict[str, Any]]) -> None:
    assert folders(encoders=tiny_tables()["encoders"][::-1]) == folders()


@pytest.mark.parametrize(
    "change", ["encoders.patchify.dim=16", "encoders.patchify.seed=1", "encoders.patchify.patch_size=8"]
)
def test_options_of_the_encoder_tell_its_tokens_apart(change: str, folders: Folders) -> None:
    before, after = folders(), folders(change)
    assert before["patchify"] != after["patchify"]
    assert before["color-grid"] == after["color-grid"]


def test_precision_tells_tokens_apart(folders: Folders) -> None:
    assert folders()["patchify"] != folders("cache.dtype=float16")["patchify"]


@pytest.mark.parametrize("library", ["torch", "pillow", "einops"])
def test_library_versions_tell_tokens_apart(library: str, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folders()
    real = place.version
    monkeypatch.setattr(place, "version", lambda name: "0.0" if name == library else real(name))
    assert folders()["patchify"] != before["patchify"]


def test_weights_tell_tokens_apart(folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from polyvex_basics import Patchify

    from polyvex.encoders import WeightsPlace

    file = tmp_path / "weights"
    monkeypatch.setattr(Patchify, "weights", classmethod(lambda cls, options: WeightsPlace(path=file, install="")))
    found = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        found.append(folders()["patchify"])
    assert found[0] != found[1]


def test_files_beside_the_weights_and_the_shards_of_an_index_tell_tokens_apart(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from polyvex_basics import Patchify

    from polyvex.encoders import WeightsPlace

    index, shard, beside = (tmp_path / name for name in ("m.index.json", "a.bin", "preprocessor_config.json"))
    index.write_text('{"weight_map": {"x": "a.bin"}}')
    where = WeightsPlace(path=index, install="", beside=(beside,))
    monkeypatch.setattr(Patchify, "weights", classmethod(lambda cls, options: where))
    found = set()
    for contents in ((b"1", b"1"), (b"2", b"1"), (b"1", b"2")):
        shard.write_bytes(contents[0])
        beside.write_bytes(contents[1])
        found.add(folders()["patchify"])
    assert len(found) == 3


def test_only_what_changes_the_tiles_of_a_tiling_tells_tokens_apart(folders: Folders) -> None:
    plain = folders("encoders.0.tiling.grids=[[1, 2]]")["patchify"]
    assert plain != folders()["patchify"]
    for change, same in (("newline=false", True), ('fit="pad"', True), ('fit="squash"', False), ("base=false", False)):
        changed = folders("encoders.0.tiling.grids=[[1, 2]]", f"encoders.0.tiling.{change}")["patchify"]
        assert (changed == plain) is same, change


def test_everything_that_decided_is_written_down(tiny_recipe: Callable[..., Recipe], registries: Registries) -> None:
    about = places(tiny_recipe(), registries, root=Path("/cache"))["patchify"].about
    assert about["options"] == {"image_size": 32, "patch_size": 16, "dim": 8, "seed": 0, "tiling": None}
    assert about["computed_in"] == "float32"
    assert (
        about["libraries"]["torch"] == torch.__version__.split("+")[0]
        or about["libraries"]["torch"] == torch.__version__
    )
    assert about["plugin"].startswith("polyvex-basics ")


def test_what_a_plugin_requires_tells_tokens_apart(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folders()
    monkeypatch.setattr(place, "requires", lambda name: ["polyvex", "timm>=1.0; python_version > '3'", "no-such-thing"])
    assert set(place._libraries("polyvex-basics")) == {"torch", "pillow", "timm"}
    assert folders()["patchify"] != before["patchify"]


def test_the_plugins_version_and_the_format_tell_tokens_apart(
    folders: Folders, tiny_recipe: Callable[..., Recipe], registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folders()["patchify"]
    with monkeypatch.context() as patch:
        patch.setattr(place, "FORMAT", 0)
        assert folders()["patchify"] != before
    entry = registries.encoders.entry("patchify")
    newer = replace(entry, plugin=replace(entry.plugin, version="99"))
    monkeypatch.setitem(registries.encoders.entries, "patchify", newer)
    assert folders()["patchify"] != before
