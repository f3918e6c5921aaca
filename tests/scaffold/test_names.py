"""Names of a new plugin: derived, valid, and free."""

import keyword
from collections.abc import Mapping
from types import ModuleType

import pytest

from polyvex.errors import PluginError
from polyvex.fusion import Fusion, MLPFusion
from polyvex.hooks import hookimpl
from polyvex.hooks.manager import Registries, load_registries
from polyvex.scaffold import Kind
from polyvex.scaffold.names import KINDS, NewPlugin


@pytest.mark.parametrize("given", ["gray-patch", "polyvex-gray-patch"])
def test_all_names_come_from_one(given: str):
    assert NewPlugin.of(given, "encoder") == NewPlugin(
        name="gray-patch",
        distribution="polyvex-gray-patch",
        module="polyvex_gray_patch",
        component="gray-patch",
        cls="GrayPatchEncoder",
        options="GrayPatchOptions",
    )


@pytest.mark.parametrize(
    ("given", "kind", "component", "cls"),
    [
        ("top-p", "router", "top_p", "TopPRouter"),
        ("mean_fusion", "fusion", "mean_fusion", "MeanFusion"),
        ("by.pairs", "positions", "by_pairs", "ByPairsPositions"),
        ("my_pictures", "dataset", "my-pictures", "MyPicturesDataset"),
        ("f1", "metric", "f1", "F1Metric"),
    ],
)
def test_components_are_written_as_those_of_the_core(given: str, kind: Kind, component: str, cls: str):
    plugin = NewPlugin.of(given, kind)

    assert (plugin.component, plugin.cls) == (component, cls)
    assert plugin.module.isidentifier()
    assert plugin.cls.isidentifier()


@pytest.mark.parametrize(
    "given",
    ["", "polyvex-", "Mine", "3d", "my plugin", "mine!", "-mine", "mine-", "my--plugin", "a/b", "../up", "größe", "_a"],
)
def test_what_is_no_name_is_refused(given: str):
    with pytest.raises(PluginError, match=r"is no name for a plugin\. It begins with a small letter"):
        NewPlugin.of(given, "encoder")


@pytest.mark.parametrize("given", ["class", "polyvex-import"])
def test_a_word_of_python_is_refused(given: str):
    assert keyword.iskeyword(given.removeprefix("polyvex-"))
    with pytest.raises(PluginError, match=r"is a word of Python itself\. Choose another name, such as '.*-metric'"):
        NewPlugin.of(given, "metric")


def test_a_name_may_not_be_too_long():
    assert NewPlugin.of("a" * 24, "encoder").name == "a" * 24
    with pytest.raises(PluginError, match="has 25 characters; expected at most 24"):
        NewPlugin.of("a" * 25, "encoder")


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_speak_of_what_there_is(kind: Kind, registries: Registries):
    """A class to derive from, in the package that is said, and a registry of the field's name."""
    from importlib import import_module

    facts = KINDS[kind]

    assert isinstance(getattr(import_module(facts.package), facts.base), type)
    assert getattr(registries, facts.field) is not None


def test_a_free_name_passes(registries: Registries):
    NewPlugin.of("nobody-has-this", "encoder").check_free("encoder", registries)


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ("basics", "metric", r"a plugin 'basics' is installed: basics \(polyvex-basics "),
        ("mlp", "fusion", r"the fusion 'mlp' is taken by polyvex\.fusion"),
        ("share-row", "positions", "the position scheme 'share_row' is taken by"),
        ("patchify", "encoder", "the encoder 'patchify' is taken by basics"),
        ("testing", "encoder", ""),
    ],
)
def test_a_taken_name_is_refused(given: str, kind: Kind, told: str, registries: Registries):
    plugin = NewPlugin.of(given, kind)
    if not told:
        plugin.check_free(kind, registries)  # polyvex_testing is another module than polyvex.testing
        return
    with pytest.raises(PluginError, match=told):
        plugin.check_free(kind, registries)


def test_an_installed_package_is_not_written_again():
    """Also when its entry point has another name, or it is no plugin at all."""
    nothing = load_registries(third_party=False)
    with pytest.raises(PluginError, match=r"polyvex-basics [\d.]+ is installed"):
        NewPlugin.of("basics", "metric").check_free("metric", nothing)


def test_a_module_that_is_there_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "polyvex_lying_around.py").touch()
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(PluginError, match="a module polyvex_lying_around can be imported already"):
        NewPlugin.of("lying-around", "encoder").check_free("encoder", load_registries(third_party=False))


def test_a_component_passed_by_hand_counts():
    @hookimpl
    def register_fusions() -> Mapping[str, type[Fusion]]:
        return {"mine": MLPFusion}

    module = ModuleType("notebook")
    module.register_fusions = register_fusions  # type: ignore[attr-defined]
    registries = load_registries(third_party=False, extra={"notebook": module})
    with pytest.raises(PluginError, match="the fusion 'mine' is taken by notebook"):
        NewPlugin.of("mine", "fusion").check_free("fusion", registries)
