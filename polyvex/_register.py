"""Make transformers' Auto classes know polyvex after ``import polyvex``, without importing transformers for it.

Importing transformers and torch costs seconds, which ``polyvex --help`` must not pay. So a finder waits for the
modules behind the Auto classes. Right after each of them has run, it imports our module that registers with it in
its last line: the configuration, the model, or the processor.
"""

import importlib.util
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO = "transformers.models.auto"
REGISTRARS = {
    f"{AUTO}.configuration_auto": "polyvex.model.config",
    f"{AUTO}.modeling_auto": "polyvex.model.modeling",
    f"{AUTO}.processing_auto": "polyvex.model.processing",
}
"""A module of transformers, and the module of ours that registers with it."""


def register_when_transformers_is_there() -> None:
    """Register with what is loaded already, and wait for the rest. Does nothing the second time."""
    if any(isinstance(finder, _Waiter) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Waiter())
    for module, registrar in REGISTRARS.items():
        if module in sys.modules:
            import_module(registrar)


class _Waiter(MetaPathFinder):
    """Finds transformers' Auto modules as the other finders would, and lets a registrar run after each."""

    def __init__(self) -> None:
        self.busy = False

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.busy or fullname not in REGISTRARS:
            return None
        self.busy = True  # the question is passed on to the other finders, and comes by here again
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.busy = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader, REGISTRARS[fullname])
        return spec


class _ThenRegister(Loader):
    """Runs a module as its own loader does, then imports the registrar."""

    def __init__(self, loader: Loader, registrar: str):
        self.loader = loader
        self.registrar = registrar

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        if self.registrar not in sys.modules:  # else it is being imported right now, and registers at its end
            import_module(self.registrar)
