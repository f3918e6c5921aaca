"""The documented command installs a plugin into an environment without a build backend, as `make quickstart` makes."""

import json
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from polyvex.hooks.manager import load_registries
from polyvex.scaffold.write import write_plugin

from .test_plugin_page import FILE, PAGE

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"^\$ (pip install .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment, which imports the packages of the present one but has no command of theirs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    made = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([made, "-c", where], text=True).strip())
    (site / "present.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n", encoding="utf-8")
    backend = [made, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder / "backend", "hatchling"]
    if subprocess.run(backend, capture_output=True, check=False).returncode:
        pytest.skip("no package index, which build isolation needs")
    return made


def run(python: Path, *arguments: str, folder: Path) -> str:
    done = subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_documented_command_installs_the_pages_plugin_and_a_new_one(python: Path, tmp_path: Path):
    assert COMMANDS == ["pip install --editable ."]
    page, new = tmp_path / "page", tmp_path / "new"
    page.mkdir()
    for found in FILE.finditer(PAGE.read_text(encoding="utf-8")):
        (page / found["name"]).write_text(found["text"], encoding="utf-8")
    write_plugin("fresh", "metric", new, registries=load_registries(third_party=False))
    assert COMMANDS[0] in (new / "README.md").read_text(encoding="utf-8")

    for folder in (page, new):
        run(python, "-m", *COMMANDS[0].split(), folder=folder)

    told = run(python, "-c", "from polyvex.cli import main; main()", "plugins", "list", "--json", folder=tmp_path)
    states = {row["name"]: row["state"] for row in json.loads(told)}
    assert (states["graypatch"], states["fresh"]) == ("loaded", "loaded")
    assert sys.prefix not in run(python, "-c", "import polyvex_fresh; print(polyvex_fresh.__file__)", folder=tmp_path)
