"""docs/hooks.md has one heading per hook, with its exact signature, and no heading of a hook that is gone."""

import inspect
import re
from pathlib import Path

from polyvex.hooks import specs
from polyvex.hooks.manager import load_registries

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text(encoding="utf-8")


def hooks() -> dict[str, str]:
    """Each hook and its parameters as a heading shows them."""
    found = inspect.getmembers(specs, lambda item: inspect.isfunction(item) and hasattr(item, f"{specs.GROUP}_spec"))
    return {name: ", ".join(inspect.signature(function).parameters) for name, function in found}


def test_headings_are_the_hooks():
    headings = re.findall(r"^### (.*)$", PAGE, flags=re.MULTILINE)

    assert sorted(headings) == sorted(f"{name}({parameters})" for name, parameters in hooks().items())
    assert len(headings) >= 7


def test_each_section_names_the_components_of_the_core():
    registries = load_registries(third_party=False)
    sections = dict(re.findall(r"^### (\w+)\(.*?\)\n(.*?)(?=^### |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))

    for name, section in sections.items():
        registry = getattr(registries, name.removeprefix("register_"))
        missing = [known for known in registry.names() if f"`{known}`" not in section]
        assert not missing, name


def test_each_section_names_the_class_to_derive_from():
    for name, function in inspect.getmembers(specs, inspect.isfunction):
        if name in hooks():
            base = re.findall(r"type\[(\w+)\]", str(function.__annotations__["return"]))[0]
            section = PAGE.partition(f"### {name}(")[2].partition("###")[0]
            assert re.search(rf"`polyvex[\w.]*\.{base}`", section), name


def test_the_page_tells_the_contract_that_holds():
    assert f"This is contract {specs.CONTRACT}." in PAGE
    assert f"`POLYVEX_CONTRACT = {specs.CONTRACT}`" in PAGE
