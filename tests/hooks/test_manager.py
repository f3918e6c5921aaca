"""Finding plugins: clashes stop, broken plugins do not, nothing is global. Entry points are fakes."""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from polyvex.errors import PluginError
from polyvex.fusion import Fusion, MLPFusion, register_fusions
from polyvex.hooks import hookimpl, manager
from polyvex.hooks.manager import BUILT_IN, KINDS, PluginStatus, Registries, load_registries
from polyvex.hooks.registry import Plugin
from polyvex.positions.schemes import Sequential

Install = Callable[..., None]


def plugin(**hooks: Any) -> ModuleType:
    """A plugin's module, from what each hook returns; an exception is raised instead."""
    module = ModuleType("a_plugin")

    def implement(result: Any) -> Callable[[], Any]:
        def implementation() -> Any:
            if isinstance(result, BaseException):
                raise result
            return result

        return hookimpl(implementation)

    for name, result in hooks.items():
        setattr(module, name, implement(result))
    return module


class FakePoint:
    """An entry point of a distribution that is not installed."""

    def __init__(self, name: str, load: Callable[[], Any], requires: list[str] | None = None):
        self.name = name
        self.load = load
        self.dist = SimpleNamespace(metadata={"Name": f"polyvex-{name}"}, version="9.9", requires=requires)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """A function that makes these modules (or errors at import) the only installed plugins."""

    def make(**modules: Any) -> None:
        def loader(module: Any) -> Callable[[], Any]:
            def load() -> Any:
                if isinstance(module, BaseException):
                    raise module
                return module

            return load

        points = [FakePoint(name, loader(module)) for name, module in modules.items()]
        monkeypatch.setattr(manager, "entry_points", lambda group: points if group == "polyvex" else [])

    return make


def status_of(registries: Registries, name: str) -> PluginStatus:
    (found,) = [status for status in registries.plugins if status.plugin.name == name]
    return found


def test_built_ins_come_through_the_same_hooks() -> None:
    registries = load_registries(third_party=False)
    assert [status.plugin.name for status in registries.plugins] == list(BUILT_IN)
    assert registries.fusions.entry("mlp").plugin.distribution == "polyvex"
    assert len(registries.encoders) == 0


def test_each_kind_has_its_hook() -> None:
    from polyvex.hooks import specs

    hooks = {name for name in vars(specs) if name.startswith("register_")}
    assert hooks == {f"register_{kind}" for kind in KINDS}


def test_an_installed_plugin_is_found_with_its_distribution(install: Install) -> None:
    install(mine=plugin(register_fusions={"mine": MLPFusion}))
    registries = load_registries()
    assert registries.fusions["mine"] is MLPFusion
    assert str(registries.fusions.entry("mine").plugin) == "mine (polyvex-mine 9.9)"
    status = status_of(registries, "mine")
    assert (status.state, status.hooks) == ("loaded", ["register_fusions"])


def test_one_plugin_may_bring_several_kinds(install: Install) -> None:
    install(mine=plugin(register_fusions={"a": MLPFusion, "b": MLPFusion}, register_position_schemes={"c": Sequential}))
    registries = load_registries()
    assert {"a", "b"} <= set(registries.fusions.names())
    assert "c" in registries.position_schemes


def test_third_party_plugins_can_be_left_out(install: Install) -> None:
    install(mine=plugin(register_fusions={"mine": MLPFusion}))
    assert "mine" not in load_registries(third_party=False).fusions


def test_plugins_can_be_passed_by_hand() -> None:
    registries = load_registries(third_party=False, extra={"mine": plugin(register_fusions={"mine": MLPFusion})})
    assert registries.fusions.entry("mine").plugin.distribution == "passed by hand"


def test_two_plugins_of_one_name_are_told_and_stop_nobody(install: Install) -> None:
    install(
        one=plugin(register_fusions={"same": MLPFusion, "mine": MLPFusion}),
        two=plugin(register_fusions={"same": MLPFusion, "yours": MLPFusion}),
    )
    registries = load_registries()
    (broken,) = registries.broken()
    assert broken.reason == (
        "two plugins register the fusion 'same': one (polyvex-one 9.9) and two (polyvex-two 9.9). "
        "Uninstall one, or block it: POLYVEX_DISABLE_PLUGINS=two"
    )
    assert registries.fusions.names() == sorted([*register_fusions(), "mine", "yours"])
    with pytest.raises(PluginError, match="two plugins register the fusion 'same'"):
        registries.fusions["same"]


