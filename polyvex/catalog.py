"""What is installed, as plain rows: for listings, for JSON, and for the docs."""

import json
import traceback
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from polyvex.data.base import Dataset
from polyvex.encoders import WeightsPlace
from polyvex.encoders.base import EncoderFacts, VisionEncoder
from polyvex.errors import ContractError
from polyvex.fusion.base import Fusion
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Plugin, Registry
from polyvex.lm.base import LanguageModel
from polyvex.options import Options


def plugin_rows(registries: Registries) -> list[dict[str, Any]]:
    """One row per plugin: name, distribution, version, state, hooks, and the reason if it is not loaded.

    ``import_s`` is the time in seconds that an installed plugin took to load, ``effects`` what it changed then.
    """
    return [
        {
            "name": status.plugin.name,
            "distribution": status.plugin.distribution,
            "version": status.plugin.version,
            "state": status.state,
            "import_s": None if status.import_seconds is None else round(status.import_seconds, 3),
            "hooks": status.hooks,
            "effects": status.effects,
            "reason": status.reason,
        }
        for status in registries.plugins
    ]


def component_rows(registry: Registry[Any]) -> list[dict[str, Any]]:
    """One row per component: name, plugin, one line, options."""
    return [
        {
            "name": entry.name,
            "plugin": str(entry.plugin),
            "summary": entry.component.summary,
            "options": option_rows(getattr(entry.component, "Options", Options)),  # metrics have none
        }
        for entry in registry
    ]


def option_rows(options: type[Any]) -> list[dict[str, Any]]:
    """One row per option: name, type, default and description."""
    return [
        {"name": name, "type": _type(field), "default": _default(field), "description": field.description or ""}
        for name, field in options.model_fields.items()
    ]


def _type(field: FieldInfo) -> str:
    return (
        str(field.annotation).replace("typing.", "")
        if not isinstance(field.annotation, type)
        else field.annotation.__name__
    )


def _default(field: FieldInfo) -> str:
    """A default as it is written in TOML."""
    if field.is_required():
        return "(required)"
    return json.dumps(field.get_default(call_default_factory=True), default=str)


def encoder_rows(registry: "Registry[VisionEncoder]") -> list[dict[str, Any]]:
    """As :func:`component_rows`, with the facts of each encoder at its default options."""
    rows = []
    for entry, row in zip(registry, component_rows(registry), strict=True):
        try:
            rows.append({**row, **_facts(entry.component)})
        except Exception as error:  # a plugin's own code; the others are listed all the same
            more = f"See: polyvex plugins test {entry.plugin.name}"
            rows.append({**row, "BROKEN": f"{type(error).__name__}: {error}. {more}"})
    return rows


def _facts(encoder: type[VisionEncoder]) -> dict[str, Any]:
    """Facts of an encoder at its default options; none where an option has no default."""
    if any(field.is_required() for field in encoder.Options.model_fields.values()):
        return {}
    options = encoder.Options()
    facts, weights = encoder.describe(options), encoder.weights(options)
    for made, kind in ((facts, EncoderFacts), (weights, WeightsPlace)):
        if not isinstance(made, kind):
            raise ContractError(f"{encoder.__name__} returned {type(made).__name__}, expected {kind.__name__}")
    height, width = facts.image_size
    place = "not needed" if not weights.needed else str(weights.path or f"MISSING: {weights.install}")
    return {
        "tokens": facts.shape.tokens,
        "grid": str(facts.shape.grid) if facts.shape.grid else None,
        "width": facts.shape.dim,
        "image": f"{height}x{width} px",
        "parameters": facts.parameters,
        "license": str(facts.license),
        "source": facts.source,
        "weights": place,
    }


def missing_here(component: type[Any], options: Mapping[str, Any] | None = None) -> str:
    """What must be given or installed before a component can be used on this machine; empty if nothing.

    Args:
        options: values of its options; of the others, the defaults.
    """
    given = options or {}
    fields = component.Options.model_fields
    if required := [name for name, field in fields.items() if field.is_required() and name not in given]:
        return f"needs the option{'s' if len(required) > 1 else ''} {', '.join(required)}"
    try:
        install = _install(component, component.Options(**given))
    except Exception as error:  # a plugin's own code; the others are listed all the same
        return f"BROKEN: {type(error).__name__}: {error}"
    return f"not on this machine. To get it: {install}" if install else ""


def _install(component: type[Any], options: Any) -> str:
    """How to get what a component lacks on this machine; empty if it lacks nothing."""
    if issubclass(component, LanguageModel | Dataset):
        return component(options).missing()
    if issubclass(component, VisionEncoder | Fusion) and (place := component.weights(options)) is not None:
        return place.install if place.needed and place.path is None else ""
    return ""


def diagnose(registries: Registries) -> list[dict[str, str]]:
    """Findings about plugins, encoders and weights: ``ok``, ``missing``, ``disabled`` or ``broken``."""
    findings = [
        {
            "state": {"loaded": "ok"}.get(status.state, status.state),
            "what": f"plugin {status.plugin}: {status.reason or ', '.join(status.hooks) or 'no hook'}",
            "details": status.details,
        }
        for status in registries.plugins
    ]
    findings += [
        {"state": "warning", "what": f"plugin {status.plugin}: its import {'; '.join(status.effects)}", "details": ""}
        for status in registries.plugins
        if status.effects
    ]
    return findings + _encoders(registries)


def _encoders(registries: Registries) -> list[dict[str, str]]:
    """What is wrong with encoders at their default options, and where their weights are."""
    findings = []
    missing: dict[Plugin, dict[str, str]] = {}
    for entry in registries.encoders:
        if any(field.is_required() for field in entry.component.Options.model_fields.values()):
            continue
        try:
            _facts(entry.component)
            place = entry.component.weights(entry.component.Options())
        except Exception as error:  # a plugin's own code; the doctor's work is to tell, not to fall ill
            what = f"encoder {entry.name} of {entry.plugin}: {type(error).__name__}: {error}"
            findings.append({"state": "broken", "what": what, "details": traceback.format_exc()})
            continue
        if place.needed and place.path:
            findings.append({"state": "ok", "what": f"weights of {entry.name}: {place.path}", "details": ""})
        elif place.needed:
            missing.setdefault(entry.plugin, {})[entry.name] = place.install
    return findings + [_missing(plugin, installs) for plugin, installs in missing.items()]


def _missing(plugin: Plugin, installs: dict[str, str]) -> dict[str, str]:
    """One finding for all weights of a plugin that are not on this machine, by encoder with how to get each."""
    (name, install), *others = installs.items()
    if not others:
        what = f"weights of {name} ({plugin.name}): not on this machine. To get them: {install}"
        return {"state": "missing", "what": what, "details": ""}
    way = "To get them" if len(set(installs.values())) == 1 else f"To get those of {name}"
    what = f"weights of {len(installs)} encoders of {plugin.name}: not on this machine. {way}: {install}"
    return {"state": "missing", "what": what, "details": ", ".join(installs)}
