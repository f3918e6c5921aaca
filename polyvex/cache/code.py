"""The code that decides tokens, by the content of its files, so that an edited encoder never meets its old tokens.

A version number is not enough: a plugin that is installed in editable mode, or built again, keeps it.
"""

import ast
import hashlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

from polyvex.encoders import images, inputs, precision, tiling, views

CORE = (images, inputs, precision, tiling, views)
"""Modules of polyvex that decide what an encoder gets. How tokens are stored is told apart by ``place.FORMAT``."""

BY_VERSION = {"polyvex", "torch", "typing", "builtins", "abc"}
"""Packages that are never hashed as a whole: polyvex by ``CORE``, torch by its version, the others by Python's."""

IMPORT = re.compile(rb"^\s*(?:from|import)\s+([A-Za-z_]\w*)", re.MULTILINE)
"""A line that imports a module by its full name."""

NOT_CODE = {".pyc", ".pyi", ".typed", ".md", ".rst"}
"""Endings of files in a package that no token depends on."""

LARGE = 16 << 20
"""Bytes from which on a file in a package counts by its size: weights are hashed as weights."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """The digest of each file that decides tokens, by the file's name.

    ``unknown`` names classes without a source file, as those typed into a notebook: only their own functions count.
    """

    digests: dict[str, str]
    unknown: tuple[str, ...] = ()


def code_of(component: type, distribution: str) -> Code:
    """The code that decides the tokens of an encoder.

    These are the packages of the class, of its bases and of its distribution, whatever of them is imported from
    outside ``site-packages`` (editable installations, folders on ``PYTHONPATH``), and polyvex's own part. In the
    package of the class, comments and docstrings do not count. Libraries in ``site-packages`` count by their version.

    Files are read when a package is first looked at, and again only when it was imported again: a process runs the
    code that it has imported, whatever becomes of the files.
    """
    packages = [_package(base.__module__) for base in component.__mro__]
    own = next(name for name in packages if name not in BY_VERSION)  # `type(…)` makes classes of the module abc
    named = {*packages, *_shipped(distribution)}
    digests, unknown = {}, []
    for module in CORE:
        digests[f"{module.__name__}.py"] = _digests(module.__name__, _Imported(module.__spec__), True)[0][1]
    todo = sorted(named - BY_VERSION)
    while todo:
        name = todo.pop()
        found = _digests(name, _Imported(getattr(sys.modules.get(name), "__spec__", None)), name == own)
        digests |= {file: digest for file, digest, _ in found}
        imported = {module for _, _, modules in found for module in modules}
        todo += sorted(_local(imported) - named - BY_VERSION)
        named |= imported
        if name == own and not found:
            digests[component.__qualname__] = _of_functions(component)
            unknown.append(component.__qualname__)
    return Code(digests=digests, unknown=tuple(unknown))


def _package(module: str) -> str:
    """The outermost package of a module that is no mere namespace; the module itself if it stands alone."""
    parts = module.split(".")
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        if getattr(sys.modules.get(name), "__file__", None) is not None:
            return name
    return module


def _shipped(distribution: str) -> set[str]:
    """Names of the packages and modules that an installed distribution consists of."""
    try:
        listed = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:  # passed by hand, in a test or a notebook
        return set()
    tops = {path.parts[0].removesuffix(".py") for path in listed if path.suffix == ".py" and ".." not in path.parts}
    return {name for name in tops if name.isidentifier() and not name.startswith("__editable__")}


def _local(names: set[str]) -> set[str]:
    """Those of some modules that are imported from elsewhere than the standard library and ``site-packages``."""
    found = set()
    for name in names - sys.stdlib_module_names:
        with suppress(ImportError, ValueError, AttributeError):
            spec = find_spec(name)
            places = [*(spec.submodule_search_locations or []), spec.origin or ""] if spec else []
            if any(place and not {"site-packages", "dist-packages"} & set(Path(place).parts) for place in places):
                found.add(name)
    return found - {"polyvex"}


class _Imported:
    """A module's import specification as a key, compared by identity: it changes when the module is imported again.

    It keeps the specification alive. A bare ``id`` could be given to another object.
    """

    def __init__(self, spec: object):
        self.spec = spec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Imported) and self.spec is other.spec

    def __hash__(self) -> int:
        return id(self.spec)


@cache
def _digests(name: str, imported: _Imported, meaning: bool) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Name and digest of each file of a package, and the modules that it imports; empty if there is no file.

    Args:
        imported: the import that the files belong to.
        meaning: leave comments and docstrings out.
    """
    read = [(file, content()) for file, content in _sources(name)]
    if meaning:
        return tuple((file, _digest(_meaning(file, text)), _imports(file, text)) for file, text in read)
    if not read:
        return ()
    whole = hashlib.sha256()
    for file, text in read:
        whole.update(f"{file} {len(text)}\n".encode() + text)
    return ((name, whole.hexdigest()[:16], tuple({one for file, text in read for one in _imports(file, text)})),)


def _sources(name: str) -> list[tuple[str, Callable[[], bytes]]]:
    """The files of a package or of a single module, in order, each with a function that reads it."""
    spec = None
    with suppress(ImportError, ValueError):
        spec = find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        return sorted(_walk(files(name), name), key=lambda one: one[0])
    place = (spec.origin if spec else None) or getattr(sys.modules.get(name), "__file__", None)
    if place and Path(place).is_file():
        return [(".".join([*name.split(".")[:-1], Path(place).name]), Path(place).read_bytes)]
    source = getattr(getattr(spec, "loader", None), "get_source", lambda _: None)(name)  # a module in a zip file
    return [(f"{name}.py", source.encode)] if source else []


def _walk(folder: Traversable, inside: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for entry in folder.iterdir():
        if entry.name.startswith((".", "__pycache__")) or entry.name.endswith("~"):
            continue
        if entry.is_dir():
            yield from _walk(entry, f"{inside}/{entry.name}")
        elif Path(entry.name).suffix not in NOT_CODE:
            yield f"{inside}/{entry.name}", lambda entry=entry: _content(entry)


def _content(file: Traversable) -> bytes:
    if isinstance(file, Path) and (size := file.stat().st_size) > LARGE:
        return f"{size} bytes".encode()
    return file.read_bytes()


def _meaning(file: str, content: bytes) -> bytes:
    """Python code without comments, docstrings and layout; anything else as it is."""
    if not file.endswith(".py"):
        return content
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return content
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _has_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree).encode()


def _has_docstring(node: Any) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _imports(file: str, content: bytes) -> tuple[str, ...]:
    return tuple({name.decode() for name in IMPORT.findall(content)}) if file.endswith(".py") else ()


def _of_functions(component: type) -> str:
    """A digest of the functions of a class whose source cannot be found."""
    found = []
    for base in component.__mro__:
        if base.__module__ == component.__module__:
            members = (inspect.unwrap(getattr(value, "__func__", value)) for value in vars(base).values())
            found += [_instructions(one.__code__) for one in members if hasattr(one, "__code__")]
    return _digest(repr(found).encode())


def _instructions(code: CodeType) -> list[Any]:
    consts = [_instructions(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return [code.co_code, code.co_names, code.co_varnames, consts]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