def test_a_plugin_cannot_take_a_built_in_name(install: Install) -> None:
    install(mine=plugin(register_fusions={"mlp": type("Mine", (MLPFusion,), {})}))
    registries = load_registries()
    (broken,) = registries.broken()
    assert "two plugins register the fusion 'mlp': polyvex.fusion (polyvex " in broken.reason
    assert registries.fusions["mlp"] is MLPFusion


def test_a_plugin_that_leaves_the_program_stops_nobody(install: Install) -> None:
    install(mine=SystemExit(3), other=plugin(register_fusions={"b": MLPFusion}))
    registries = load_registries()
    assert [status.plugin.name for status in registries.broken()] == ["mine"]
    assert "b" in registries.fusions


def test_one_name_in_two_kinds_is_no_clash(install: Install) -> None:
    install(mine=plugin(register_fusions={"same": MLPFusion}, register_position_schemes={"same": Sequential}))
    assert "same" in load_registries().position_schemes


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (ImportError("no module named\n  'timm'"), "import failed: ImportError: no module named 'timm'"),
        (RuntimeError("GPU wanted"), "import failed: RuntimeError: GPU wanted"),
        (plugin(register_fusions=RuntimeError("inside")), "RuntimeError: inside"),
        (
            plugin(register_fusions=["mlp"]),
            "PluginError: register_fusions returned list, expected a mapping from name to class. "
            'Write: return {"my-name": MyClass}',
        ),
        (
            plugin(register_fusions={"a": "MLPFusion"}),
            "PluginError: register_fusions: 'a' is 'MLPFusion', expected a subclass of Fusion",
        ),
    ],
    ids=["import", "anything", "hook", "not-a-mapping", "not-a-class"],
)
def test_a_broken_plugin_is_told_and_the_others_go_on(module: Any, reason: str, install: Install) -> None:
    install(aaa=module, zzz=plugin(register_fusions={"fine": MLPFusion}))
    registries = load_registries()
    assert "fine" in registries.fusions
    (broken,) = registries.broken()
    assert (broken.plugin.name, broken.state, broken.reason) == ("aaa", "broken", reason)
    assert "Traceback" in broken.details


def test_a_hook_that_returns_nothing_is_broken(install: Install) -> None:
    # A forgotten `return` must not look like a plugin that was loaded.
    install(mine=plugin(register_fusions=None))
    (broken,) = load_registries().broken()
    assert "register_fusions returned None" in broken.reason


def test_a_broken_plugin_offers_nothing(install: Install) -> None:
    install(mine=plugin(register_fusions={"mine": MLPFusion}, register_position_schemes=RuntimeError("inside")))
    assert "mine" not in load_registries().fusions


def test_a_misspelt_hook_is_named_with_the_right_ones(install: Install) -> None:
    install(mine=plugin(register_encoder={}))
    (broken,) = load_registries().broken()
    assert broken.reason.startswith(
        "PluginError: plugin mine (polyvex-mine 9.9): unknown hook 'register_encoder'. Did you mean 'register_encoders'"
    )
    assert "register_encoders" in broken.reason


def test_a_hook_with_arguments_is_broken(install: Install) -> None:
    def register_fusions(app: object) -> Mapping[str, type]:
        return {}

    wrong = ModuleType("a_plugin")
    wrong.register_fusions = hookimpl(register_fusions)  # type: ignore[attr-defined]
    install(
        mine=wrong,
        other=plugin(register_fusions={"b": MLPFusion}),
    )
    registries = load_registries()
    assert [status.plugin.name for status in registries.broken()] == ["mine"]
    assert "b" in registries.fusions


def test_plugins_by_hand_are_not_forgiven() -> None:
    with pytest.raises(PluginError, match="unknown hook 'register_encoder'"):
        load_registries(third_party=False, extra={"mine": plugin(register_encoder={})})


