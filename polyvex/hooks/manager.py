"""Find plugins, keep the broken ones from stopping the others, and collect what they register."""

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from polyvex.errors import PluginError
from polyvex.hooks import specs
from polyvex.hooks.contract import check_contract, unmet_requirement
from polyvex.hooks.files import load_file, plugin_files
from polyvex.hooks.functions import check_hooks
from polyvex.hooks.offers import checked_offer
from polyvex.hooks.registry import Plugin, Registry, unknown
from polyvex.hooks.watch import watch

if TYPE_CHECKING:
    from polyvex.data.base import Dataset
    from polyvex.encoders.base import VisionEncoder
    from polyvex.evaluation.base import Metric
    from polyvex.fusion.base import Fusion
    from polyvex.lm.base import LanguageModel
    from polyvex.moe.routers import Router
    from polyvex.positions.base import PositionScheme
    from polyvex.reducers.base import Reducer

T = TypeVar("T")

DISABLE = "POLYVEX_DISABLE_PLUGINS"
"""Environment variable: names of plugins to leave out, separated by commas."""

BUILT_IN = tuple(
    f"polyvex.{package}" for package in ("reducers", "fusion", "positions", "moe", "lm", "data", "evaluation")
)
"""Packages of the core that register their components through the same hooks as everybody else."""


@dataclass(frozen=True, kw_only=True)
class PluginStatus:
    """What became of one plugin: ``loaded``, ``disabled`` or ``broken``, and why.

    ``unknown`` is a name that was to be blocked and that no installed plugin has. ``import_seconds`` is the time that
    an installed plugin took to load; a library that several plugins import counts for the first of them, and one that
    polyvex imports itself for none. ``effects`` are changes to the process that should not happen at import.
    """

    plugin: Plugin
    state: str
    hooks: list[str] = field(default_factory=list)
    reason: str = ""
    details: str = ""
    module: str = ""
    import_seconds: float | None = None
    effects: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Registries:
    """Everything that recipes may name, and how each plugin fared."""

    encoders: "Registry[VisionEncoder]"
    reducers: "Registry[Reducer]"
    fusions: "Registry[Fusion]"
    position_schemes: "Registry[PositionScheme]"
    routers: "Registry[Router]"
    language_models: "Registry[LanguageModel]"
    datasets: "Registry[Dataset]"
    metrics: "Registry[Metric]"
    plugins: list[PluginStatus]
    _derived: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def derive(self, make: Callable[["Registries"], T]) -> T:
        """Return ``make(self)``, computed once for the components that are registered now.

        For classes that depend on all components: building them takes much longer than using them. A component that
        is registered later leads to a new result.
        """
        registries: list[Registry[Any]] = [getattr(self, kind) for kind in KINDS]
        components = [(name, entry.component) for one in registries for name, entry in one.entries.items()]
        key = (make, *components, *(name for one in registries for name in one.clashes))
        if key not in self._derived:
            self._derived[key] = make(self)
        return self._derived[key]

    def broken(self) -> list[PluginStatus]:
        """Plugins that are installed but could not be loaded, or not whole."""
        return [status for status in self.plugins if status.state == "broken"]


KINDS = {
    "encoders": "encoder",
    "reducers": "reducer",
    "fusions": "fusion",
    "position_schemes": "position scheme",
    "routers": "router",
    "language_models": "language model",
    "datasets": "data set",
    "metrics": "metric",
}
"""Registry field to the word for one of its entries; the hook is ``register_<field>``."""


def load_registries(*, third_party: bool = True, extra: Mapping[str, Any] | None = None) -> Registries:
    """Load the built-in components and the installed plugins.

    Args:
        third_party: also load installed plugins (entry points of the group ``polyvex``), and the files that
            ``POLYVEX_PLUGIN_FILES`` names.
        extra: further plugins by name, as modules or objects with hook implementations. For tests and notebooks.

    A plugin that fails to import, or that registers a name which another one has, stops nobody: it is listed in
    ``Registries.plugins`` with its reason.

    Raises:
        PluginError: if one of ``extra``, or a plugin file, is broken or registers a name that is taken.
    """
    manager = pluggy.PluginManager(specs.GROUP)
    manager.add_hookspecs(specs)
    registries = _empty()
    for package in BUILT_IN:
        plugin = Plugin(name=package, distribution="polyvex", version=version("polyvex"))
        _register(manager, import_module(package), plugin, registries, strict=True)
    for name, namespace in (extra or {}).items():
        plugin = Plugin(name=name, distribution="passed by hand", version="")
        _register(manager, namespace, plugin, registries, strict=True)
    if third_party:
        _load_installed(manager, registries)
        for path in plugin_files():
            with watch() as watched:
                plugin, module = load_file(path)
            _register(manager, module, plugin, registries, strict=True)
            registries.plugins[-1] = replace(
                registries.plugins[-1], import_seconds=watched.seconds, effects=watched.effects
            )
    return registries


