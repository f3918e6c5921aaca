"""docs/api.md has every public name, and names nothing that does not exist."""

import re
from importlib import import_module
from pathlib import Path

import polyvex
import polyvex.testing
from polyvex.hooks.offers import _bases

ROOT = Path(__file__).parents[2]
PATHS = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def resolved(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_every_public_name_is_there():
    shown = [resolved(path) for path in PATHS]
    public = [getattr(package, name) for package in (polyvex, polyvex.testing) for name in package.__all__]
    assert [one for one in [*public, *_bases().values()] if not any(one is other for other in shown)] == []


def test_nothing_is_there_twice_and_everything_has_a_docstring():
    assert len(PATHS) == len(set(PATHS)) > 40
    assert [path for path in PATHS if not getattr(resolved(path), "__doc__", None)] == []


def test_docs_are_built_with_the_handler():
    assert "- mkdocstrings:" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "mkdocstrings[python]" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
