"""Tokens that are not reused although similar ones exist: the reason is reported, before and after."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from polyvex.cache import CacheReport, TokenCache, fill_cache, place
from polyvex.cache.changes import changes, notes_on
from polyvex.cache.place import cache_root, places
from polyvex.data import Sample
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries
from polyvex.plan.plan import make_plan
from polyvex.recipe import Recipe, parse_recipe
from polyvex.recipe.samples import read_split

PLUGIN = '''"""An edited plugin."""
from polyvex.hooks import hookimpl
from polyvex_basics import Patchify

class Mine(Patchify):
    """Patches, times a factor."""
    def forward(self, pixels):
        return super().forward(pixels * 1.0)

@hookimpl
def register_encoders():
    return {"pvmine": Mine}
'''


@pytest.fixture
def edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tables: Callable[[], dict]
) -> Iterator[Callable[[str, str], tuple[Recipe, Registries]]]:
    """A function that edits the plugin and loads it, with the tiny recipe on its encoder, as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def edit(old: str, new: str) -> tuple[Recipe, Registries]:
        (tmp_path / "pvmine.py").write_text(PLUGIN.replace(old, new), encoding="utf-8")
        sys.modules.pop("pvmine", None)
        importlib.invalidate_caches()
        registries = load_registries(extra={"pvmine": importlib.import_module("pvmine")})
        encoder = {"use": "pvmine", "image_size": 32, "patch_size": 16, "dim": 8}
        return parse_recipe({**tiny_tables(), "encoders": [encoder]}, registries=registries), registries

    yield edit
    sys.modules.pop("pvmine", None)


def fill(recipe: Recipe, registries: Registries) -> tuple[TokenCache, CacheReport, list[Sample]]:
    samples = list(read_split(recipe, registries, "train"))
    return *fill_cache(recipe, registries, samples, progress=False), samples


def test_an_edited_forward_is_never_served_from_the_cache(edited: Callable[[str, str], tuple]) -> None:
    recipe, registries = edited("", "")
    cache, report, samples = fill(recipe, registries)
    assert (report.encoded, report.notes) == ({"pvmine": 18}, {})
    path = samples[0].images[0]
    before = cache.tokens([path])["pvmine"]

    recipe, registries = edited("pixels * 1.0", "pixels * 2.0")  # the same version
    (note,) = [note for note in make_plan(recipe, registries).notes if "not reused" in note]
    assert "18 images" in note
    assert "code of pvmine.py" in note
    cache, report, _ = fill(recipe, registries)
    assert report.encoded == {"pvmine": 18}
    assert "code of pvmine.py" in str(report)
    assert not torch.equal(cache.tokens([path])["pvmine"], before)

    recipe, registries = edited("times a factor", "times another factor")  # a docstring: the first code again
    cache, report, _ = fill(recipe, registries)
    assert (report.found, report.notes) == ({"pvmine": 18}, {})
    assert torch.equal(cache.tokens([path])["pvmine"], before)


def test_other_options_are_no_reason_to_wonder(
    tiny_recipe: Callable[..., Recipe], registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tiny_recipe(), registries)
    other = places(tiny_recipe("encoders.patchify.dim=4"), registries, root=cache_root())["patchify"]
    assert notes_on(other) == []
    monkeypatch.setattr(place, "version", lambda name: "0.0")
    (note,) = notes_on(places(tiny_recipe(), registries, root=cache_root())["patchify"])
    assert "libraries.torch" in note


def test_changes_name_files_and_values() -> None:
    before = {"format": 4, "code": {"a.py": "1", "b.py": "1"}}
    assert changes(before, {"format": 5, "code": {"a.py": "2", "c.py": "1"}}) == [
        "code of a.py",
        "code of b.py",
        "code of c.py",
        "format: 4 there, 5 here",
    ]
    assert changes({"format": 3}, {"format": 3, "code": {"a.py": "2"}})[0].startswith("polyvex did not record")


class NotebookPlugin:
    """Registers a class that has no file."""

    def __init__(self, component: type):
        self.component = component

    @hookimpl
    def register_encoders(self) -> dict[str, type]:
        return {"pvmine": self.component}


def test_a_class_without_a_file_is_loud(tiny_tables: Callable[[], dict]) -> None:
    module = ModuleType("pvnotebook")
    exec(PLUGIN, module.__dict__)
    registries = load_registries(extra={"pv": NotebookPlugin(module.__dict__["Mine"])})
    encoder = {"use": "pvmine", "image_size": 32, "patch_size": 16, "dim": 8}
    recipe = parse_recipe({**tiny_tables(), "encoders": [encoder]}, registries=registries)
    (note,) = fill(recipe, registries)[1].notes["pvmine"]
    assert "STALE" in note
    assert "--refresh" in note


def test_refresh_encodes_again_what_is_there(
    tiny_recipe: Callable[..., Recipe], registries: Registries, cache_folder: Path
) -> None:
    recipe = tiny_recipe()
    samples = list(read_split(recipe, registries, "train"))
    fill(recipe, registries)
    shards = set(cache_folder.rglob("*.safetensors"))
    cache, report = fill_cache(recipe, registries, samples, progress=False, refresh=True)
    assert report.encoded == {"patchify": 18, "color-grid": 18}
    assert len(shards) == len(set(cache_folder.rglob("*.safetensors")) - shards) == 2  # the old ones are gone
    assert len(set(cache_folder.rglob("*.safetensors"))) == 2
    assert cache.tokens([samples[0].images[0]])["patchify"].shape == (1, 4, 8)
