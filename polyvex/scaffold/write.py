"""Write a new plugin's folder from the templates."""

from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from polyvex.errors import PluginError
from polyvex.hooks.manager import Registries
from polyvex.hooks.specs import CONTRACT
from polyvex.scaffold import Kind
from polyvex.scaffold.names import KINDS, NewPlugin


def write_plugin(
    given: str, kind: Kind, out: Path | None, *, registries: Registries
) -> tuple[NewPlugin, Path, list[str]]:
    """Write a plugin that works: its package, its README and its tests.

    Args:
        given: the plugin's name, with or without ``polyvex-`` in front.
        out: folder to write to, new or empty; ``polyvex-NAME`` in the current one if None.
        registries: what is installed, to find clashes.

    Returns:
        The plugin's names, its folder, and the files in it.

    Raises:
        PluginError: if the name is not valid or taken, or the folder has something in it.
    """
    plugin = NewPlugin.of(given, kind)
    plugin.check_free(kind, registries)
    folder = out if out is not None else Path(plugin.distribution)
    if folder.exists() and not folder.is_dir():
        raise PluginError(f"{folder} is a file. Give another folder by --out")
    if folder.exists() and any(folder.iterdir()):
        raise PluginError(f"{folder} is not empty. Give another folder by --out, or empty it")
    texts = render(plugin, kind)
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return plugin, folder, sorted(texts)


def render(plugin: NewPlugin, kind: Kind) -> dict[str, str]:
    """Each file of a new plugin, by its path in the plugin's folder."""
    from jinja2 import Environment, StrictUndefined

    # The files are code, not pages: nothing in them is to be escaped.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    facts = {"plugin": plugin, "kind": kind, "facts": KINDS[kind], "contract": CONTRACT, "polyvex": _versions()}
    templates = files("polyvex.scaffold") / "templates"
    wanted = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"src/{plugin.module}/__init__.py": "__init__.py",
        f"src/{plugin.module}/{kind}.py": f"{kind}.py",
        f"tests/test_{plugin.module}.py": f"test_{kind}.py",
    }
    texts = {
        path: environment.from_string((templates / f"{template}.jinja").read_text(encoding="utf-8")).render(facts)
        for path, template in wanted.items()
    }
    return {**texts, f"src/{plugin.module}/py.typed": ""}


def _versions() -> str:
    """The versions of polyvex that a plugin written today goes with: before 1.0, a second number may break it."""
    major, minor = (int(part) for part in version("polyvex").split(".")[:2])
    return f">={major}.{minor},<{f'0.{minor + 1}' if major == 0 else major + 1}"
