"""Exact names, loud clashes, near misses."""

import pytest

from polyvex.errors import PluginError
from polyvex.hooks.registry import Plugin, Registry, unknown

FIRST = Plugin(name="one", distribution="polyvex-one", version="1.0")
SECOND = Plugin(name="two", distribution="polyvex-two", version="2.0")


@pytest.fixture
def registry() -> Registry[object]:
    made: Registry[object] = Registry("encoder")
    made.add("clip", int, FIRST)
    made.add("dinov2", str, SECOND)
    return made


def test_names_are_exact(registry: Registry[object]) -> None:
    assert registry["clip"] is int
    assert "clip" in registry
    assert "cli" not in registry
    assert "CLIP" not in registry


def test_entries_know_their_plugin(registry: Registry[object]) -> None:
    assert registry.entry("dinov2").plugin == SECOND


def test_listing_is_sorted(registry: Registry[object]) -> None:
    registry.add("beit", float, FIRST)
    assert registry.names() == [entry.name for entry in registry] == ["beit", "clip", "dinov2"]
    assert len(registry) == 3


def test_a_clash_names_both_plugins_and_a_way_out(registry: Registry[object]) -> None:
    with pytest.raises(PluginError) as caught:
        registry.add("clip", bytes, SECOND)
    assert str(caught.value) == (
        "two plugins register the encoder 'clip': one (polyvex-one 1.0) and two (polyvex-two 2.0). "
        "Uninstall one, or block it: POLYVEX_DISABLE_PLUGINS=two"
    )


def test_after_a_clash_nobody_can_use_the_name_and_all_others_can(registry: Registry[object]) -> None:
    with pytest.raises(PluginError):
        registry.add("clip", bytes, SECOND)
    with pytest.raises(PluginError, match="two plugins register the encoder 'clip'"):
        registry["clip"]
    assert registry.names() == ["dinov2"]
    assert "clip" not in registry
    assert len(registry) == 1


def test_a_name_of_the_core_stays_its_own() -> None:
    registry: Registry[object] = Registry("fusion")
    registry.add("mlp", int, Plugin(name="polyvex.fusion", distribution="polyvex", version="1"))
    with pytest.raises(PluginError, match="two plugins register the fusion 'mlp'"):
        registry.add("mlp", bytes, SECOND)
    assert registry["mlp"] is int


def test_an_unknown_name_gets_the_nearest(registry: Registry[object]) -> None:
    with pytest.raises(PluginError) as caught:
        registry["dino"]
    assert str(caught.value) == "unknown encoder 'dino'. Did you mean 'dinov2'? Known: clip, dinov2"


def test_far_names_get_no_hint() -> None:
    assert unknown("router", "xyz", ["top_k"]) == "unknown router 'xyz'. Known: top_k"


def test_an_empty_registry_asks_for_a_plugin() -> None:
    assert unknown("encoder", "sam", []) == (
        "unknown encoder 'sam'. Known: none; is a plugin missing? See: polyvex plugins doctor"
    )


def test_at_most_three_near_names() -> None:
    near = unknown("encoder", "aaaa", ["aaaa1", "aaaa2", "aaaa3", "aaaa4"]).split(" Known")[0]
    assert near.count("'aaaa") == 4  # the name itself and three hints
