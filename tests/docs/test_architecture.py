"""docs/architecture.md shows the floors that import-linter checks, and speaks of files that exist."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_picture_shows_the_checked_floors():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [layers] = [one["layers"] for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    pictures = re.findall(r"^```text\n(polyvex\..*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)

    assert [picture.splitlines() for picture in pictures] == [layers]


def test_named_files_exist():
    named = re.findall(r"`(polyvex/[\w/.]+)`", PAGE)

    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_module_stands_on_a_floor():
    floors = re.findall(r"polyvex\.(\w+)", PAGE)
    modules = {
        path.stem for path in (ROOT / "polyvex").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert modules - set(floors) <= {"__init__", "_register"}
