"""Single files that serve as plugins for one command: ``polyvex --plugin my.py``."""

import hashlib
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from polyvex.errors import PluginError
from polyvex.hooks.registry import Plugin
from polyvex.hooks.specs import GROUP

FILES = "POLYVEX_PLUGIN_FILES"
"""Environment variable: files to load as plugins, separated as in ``PATH``. ``--plugin`` sets it for one command."""


def plugin_files() -> list[Path]:
    """Files that the environment names, each once."""
    named = [Path(name) for name in os.environ.get(FILES, "").split(os.pathsep) if name]
    return list(dict.fromkeys(path.absolute() for path in named))


def load_file(path: Path) -> tuple[Plugin, ModuleType]:
    """Import a file as a plugin. Its version is the SHA-256 of its content, so that records tell edits apart.

    A file that did not change since it was loaded in this process is not imported again: its classes stay the same.

    Raises:
        PluginError: if the file is missing, cannot be imported, or implements no hook.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError(f"--plugin {path}: {error.strerror}; expected a Python file", code="plugin-file") from None
    digest = hashlib.sha256(content).hexdigest()
    plugin = Plugin(name=path.name, distribution=path.name, version=f"sha256:{digest}", file=str(path))
    name = f"polyvex_plugin_{digest[:16]}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module = sys.modules.get(name) or _import(path, name)
    if not any(hasattr(value, f"{GROUP}_impl") for value in vars(module).values()):
        raise PluginError(
            f"--plugin {path}: implements no hook. Write a function such as register_encoders, with @hookimpl of "
            f"polyvex.hooks above it",
            code="plugin-file-no-hook",
        )
    return plugin, module


def _import(path: Path, name: str) -> ModuleType:
    spec = spec_from_file_location(name, path)
    if path.suffix != ".py" or spec is None or spec.loader is None:
        raise PluginError(f"--plugin {path}: expected a Python file that ends in .py", code="plugin-file")
    module = module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        del sys.modules[name]
        raise
    except BaseException as error:  # also SystemExit: an import may do anything
        del sys.modules[name]
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"--plugin {path}: import failed: {reason}", code="plugin-file-import") from error
    return module
