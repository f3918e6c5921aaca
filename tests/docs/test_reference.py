"""docs/recipes.md says what the classes say that check recipes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from polyvex.hooks.manager import KINDS, load_registries
from polyvex.recipe.schema import PARTS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "recipes.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(generator: ModuleType):
    assert generator.render(PAGE) == PAGE, "out of date. Run: python docs/generate_reference.py"


def test_every_table_is_on_the_page(generator: ModuleType):
    names = {name for name, _ in generator.generated()}

    assert names == set(generator.MARKED.findall(PAGE) and [found["name"] for found in generator.MARKED.finditer(PAGE)])


def test_every_table_of_a_recipe_has_a_section(generator: ModuleType):
    tables = set(generator.schema.Recipe.model_fields) - {"name", "seed", "order"}

    missing = [name for name in tables if f"## `[{name}]`" not in PAGE and f"## `[[{name}]]`" not in PAGE]
    assert not missing


def test_every_component_of_the_core_is_on_the_page():
    registries = load_registries(third_party=False)

    missing = [entry.name for kind in KINDS for entry in getattr(registries, kind) if f"**`{entry.name}`**" not in PAGE]
    assert not missing


def test_every_part_that_a_stage_may_train_is_explained():
    assert [part for part in PARTS if f"| `{part}` |" not in PAGE] == []
