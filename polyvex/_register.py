"""Make ``AutoModelForImageTextToText`` know polyvex after ``import polyvex``, without importing transformers for it.

Importing transformers and torch costs seconds, which ``polyvex --help`` must not pay. So if transformers is not
there yet, a finder waits for its table of configurations, which every Auto class needs, and registers right after
that module has run.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

TABLE = "transformers.models.auto.configuration_auto"


def register_when_transformers_is_there() -> None:
    """Register now if transformers' table is loaded, else once it is. Does nothing the second time."""
    if TABLE in sys.modules:
        _register()
    elif not any(isinstance(finder, _Waiter) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiter())


def _register() -> None:
    # While polyvex.model itself is being imported, its own last lines register it.
    if "polyvex.model" not in sys.modules:
        importlib.import_module("polyvex.model")


class _Waiter(MetaPathFinder):
    """Finds one module as the other finders would, and adds the registration to its loader. Then it goes away."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TABLE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(Loader):
    """Runs a module as its own loader does, then registers polyvex."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _register()
