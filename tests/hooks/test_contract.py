"""A plugin for another polyvex is told as such, and stops nobody."""

from importlib.metadata import version
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from polyvex.errors import PluginError
from polyvex.fusion import MLPFusion
from polyvex.hooks import hookimpl, manager
from polyvex.hooks.contract import check_contract, unmet_requirement
from polyvex.hooks.manager import Registries, load_registries
from polyvex.hooks.specs import CONTRACT

OURS = version("polyvex")


def module(**names: Any) -> ModuleType:
    made = ModuleType("a_plugin")
    made.register_fusions = hookimpl(lambda: {"mine": MLPFusion})  # type: ignore[attr-defined]
    made.register_fusions.__name__ = "register_fusions"
    vars(made).update(names)
    return made


def package(requires: list[str] | None) -> Any:
    return SimpleNamespace(metadata={"Name": "polyvex-mine"}, version="9.9", requires=requires)


def installed(monkeypatch: pytest.MonkeyPatch, load: Any, requires: list[str] | None = None) -> Registries:
    """What is found when this is the only installed plugin."""
    point = SimpleNamespace(name="mine", load=load, dist=package(requires))
    monkeypatch.setattr(manager, "entry_points", lambda group: [point])
    return load_registries()


@pytest.mark.parametrize(
    "requires",
    [
        None,
        [],
        ["torch>=99"],
        ["polyvex"],
        [f"polyvex=={OURS}"],
        [f"Polyvex <= {OURS}, >= 0.0.1"],
        ["polyvex-timm>=99"],
        ["polyvex>=99 ; extra == 'later'"],
        ["polyvex>=99 ; python_version < '3'"],
    ],
    ids=str,
)
def test_a_requirement_that_holds_here_is_met(requires: list[str] | None):
    assert unmet_requirement(package(requires)) == ""


def test_no_package_requires_nothing():
    assert unmet_requirement(None) == ""


@pytest.mark.parametrize("wanted", [">=99", f"<{OURS}", f"!={OURS}"])
def test_another_polyvex_is_told_before_the_import(wanted: str, monkeypatch: pytest.MonkeyPatch):
    def load() -> ModuleType:
        raise AssertionError("must not be imported")

    registries = installed(monkeypatch, load, ["numpy", f"polyvex{wanted}"])

    [broken] = registries.broken()
    assert broken.reason == (
        f"it needs polyvex {wanted}; installed is {OURS}. "
        f"Install that polyvex, or a release of the plugin that goes with {OURS}"
    )
    assert str(broken.plugin) == "mine (polyvex-mine 9.9)"
    assert "mine" not in registries.fusions


def test_the_name_may_be_written_in_any_way():
    assert "it needs polyvex >=99" in unmet_requirement(package(["Polyvex >= 99"]))


def test_a_prerelease_of_polyvex_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("polyvex.hooks.contract.version", lambda name: "0.2.0.dev1")

    assert unmet_requirement(package(["polyvex>=0.1"])) == ""
    assert "installed is 0.2.0.dev1" in unmet_requirement(package(["polyvex>=0.2"]))


def test_a_requirement_that_cannot_be_read_is_told():
    assert "requires 'polyvex=>1', which cannot be read" in unmet_requirement(package(["polyvex=>1"]))


def test_this_contract_and_none_at_all_pass(monkeypatch: pytest.MonkeyPatch):
    for plugin in (module(POLYVEX_CONTRACT=CONTRACT), module()):
        registries = installed(monkeypatch, lambda plugin=plugin: plugin)
        assert registries.broken() == []
        assert "mine" in registries.fusions


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (CONTRACT + 1, f"written for contract {CONTRACT + 1}; polyvex {OURS} has contract {CONTRACT}. Upgrade polyvex"),
        (CONTRACT - 1, f"written for contract {CONTRACT - 1}; polyvex {OURS} has contract {CONTRACT}. Upgrade the plu"),
        ("1", "POLYVEX_CONTRACT is '1'; expected a whole number"),
        (True, "POLYVEX_CONTRACT is True; expected a whole number"),
    ],
)
def test_another_contract_is_told(declared: Any, told: str, monkeypatch: pytest.MonkeyPatch):
    registries = installed(monkeypatch, lambda: module(POLYVEX_CONTRACT=declared))

    [broken] = registries.broken()
    assert told in broken.reason
    assert "mine" not in registries.fusions


def test_by_hand_it_is_an_error():
    with pytest.raises(PluginError, match="it was written for contract 99"):
        load_registries(third_party=False, extra={"mine": module(POLYVEX_CONTRACT=99)})
    with pytest.raises(PluginError, match="it was written for contract 99"):
        check_contract(module(POLYVEX_CONTRACT=99))


def test_the_doctor_tells_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from polyvex.cli import run

    point = SimpleNamespace(name="mine", load=module, dist=package(["polyvex>=99"]))
    monkeypatch.setattr(manager, "entry_points", lambda group: [point])

    assert run(["plugins", "doctor"]) == 1
    assert "broken    plugin mine (polyvex-mine 9.9): it needs polyvex >=99; installed is" in capsys.readouterr().out
