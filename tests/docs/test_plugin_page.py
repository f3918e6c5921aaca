"""The plugin of docs/write-a-plugin.md is a real one: pip installs it, polyvex finds it, and it keeps its contract."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "write-a-plugin.md"
FILE = re.compile(r"^`(?P<name>[\w.]+)`\n\n```(?:toml|python)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)

CONTRACT = """
from polyvex_graypatch import GrayPatch, GrayPatchOptions
from polyvex.testing import check_encoder
check_encoder(GrayPatch, GrayPatchOptions(image_size=32))
check_encoder(GrayPatch, GrayPatchOptions(image_size=30, grid=5))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the page's plugin is installed, beside what is there already."""
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("target")
    files = {found["name"]: found["text"] for found in FILE.finditer(PAGE.read_text(encoding="utf-8"))}
    assert set(files) == {"pyproject.toml", "polyvex_graypatch.py"}
    for name, text in files.items():
        (project / name).write_text(text, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run([*pip, *alone, str(project)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(target)}


def run(environment: dict[str, str], *arguments: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def polyvex(environment: dict[str, str], *arguments: str, folder: Path | None = None) -> str:
    return run(environment, "-c", "from polyvex.cli import main; main()", *arguments, folder=folder)


def test_polyvex_finds_the_encoder(installed: dict[str, str]):
    rows = {row["name"]: row for row in json.loads(polyvex(installed, "encoders", "--json"))}

    found = rows["gray-patch"]
    assert (found["tokens"], found["grid"], found["width"]) == (16, "4x4", 256)
    assert found["plugin"] == "graypatch (polyvex-graypatch 0.1.0)"


def test_a_recipe_may_name_it(installed: dict[str, str], tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    [command] = re.findall(r"^\$ polyvex (compose .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert 'use = "gray-patch"' in polyvex(installed, *command.split(), folder=tmp_path)


def test_it_keeps_its_contract(installed: dict[str, str]):
    run(installed, "-c", CONTRACT)


def test_it_is_short():
    module = next(
        found["text"] for found in FILE.finditer(PAGE.read_text(encoding="utf-8")) if "VisionEncoder" in found["text"]
    )

    assert sum(bool(line.strip()) for line in module.splitlines()) <= 50
