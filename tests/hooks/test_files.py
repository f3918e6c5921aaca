"""Single files as plugins: loaded by path, known by their content, refused with a reason."""

import os
from pathlib import Path

import pytest

from polyvex.errors import PluginError
from polyvex.hooks.files import FILES, load_file
from polyvex.hooks.manager import load_registries

METRIC = """
from polyvex.evaluation.base import Metric
from polyvex.hooks import hookimpl

class Always(Metric):
    summary = "always right"

    def score(self, answer, expected):
        return 1.0

@hookimpl
def register_metrics():
    return {NAME: Always}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(METRIC.replace("NAME", "'always'"))
    return path


def test_files_of_the_environment_are_plugins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILES, str(file))
    registries = load_registries()
    entry = registries.metrics.entry("always")
    assert (entry.plugin.name, entry.plugin.file) == ("mine.py", str(file))
    assert entry.plugin.version == load_file(file)[0].version
    assert load_registries().metrics["always"] is entry.component  # one class for one content
    assert "always" not in load_registries(third_party=False).metrics


def test_an_edit_changes_the_version_and_the_module(file: Path) -> None:
    plugin, module = load_file(file)
    file.write_text(file.read_text() + "\nEDITED = True\n")
    edited, new = load_file(file)
    assert plugin.version != edited.version
    assert new is not module
    assert new.EDITED


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "plugin-file"),
        ("x = 1", "plugin-file-no-hook"),
        ("def register_metrics(): return {}", "plugin-file-no-hook"),
        ("import nothing_of_this_name", "plugin-file-import"),
        ("raise SystemExit(3)", "plugin-file-import"),
        ("def (", "plugin-file-import"),
    ],
)
def test_a_file_that_is_no_plugin_is_refused(content: str | None, code: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PluginError) as caught:
        load_file(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plugin.toml"
    path.write_text("")
    with pytest.raises(PluginError) as caught:
        load_file(path)
    assert caught.value.code == "plugin-file"


def test_a_clash_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(METRIC.replace("NAME", "'exact_match'"))
    monkeypatch.setenv(FILES, str(file))
    with pytest.raises(PluginError) as caught:
        load_registries()
    assert f"Rename it in {file}" in str(caught.value)


def test_files_of_one_name_are_both_loaded(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_text(METRIC.replace("NAME", "'also-always'"))
    monkeypatch.setenv(FILES, os.pathsep.join([str(file), str(other)]))
    assert {"always", "also-always"} <= {*load_registries().metrics.names()}


def test_what_a_file_prints_and_changes_is_kept_from_the_output(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"import random\nprint('hello {file}')\nrandom.seed(5)\n" + file.read_text())
    monkeypatch.setenv(FILES, str(file))
    status = load_registries().plugins[-1]
    assert status.effects == ["changes Python's random state", f"prints {f'hello {file}'[:80]!r}"]
    assert capsys.readouterr().out == ""
