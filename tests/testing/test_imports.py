"""The import of a plugin is checked in a fresh interpreter."""

from pathlib import Path

import pytest

from polyvex.testing import check_import

LOUD = """
import os, sys, time, torch
print("Welcome!")
os.write(2, b"from a library in C")
torch.set_default_dtype(torch.float64)
import wsgiref
started = time.process_time()
while time.process_time() < started + 1.2:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which the fresh interpreter imports."""
    import os

    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


def test_everything_that_is_wrong_is_listed(folder: Path):
    (folder / "loud_plugin.py").write_text(LOUD, encoding="utf-8")

    with pytest.raises(AssertionError) as caught:
        check_import("loud_plugin")

    told = str(caught.value)
    wanted = ["the import of loud_plugin", "changes torch's default dtype", "prints 'Welcome!'", "of processor time"]
    assert [words for words in wanted if words not in told] == []


def test_output_of_libraries_is_found(folder: Path):
    (folder / "c_plugin.py").write_text("import os\nos.write(2, b'from a library in C')\n", encoding="utf-8")

    with pytest.raises(AssertionError, match="writes 'from a library in C'"):
        check_import("c_plugin")


def test_a_module_that_fails_is_named_with_its_error(folder: Path):
    (folder / "failing_plugin.py").write_text("import no_such_library\n", encoding="utf-8")

    with pytest.raises(AssertionError, match=r"failing_plugin cannot be imported in a fresh .*no_such_library"):
        check_import("failing_plugin")


def test_a_plugin_of_ours_passes():
    check_import("polyvex_basics")