def _empty() -> Registries:
    return Registries(**{name: Registry(kind) for name, kind in KINDS.items()}, plugins=[])  # type: ignore[arg-type]


def _load_installed(manager: pluggy.PluginManager, registries: Registries) -> None:
    disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",") if name.strip()}
    found = sorted(entry_points(group=specs.GROUP), key=lambda point: point.name)
    names = [point.name for point in found]
    for name in sorted(disabled.difference(names)):
        reason = f"{DISABLE} names it, but nothing is blocked: {unknown('plugin', name, names)}"
        nobody = Plugin(name=name, distribution="not installed", version="")
        registries.plugins.append(PluginStatus(plugin=nobody, state="unknown", reason=reason))
    for point in found:
        plugin = Plugin(name=point.name, distribution="unknown", version="")
        if point.name in disabled:
            status = PluginStatus(plugin=_plugin_of(point), state="disabled", reason=f"named in {DISABLE}")
            registries.plugins.append(status)
            continue
        with watch() as watched:
            _load_one(manager, point, plugin, registries)
        registries.plugins[-1] = replace(
            registries.plugins[-1],
            module=getattr(point, "value", "").partition(":")[0],
            import_seconds=watched.seconds,
            effects=watched.effects,
        )


def _load_one(manager: pluggy.PluginManager, point: EntryPoint, plugin: Plugin, registries: Registries) -> None:
    """Import one plugin and register what it offers; a status is added in any case."""
    try:
        plugin = _plugin_of(point)
        if reason := unmet_requirement(point.dist):
            registries.plugins.append(PluginStatus(plugin=plugin, state="broken", reason=reason))
            return
        namespace = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may do anything while it is imported, and leave the program too
        status = PluginStatus(
            plugin=plugin,
            state="broken",
            reason=f"import failed: {_one_line(error)}",
            details=traceback.format_exc(),
        )
        registries.plugins.append(status)
        return
    _register(manager, namespace, plugin, registries, strict=False)


def _plugin_of(point: EntryPoint) -> Plugin:
    distribution = point.dist
    name = distribution.metadata["Name"] if distribution else "unknown"
    return Plugin(name=point.name, distribution=name, version=distribution.version if distribution else "")


def _register(
    manager: pluggy.PluginManager, namespace: Any, plugin: Plugin, registries: Registries, *, strict: bool
) -> None:
    """Register one plugin and collect what it offers. ``strict`` re-raises what would mark a plugin as broken."""
    try:
        check_contract(namespace)
        check_hooks(namespace, plugin)
        manager.register(namespace, name=plugin.file or plugin.name)
        offers = _offers(manager, namespace)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # as at import: one bad plugin must not stop the others
        if strict:
            raise
        if manager.is_registered(namespace):
            manager.unregister(namespace)
        status = PluginStatus(plugin=plugin, state="broken", reason=_one_line(error), details=traceback.format_exc())
        registries.plugins.append(status)
        return
    clashes = _add_all(offers, plugin, registries, strict=strict)
    hooks = sorted(caller.name for caller in manager.get_hookcallers(namespace) or [])
    status = PluginStatus(
        plugin=plugin, state="broken" if clashes else "loaded", hooks=hooks, reason="; ".join(clashes)
    )
    registries.plugins.append(status)


def _add_all(
    offers: Mapping[str, Mapping[str, type]], plugin: Plugin, registries: Registries, *, strict: bool
) -> list[str]:
    """Register all that a plugin offers; return why some of it could not be, unless ``strict`` raises it."""
    clashes = []
    for kind, components in offers.items():
        for name, component in components.items():
            try:
                getattr(registries, kind).add(name, component, plugin)
            except PluginError as error:
                if strict:
                    raise
                clashes.append(str(error))
    return clashes


def _offers(manager: pluggy.PluginManager, namespace: Any) -> dict[str, dict[str, type]]:
    others = [plugin for plugin in manager.get_plugins() if plugin is not namespace]
    offers: dict[str, dict[str, type]] = {}
    for kind in KINDS:
        hook = manager.subset_hook_caller(f"register_{kind}", others)
        results: Sequence[Mapping[str, type]] = hook()
        for result in results:
            offers[kind] = checked_offer(kind, result)
        if hook.get_hookimpls() and not results:  # pluggy leaves None out of the results
            reason = f"register_{kind} returned None, expected a mapping from name to class. Is the return missing?"
            raise PluginError(reason, code="plugin-hook")
    return offers


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
