"""Hook functions that could not be called, or would never be, are named with the correction."""

from types import ModuleType
from typing import Any

import pytest

from polyvex.errors import PluginError
from polyvex.fusion import MLPFusion
from polyvex.hooks import hookimpl
from polyvex.hooks.functions import check_hooks
from polyvex.hooks.manager import load_registries
from polyvex.hooks.registry import Plugin

MINE = Plugin(name="mine", distribution="polyvex-mine", version="1.0")


def module(**functions: Any) -> ModuleType:
    made = ModuleType("a_plugin")
    for name, function in functions.items():
        setattr(made, name, function)
    return made


class AsMethods:
    @hookimpl
    def register_fusions(self) -> Any:
        return {"mine": MLPFusion}


class AsStaticMethods:
    @staticmethod
    @hookimpl
    def register_fusions() -> Any:
        return {"mine": MLPFusion}


@pytest.mark.parametrize(
    ("namespace", "words"),
    [
        (
            module(register_fusions=hookimpl(lambda app: {})),
            ["register_fusions takes the arguments app", "def register_fusions():"],
        ),
        (module(), ["no hook found", "@hookimpl"]),
        (module(register_fusion=hookimpl(lambda: {})), ["unknown hook 'register_fusion'", "'register_fusions'"]),
        (module(register_fusions=lambda: {}), ["register_fusions: not marked as a hook"]),
        (AsMethods, ["the entry point names the class AsMethods", "it must name the module"]),
        (hookimpl(lambda: {}), ["the entry point names the function <lambda>"]),
        (MLPFusion, ["the entry point names the class MLPFusion"]),
        (
            module(register_fusion=hookimpl(lambda: {}), register_routers=lambda: {}),
            ["unknown hook 'register_fusion'", "register_routers: not marked"],
        ),
    ],
    ids=["argument", "empty", "misspelt", "unmarked", "class", "function", "component", "two-problems"],
)
def test_a_hook_that_cannot_be_called_is_named(namespace: Any, words: list[str]) -> None:
    with pytest.raises(PluginError) as caught:
        check_hooks(namespace, MINE)
    assert caught.value.code == "plugin-hook"
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    "namespace", [AsMethods(), AsStaticMethods(), module(register_fusions=hookimpl(lambda app=None: {}))]
)
def test_an_instance_and_a_default_are_fine(namespace: Any) -> None:
    check_hooks(namespace, MINE)


@pytest.mark.parametrize("namespace", [AsMethods(), AsStaticMethods()])
def test_an_instance_can_be_a_plugin(namespace: Any) -> None:
    assert "mine" in load_registries(third_party=False, extra={"mine": namespace}).fusions


def test_the_mapping_is_shown_to_a_hook_that_returns_something_else() -> None:
    with pytest.raises(
        PluginError, match=r'returned list, expected a mapping.*return \{"my-name": MyClass\}'
    ) as caught:
        load_registries(third_party=False, extra={"mine": module(register_fusions=hookimpl(lambda: [MLPFusion]))})
    assert caught.value.code == "plugin-hook"


def test_every_component_with_a_problem_is_named() -> None:
    offer = {"Bad name": MLPFusion, "one": MLPFusion.Options, "two": int, "good": MLPFusion}
    with pytest.raises(PluginError) as caught:
        load_registries(third_party=False, extra={"mine": module(register_fusions=hookimpl(lambda: offer))})
    assert caught.value.code == "plugin-component"
    assert all(word in str(caught.value) for word in ("'Bad name'", "'one'", "'two'"))
    assert "good" not in str(caught.value)
