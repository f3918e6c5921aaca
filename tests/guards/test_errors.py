"""Every error class is raised somewhere, and some test waits for it."""

import ast
import re
from pathlib import Path

import pytest

from polyvex import errors

ROOT = Path(__file__).parents[2]
KINDS = [name for name, value in vars(errors).items() if isinstance(value, type) and value is not errors.PolyvexError]


def raised_in(folder: Path) -> set[str]:
    """Names of the classes that are raised, or made by a function that somebody raises, in a folder's files."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise | ast.Return):
                value = node.exc if isinstance(node, ast.Raise) else node.value
                if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                    found.add(value.func.id)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_raised_in_the_source(kind: str) -> None:
    assert kind in raised_in(ROOT / "polyvex")


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_expected_by_a_test(kind: str) -> None:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert any(re.search(rf"pytest\.raises\(\(?{kind}\b", text) for text in texts)
