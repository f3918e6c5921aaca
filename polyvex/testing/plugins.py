"""Run the kit over all that an installed plugin registers, and tell each check's outcome."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from polyvex.errors import PluginError
from polyvex.hooks.manager import KINDS, PluginStatus, Registries
from polyvex.hooks.registry import Entry, unknown
from polyvex.lm.base import LMOptions
from polyvex.options import Options
from polyvex.recipe.overrides import apply_changes, read_overrides
from polyvex.testing.checks import Check, Kit
from polyvex.testing.contracts import DatasetKit, EncoderKit
from polyvex.testing.declarations import check_options_class
from polyvex.testing.fusions import FusionKit
from polyvex.testing.imports import check_import
from polyvex.testing.metrics import MetricKit
from polyvex.testing.positions import PositionKit
from polyvex.testing.reducers import ReducerKit
from polyvex.testing.routers import RouterKit


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one check of one component came to; ``reason`` says why where it is not ``ok``."""

    component: str
    check: str
    state: Literal["ok", "FAILED", "skipped"]
    reason: str = ""

    def __str__(self) -> str:
        told = f": {self.reason}" if self.reason else ""
        return f"{self.state:8}  {self.component}: {self.check}{told}"


class LanguageModelKit:
    """The one check of a language model: of what it says of itself. Building one may need files of many GB."""

    def __init__(self, component: type[Any], options: Options):
        self.component = component
        self.options = options

    def checks(self) -> Iterator[Check]:
        """The check."""
        yield Check(name="declaration", run=lambda: check_options_class(self.component, self.options, LMOptions))


KITS: dict[str, Callable[[type[Any], Any], Kit]] = {
    "encoders": EncoderKit,
    "reducers": ReducerKit,
    "fusions": FusionKit,
    "position_schemes": PositionKit,
    "routers": RouterKit,
    "language_models": LanguageModelKit,
    "datasets": DatasetKit,
    "metrics": lambda component, _: MetricKit(component),
}
"""The kit of each kind, made from a component and its options."""


def check_plugin(
    registries: Registries,
    name: str,
    *,
    components: Sequence[str] = (),
    changes: Sequence[str] = (),
    pretrained: bool = False,
) -> Iterator[Outcome]:
    """Run the kit over a plugin's components. The checks of one component end with the first that fails.

    Args:
        name: of the plugin's entry point, or of its distribution.
        components: names of those to check; all if there are none.
        changes: options to check with, each as ``COMPONENT.OPTION=VALUE``; else those of ``Options.example()``.
        pretrained: check encoders with their weights, where those are on this machine.

    Raises:
        PluginError: if no such plugin is installed, it is broken or blocked, or a name among the others is unknown.
    """
    found = _entries(registries, name)
    known = [entry.name for _, entry in found]
    for wanted in components:
        if wanted not in known:
            raise PluginError(f"plugin {name}: {unknown('component', wanted, known)}")
    values = _values(changes, known)
    if not components:
        yield from _check_imports([status for status in registries.plugins if _is_called(status, name)])
    for field, entry in found:
        if not components or entry.name in components:
            yield from _check_component(field, entry, values.get(entry.name, {}), pretrained=pretrained)


def _entries(registries: Registries, name: str) -> list[tuple[str, Entry[Any]]]:
    """The components of a plugin, each with the field of its registry."""
    chosen = [status for status in registries.plugins if _is_called(status, name)]
    if not chosen:
        known = sorted({status.plugin.name for status in registries.plugins if status.state != "unknown"})
        raise PluginError(unknown("plugin", name, known))
    for status in chosen:
        if status.state != "loaded":
            raise PluginError(f"plugin {status.plugin} is {status.state}: {status.reason}. See: polyvex plugins doctor")
    plugins = [status.plugin for status in chosen]
    found = [(field, entry) for field in KINDS for entry in getattr(registries, field) if entry.plugin in plugins]
    if not found:
        clashes = [reason for field in KINDS for reason in getattr(registries, field).clashes_of(plugins)]
        if clashes:
            raise PluginError(f"nothing of plugin {name} can be used: {'; '.join(clashes)}")
        raise PluginError(f"plugin {name} registers nothing. A hook returns a mapping from name to class")
    return found


