"""A new plugin of each kind is a good one at once: installed, found, clean, and right by its own tests and the kit."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from polyvex.errors import PluginError
from polyvex.hooks.manager import Registries, load_registries
from polyvex.hooks.specs import CONTRACT
from polyvex.scaffold import Kind
from polyvex.scaffold.names import KINDS, NewPlugin
from polyvex.scaffold.write import render, write_plugin

ROOT = Path(__file__).parents[2]
NAMES = {kind: f"new-{kind}" for kind in get_args(Kind)}
LONGEST = "long-name-of24characters"
"""As long as a name may be: it must not break the layout of any line."""

KIT = """
from polyvex.cli import run
raise SystemExit(max(run(["plugins", "test", name]) for name in {names}))
"""


def python(*arguments: str, folder: Path, path: Path | None = None) -> str:
    """Run Python in a folder, with further packages in front of those that are installed."""
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else {**os.environ}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new plugin of each kind, by the kind's name."""
    folder = tmp_path_factory.mktemp("new")
    nothing = load_registries(third_party=False)
    for kind, name in NAMES.items():
        write_plugin(name, kind, folder / kind, registries=nothing)
    return folder


@pytest.fixture(scope="module")
def installed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip installed them all."""
    target = tmp_path_factory.mktemp("target")
    alone = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    projects = [str(written / kind) for kind in NAMES]
    python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *alone, *projects, folder=written)
    return target


def test_polyvex_finds_them(written: Path, installed: Path):
    code = "from polyvex.cli import main; main()"
    rows = {
        row["name"]: row
        for row in json.loads(python("-c", code, "plugins", "list", "--json", folder=written, path=installed))
    }

    for kind, name in NAMES.items():
        assert (rows[name]["state"], rows[name]["reason"]) == ("loaded", "")
        assert rows[name]["hooks"] == [f"register_{KINDS[kind].field}"]


def test_their_own_tests_pass(written: Path, installed: Path):
    tests = [str(written / kind / "tests") for kind in NAMES]
    strict = ["-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={written}"]

    told = python("-m", "pytest", *strict, *tests, folder=written, path=installed)

    assert "31 passed" in told


def test_the_kit_passes_them(written: Path, installed: Path):
    told = python("-c", KIT.format(names=list(NAMES.values())), folder=written, path=installed)

    assert told.count("checks passed") == len(NAMES)
    assert "FAILED" not in told
    assert "skipped" not in told


def test_they_are_clean_to_ruff(tmp_path: Path):
    """By their own rules, and by those of polyvex; with the shortest and the longest names, too."""
    nothing = load_registries(third_party=False)
    for kind, usual in NAMES.items():
        for name in ("q", usual, LONGEST):
            write_plugin(name, kind, tmp_path / kind / name, registries=nothing)
    python("-m", "ruff", "check", "--no-cache", ".", folder=tmp_path)
    python("-m", "ruff", "format", "--no-cache", "--check", ".", folder=tmp_path)
    # Here polyvex is a package like any other; the rules of its repository take it for the project's own.
    ours = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "I001", "--per-file-ignores", "**/tests/**:D1"]
    python("-m", "ruff", "check", "--no-cache", *ours, ".", folder=tmp_path)


def test_they_are_clean_to_pyright(written: Path, installed: Path):
    sources = [str(written / kind / "src") for kind in NAMES]

    told = python("-m", "pyright", "--pythonpath", sys.executable, *sources, folder=written, path=installed)

    assert "0 errors, 0 warnings" in told


@pytest.mark.parametrize("kind", NAMES)
def test_what_they_say_of_themselves_is_right(kind: Kind, written: Path):
    project = tomllib.loads((written / kind / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module = f"polyvex_new_{kind}"

    assert project["name"] == f"polyvex-new-{kind}"
    assert project["entry-points"]["polyvex"] == {f"new-{kind}": module}
    assert project["dependencies"][0] == "polyvex>=0.1,<0.2"
    source = (written / kind / "src" / module / "__init__.py").read_text(encoding="utf-8")
    assert f"POLYVEX_CONTRACT = {CONTRACT}\n" in source


@pytest.mark.parametrize(
    ("ours", "wanted"), [("0.1.0", ">=0.1,<0.2"), ("0.12.3.dev1", ">=0.12,<0.13"), ("1.4.0", ">=1.4,<2")]
)
def test_the_next_polyvex_that_may_break_it_is_left_out(ours: str, wanted: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("polyvex.scaffold.write.version", lambda name: ours)

    text = render(NewPlugin.of("mine", "metric"), "metric")["pyproject.toml"]

    assert tomllib.loads(text)["project"]["dependencies"] == [f"polyvex{wanted}"]


def test_the_files_are_told(tmp_path: Path, registries: Registries):
    plugin, folder, files = write_plugin("mine", "metric", tmp_path / "new", registries=registries)

    assert (plugin.name, folder) == ("mine", tmp_path / "new")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == found
    assert "tests/test_polyvex_mine.py" in files


def test_the_folder_is_named_as_the_package(tmp_path: Path, registries: Registries, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    _, folder, _ = write_plugin("mine", "metric", None, registries=registries)

    assert folder == Path("polyvex-mine")
    assert (tmp_path / "polyvex-mine" / "README.md").is_file()


def test_nothing_is_written_over(tmp_path: Path, registries: Registries):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PluginError, match="full is not empty"):
        write_plugin("mine", "metric", tmp_path / "full", registries=registries)
    with pytest.raises(PluginError, match="file is a file"):
        write_plugin("mine", "metric", tmp_path / "file", registries=registries)
    assert [path.name for path in (tmp_path / "full").iterdir()] == [".hidden"]


def test_an_empty_folder_will_do(tmp_path: Path, registries: Registries):
    write_plugin("mine", "metric", tmp_path, registries=registries)

    assert (tmp_path / "pyproject.toml").is_file()


def test_a_wheel_and_a_source_archive_bring_the_templates(tmp_path: Path):
    python("-m", "hatchling", "build", "-d", str(tmp_path), folder=ROOT)
    [wheel] = tmp_path.glob("*.whl")
    [archive] = tmp_path.glob("*.tar.gz")
    templates = {path.name for path in (ROOT / "polyvex" / "scaffold" / "templates").iterdir()}

    with zipfile.ZipFile(wheel) as opened:
        assert templates == {Path(name).name for name in opened.namelist() if "/templates/" in name}
        opened.extractall(tmp_path / "site")
    import tarfile

    with tarfile.open(archive) as opened_archive:
        assert templates == {Path(name).name for name in opened_archive.getnames() if "/templates/" in name}
    code = "import polyvex; print(polyvex.__file__); from polyvex.cli import main; main()"
    told = python("-c", code, "plugins", "new", "mine", "--kind", "router", folder=tmp_path, path=tmp_path / "site")
    assert told.startswith(str(tmp_path / "site"))
    assert (tmp_path / "polyvex-mine" / "src" / "polyvex_mine" / "router.py").is_file()
