"""No hook without use, no component without words."""

import pytest

from polyvex.hooks import specs
from polyvex.hooks.manager import KINDS, Registries
from polyvex.hooks.registry import Entry
from polyvex.options import Options

HOOKS = sorted(name for name in vars(specs) if name.startswith("register_"))


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_used_by_a_built_in_or_a_plugin(hook: str, registries: Registries) -> None:
    assert any(hook in status.hooks for status in registries.plugins)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_says_what_it_returns(hook: str) -> None:
    assert (getattr(specs, hook).__doc__ or "").startswith("Return ")


def entries(registries: Registries) -> list[Entry[object]]:
    return [entry for kind in KINDS for entry in getattr(registries, kind)]


def test_every_component_has_a_line_for_listings(registries: Registries) -> None:
    assert [entry.name for entry in entries(registries) if not getattr(entry.component, "summary", "").strip()] == []


def test_every_component_is_whole(registries: Registries) -> None:
    assert [entry.name for entry in entries(registries) if getattr(entry.component, "__abstractmethods__", None)] == []


def test_every_option_of_every_component_is_described(registries: Registries) -> None:
    bare = []
    for entry in entries(registries):
        options = getattr(entry.component, "Options", None)
        if options is not None:
            assert issubclass(options, Options)
            bare += [f"{entry.name}.{key}" for key, field in options.model_fields.items() if not field.description]
    assert bare == []


def test_no_installed_plugin_is_broken(registries: Registries) -> None:
    assert [status.reason for status in registries.broken()] == []