def _is_called(status: PluginStatus, name: str) -> bool:
    from packaging.utils import canonicalize_name

    plugin = status.plugin
    return name == plugin.name or canonicalize_name(name) == canonicalize_name(plugin.distribution)


def _values(changes: Sequence[str], known: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options by component, read from ``COMPONENT.OPTION=VALUE``."""
    values: dict[str, dict[str, Any]] = {}
    for change in changes:
        component, _, rest = change.partition(".")
        if component not in known:
            raise PluginError(f"--set {change}: expected COMPONENT.OPTION=VALUE. Components: {', '.join(known)}")
        read, problems = read_overrides([rest])
        changed = apply_changes(values.get(component, {}), read)
        values[component] = changed.data
        if problems or changed.problems:
            raise PluginError(f"--set {change}: expected COMPONENT.OPTION=VALUE")
    return values


def _check_imports(statuses: Sequence[PluginStatus]) -> Iterator[Outcome]:
    """The import of each module that an entry point names; other plugins were not imported by polyvex."""
    for status in statuses:
        if status.module:
            check = Check(name="import", run=partial(check_import, status.module))
            yield _outcome(f"plugin {status.plugin.name}", check)


def _outcome(component: str, check: Check) -> Outcome:
    try:
        check.run()
    except AssertionError as error:
        return Outcome(component=component, check=check.name, state="FAILED", reason=str(error))
    return Outcome(component=component, check=check.name, state="ok")


def _check_component(
    field: str, entry: Entry[Any], values: Mapping[str, Any], *, pretrained: bool
) -> Iterator[Outcome]:
    component = f"{KINDS[field]} {entry.name}"
    check = "options"
    try:
        options = _options(entry.component, values)
        kit = KITS[field](entry.component, options)
        if isinstance(kit, EncoderKit) and pretrained:
            check = "weights"
            place = entry.component.weights(options)
            kit.pretrained = place.path is not None
            if place.needed and place.path is None:
                reason = f"not on this machine. To get them: {place.install}"
                yield Outcome(component=component, check=check, state="skipped", reason=reason)
        for found in kit.checks():
            check = found.name
            found.run()
            yield Outcome(component=component, check=check, state="ok")
    except AssertionError as error:
        yield Outcome(component=component, check=check, state="FAILED", reason=str(error))
    except Exception as error:  # an author's own code; the kit's work is to tell, not to fall ill
        yield Outcome(component=component, check=check, state="FAILED", reason=_told(error, entry.component))


def _options(component: type[Any], values: Mapping[str, Any]) -> Options | None:
    """The example's options with these values in place of its own; None for a metric, which has no options.

    Raises:
        AssertionError: if they are not complete, or a value cannot be.
    """
    kind = getattr(component, "Options", None)
    if not (isinstance(kind, type) and issubclass(kind, Options)):
        if values:
            raise AssertionError(f"{component.__name__} has no options; got {', '.join(values)}")
        return None
    lacks = [name for name, field in kind.model_fields.items() if field.is_required()]
    own = kind.example.__func__ is not Options.example.__func__  # type: ignore[attr-defined]
    try:
        example = kind.example().model_dump() if own or not lacks else {}
        return kind.model_validate({**example, **values})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise AssertionError(f"{problems}. Give it by --set, or let {kind.__name__}.example() give it") from error


def _told(error: Exception, component: type[Any]) -> str:
    """An error of the author's code in one line, with its last place in the plugin."""
    import inspect

    home = Path(inspect.getfile(component)).parent
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if home in Path(frame.filename).parents]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