@pytest.mark.parametrize("value", ["one", " one , ", "one,other"])
def test_plugins_can_be_blocked_by_name(value: str, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(one=RuntimeError("must not be imported"), two=plugin(register_fusions={"two": MLPFusion}))
    monkeypatch.setenv("POLYVEX_DISABLE_PLUGINS", value)
    registries = load_registries()
    status = status_of(registries, "one")
    assert (status.state, status.reason) == ("disabled", "named in POLYVEX_DISABLE_PLUGINS")
    assert "two" in registries.fusions


def test_blocking_ends_a_clash(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(one=plugin(register_fusions={"same": MLPFusion}), two=plugin(register_fusions={"same": Sequential}))
    monkeypatch.setenv("POLYVEX_DISABLE_PLUGINS", "two")
    assert load_registries().fusions["same"] is MLPFusion


def test_nothing_is_global(install: Install) -> None:
    install(mine=plugin(register_fusions={"mine": MLPFusion}))
    first = load_registries()
    install()
    second = load_registries()
    assert "mine" in first.fusions
    assert "mine" not in second.fusions
    assert first.fusions is not second.fusions


def test_plugins_are_loaded_in_the_order_of_their_names(install: Install) -> None:
    install(b=plugin(register_fusions={"b": MLPFusion}), a=plugin(register_fusions={"a": MLPFusion}))
    names = [status.plugin.name for status in load_registries().plugins]
    assert names == [*BUILT_IN, "a", "b"]


def test_an_entry_point_without_a_distribution_is_told_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="mine", value="polyvex_no_such_module", group="polyvex")
    monkeypatch.setattr(manager, "entry_points", lambda group: [point])
    (broken,) = load_registries().broken()
    assert (broken.plugin.distribution, broken.plugin.version) == ("unknown", "")
    assert "polyvex_no_such_module" in broken.reason


def test_a_blocked_name_that_no_plugin_has_is_told(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(mine=plugin(register_fusions={"mine": MLPFusion}))
    monkeypatch.setenv("POLYVEX_DISABLE_PLUGINS", "nine")
    status = status_of(load_registries(), "nine")
    assert status.state == "unknown"
    assert "nothing is blocked" in status.reason
    assert "Did you mean 'mine'?" in status.reason


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        ({"bad": int}, "'bad' is <class 'int'>, expected a subclass of Fusion"),
        ({"bad": Sequential}, "expected a subclass of Fusion"),
        ({1: MLPFusion}, "the name 1 is no text"),
    ],
)
def test_a_class_of_another_kind_is_broken_and_stops_nobody(offer: Any, reason: str, install: Install) -> None:
    install(mine=plugin(register_fusions=offer), other=plugin(register_fusions={"b": MLPFusion}))
    registries = load_registries()
    (broken,) = registries.broken()
    assert reason in broken.reason
    assert registries.fusions.names() == sorted([*register_fusions(), "b"])


class WithoutSummary(MLPFusion):
    summary = ""


class WithoutOptions(MLPFusion):
    Options = dict  # type: ignore[assignment]


class Half(Fusion):
    summary = "half a fusion"


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        ({"mine": WithoutSummary}, "'mine' has the summary '', expected one line for listings"),
        ({"mine": WithoutOptions}, "'mine' has the Options <class 'dict'>, expected a subclass of FusionOptions"),
        ({"mine": Half}, "'mine' does not implement describe of Fusion"),
        ({"My own": MLPFusion}, "the name 'My own' cannot stand in a recipe, expected small letters, digits, - and _"),
        ({"a.b": MLPFusion}, "the name 'a.b' cannot stand in a recipe"),
        ({"": MLPFusion}, "the name '' cannot stand in a recipe"),
    ],
)
def test_what_no_recipe_could_name_is_broken_and_stops_nobody(offer: Any, reason: str, install: Install) -> None:
    install(mine=plugin(register_fusions=offer), other=plugin(register_fusions={"b": MLPFusion}))
    registries = load_registries()
    (broken,) = registries.broken()
    assert reason in broken.reason
    assert registries.fusions.names() == sorted([*register_fusions(), "b"])


def test_a_hook_that_is_not_marked_is_told(install: Install) -> None:
    module = ModuleType("a_plugin")
    module.register_fusions = lambda: {"mine": MLPFusion}  # type: ignore[attr-defined]
    install(mine=module)
    (broken,) = load_registries().broken()
    assert broken.reason == (
        "PluginError: register_fusions: not marked as a hook. Write @hookimpl of polyvex.hooks above it"
    )


def test_a_plugin_that_skips_itself_like_a_test_stops_nobody(install: Install) -> None:
    class Skipped(BaseException):
        """As pytest.skip raises it: no Exception."""

    install(mine=Skipped("not here"), other=plugin(register_fusions={"b": MLPFusion}))
    assert [status.plugin.name for status in load_registries().broken()] == ["mine"]


def test_a_derived_value_is_computed_once_for_the_registered_components() -> None:
    registries = load_registries(third_party=False)
    seen: list[list[str]] = []

    def names(found: Registries) -> list[str]:
        seen.append(found.position_schemes.names())
        return seen[-1]

    assert registries.derive(names) is registries.derive(names)
    assert len(seen) == 1
    late = Plugin(name="late", distribution="late", version="1")
    registries.position_schemes.add("late", Sequential, late)
    assert "late" in registries.derive(names)
    with pytest.raises(PluginError):  # now nobody can tell which of the two is meant
        registries.position_schemes.add("late", Sequential, Plugin(name="later", distribution="later", version="1"))
    assert "late" not in registries.derive(names)
    assert len(seen) == 3
