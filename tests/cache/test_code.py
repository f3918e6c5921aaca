"""Tokens depend on code: an edit tells them apart, whatever the version says."""

import importlib
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from polyvex.cache.code import CORE, Code, code_of

ENCODER = '''"""A plugin."""
class Mine:
    """An encoder."""
    def forward(self, pixels):
        return pixels + 1
'''

Load = Callable[..., ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """A function that imports a module afresh from a folder of this test, as a new process would."""
    names: set[str] = set()

    def fresh(name: str, folder: Path = tmp_path) -> ModuleType:
        monkeypatch.syspath_prepend(str(folder))
        names.add(name.partition(".")[0])
        forget()
        return importlib.import_module(name)

    def forget() -> None:
        for module in [one for one in sys.modules if one.partition(".")[0] in names]:
            del sys.modules[module]
        importlib.invalidate_caches()

    yield fresh
    forget()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def code(module: ModuleType) -> Code:
    return code_of(module.Mine, "no-such-distribution")


def own(module: ModuleType) -> dict[str, str]:
    """The digests without those of polyvex itself."""
    return {name: digest for name, digest in code(module).digests.items() if not name.startswith("polyvex.")}


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("pixels + 1", "pixels + 2", False),
        ("def forward(self, pixels)", "def forward(self, pixels, more=1)", False),
        ("An encoder.", "Another description.", True),
        ("return pixels", "# a comment\n        return pixels", True),
        ('    """An encoder."""\n', "", True),
    ],
)
def test_what_an_edit_of_a_package_means(old: str, new: str, same: bool, tmp_path: Path, load: Load) -> None:
    file = write(tmp_path / "pvplugin" / "__init__.py", ENCODER)
    before = own(load("pvplugin"))
    assert list(before) == ["pvplugin/__init__.py"]
    write(file, ENCODER.replace(old, new))
    assert (own(load("pvplugin")) == before) is same


def test_every_file_of_the_package_counts(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "pvplugin" / "__init__.py", ENCODER)
    for name in ("helper.py", "deep/inside.py", "means.json"):
        before = own(load("pvplugin"))
        write(tmp_path / "pvplugin" / name, "X = 1")
        added = own(load("pvplugin"))
        assert set(added) - set(before) == {f"pvplugin/{name}"}
        write(tmp_path / "pvplugin" / name, "X = 2")
        assert own(load("pvplugin")) != added
    before = own(load("pvplugin"))
    write(tmp_path / "pvplugin" / "__pycache__" / "x.pyc", "")
    write(tmp_path / "pvplugin" / ".helper.py.swp", "")
    assert own(load("pvplugin")) == before


def test_a_process_has_the_code_that_it_imported(tmp_path: Path, load: Load) -> None:
    # The tokens of a long process are those of the old code, although the file is new.
    file = write(tmp_path / "pvplugin" / "__init__.py", ENCODER)
    module = load("pvplugin")
    before = own(module)
    write(file, ENCODER.replace("+ 1", "+ 2"))
    assert own(module) == before
    assert own(importlib.reload(module)) != before


def test_libraries_outside_site_packages_count_and_what_they_import(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "pvplugin" / "__init__.py", f"import pvlocal\n{ENCODER}")
    write(tmp_path / "pvlocal" / "__init__.py", "from pvnested import x\n")
    write(tmp_path / "pvnested.py", "x = 1\n")
    before = own(load("pvplugin"))
    assert set(before) == {"pvplugin/__init__.py", "pvlocal", "pvnested"}
    write(tmp_path / "pvnested.py", "x = 2\n")
    for name in ("pvlocal", "pvnested"):
        sys.modules.pop(name, None)
    after = own(load("pvplugin"))
    assert {name for name in before if before[name] != after[name]} == {"pvnested"}


def test_in_site_packages_the_plugin_counts_and_its_libraries_do_not(tmp_path: Path, load: Load) -> None:
    place = tmp_path / "site-packages"
    file = write(place / "pvplugin" / "__init__.py", f"import pvlibrary\nimport torch\n{ENCODER}")
    write(place / "pvlibrary.py", "x = 1\n")
    before = own(load("pvplugin", place))
    assert set(before) == {"pvplugin/__init__.py"}
    write(file, f"import pvlibrary\n{ENCODER}".replace("+ 1", "+ 2"))
    assert own(load("pvplugin", place)) != before


def test_the_package_of_a_base_class_counts(tmp_path: Path, load: Load) -> None:
    place = tmp_path / "site-packages"
    write(place / "pvbase" / "__init__.py", ENCODER)
    write(place / "pvplugin.py", "import pvbase\nclass Mine(pvbase.Mine):\n    pass\n")
    before = own(load("pvplugin", place))
    assert set(before) == {"pvplugin.py", "pvbase"}
    write(place / "pvbase" / "__init__.py", ENCODER.replace("+ 1", "+ 2"))
    sys.modules.pop("pvbase")
    assert own(load("pvplugin", place))["pvbase"] != before["pvbase"]


def test_a_package_inside_a_namespace_counts_alone(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "pvspace" / "plugin" / "__init__.py", ENCODER)
    write(tmp_path / "pvspace" / "other" / "__init__.py", "")
    assert list(own(load("pvspace.plugin"))) == ["pvspace.plugin/__init__.py"]


@pytest.mark.parametrize("name", ["pvplugin.py", "pvplugin/__init__.py"], ids=["module", "package"])
def test_plugins_in_zip_files(name: str, tmp_path: Path, load: Load) -> None:
    found = []
    for number in (1, 2):
        archive = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(archive, "w") as writer:
            writer.writestr(name, ENCODER.replace("+ 1", f"+ {number}"))
        found.append(own(load("pvplugin", archive)))
    assert list(found[0]) == [name]
    assert found[0] != found[1]
    assert code(load("pvplugin", tmp_path / "1.zip")).unknown == ()


def test_a_class_without_a_file_is_named_and_its_functions_count() -> None:
    found = []
    for number in (1, 1, 2):
        namespace = {"__name__": "pvnotebook"}
        exec(ENCODER.replace("+ 1", f"+ {number}"), namespace)
        found.append(code_of(namespace["Mine"], "passed by hand"))  # type: ignore[arg-type]
    assert found[0].unknown == ("Mine",)
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_polyvex_itself_counts(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "pvplugin.py", ENCODER)
    names = set(code(load("pvplugin")).digests)
    assert names >= {f"{module.__name__}.py" for module in CORE}
    assert "polyvex.encoders.tiling.py" in names


def test_classes_that_are_made_on_the_fly_belong_to_their_bases() -> None:
    from abc import ABCMeta

    from polyvex_basics import Patchify

    made = ABCMeta("Made", (Patchify,), {"__module__": "abc"})
    assert "polyvex_basics/patchify.py" in code_of(made, "polyvex-basics").digests
