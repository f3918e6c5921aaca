"""What is installed, as plain rows: for listings, for JSON, and for the docs."""

import json
from typing import Any

from pydantic.fields import FieldInfo

from polyvex.encoders.base import VisionEncoder
from polyvex.hooks.manager import KINDS, Registries
from polyvex.hooks.registry import Registry
from polyvex.options import Options


def plugin_rows(registries: Registries) -> list[dict[str, Any]]:
    """One row per plugin: name, distribution, version, state, hooks, and the reason if it is not loaded."""
    return [
        {
            "name": status.plugin.name,
            "distribution": status.plugin.distribution,
            "version": status.plugin.version,
            "state": status.state,
            "hooks": status.hooks,
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
        if any(field.is_required() for field in entry.component.Options.model_fields.values()):
            rows.append(row)  # without the required options, nothing more can be said
            continue
        options = entry.component.Options()
        facts, weights = entry.component.describe(options), entry.component.weights(options)
        height, width = facts.image_size
        place = (
            "not needed" if not weights.needed else str(weights.path) if weights.path else f"MISSING: {weights.install}"
        )
        rows.append(
            {
                **row,
                "tokens": facts.shape.tokens,
                "grid": str(facts.shape.grid) if facts.shape.grid else None,
                "width": facts.shape.dim,
                "image": f"{height}x{width} px",
                "parameters": facts.parameters,
                "license": str(facts.license),
                "source": facts.source,
                "weights": place,
            }
        )
    return rows


def diagnose(registries: Registries) -> list[dict[str, str]]:
    """Findings about plugins, components and weights: ``ok``, ``missing``, ``disabled`` or ``broken``."""
    findings = [
        {
            "state": {"loaded": "ok"}.get(status.state, status.state),
            "what": f"plugin {status.plugin}: {status.reason or ', '.join(status.hooks) or 'no hook'}",
            "details": status.details,
        }
        for status in registries.plugins
    ]
    for field in KINDS:
        for entry in getattr(registries, field):
            if problem := _incomplete(entry.component):
                what = f"{getattr(registries, field).kind} {entry.name} of {entry.plugin}: {problem}"
                findings.append({"state": "broken", "what": what, "details": ""})
    return findings + _weights(registries)


def _incomplete(component: type[Any]) -> str:
    """What a component's class lacks; empty if it is whole."""
    if abstract := sorted(getattr(component, "__abstractmethods__", ())):
        return f"does not implement {', '.join(abstract)}"
    return "" if getattr(component, "summary", "") else "has no summary"


def _weights(registries: Registries) -> list[dict[str, str]]:
    findings = []
    for entry in registries.encoders:
        if any(field.is_required() for field in entry.component.Options.model_fields.values()):
            continue
        try:
            place = entry.component.weights(entry.component.Options())
        except Exception as error:  # a plugin's own code; the doctor's work is to tell, not to fall ill
            what = f"weights of {entry.name}: {type(error).__name__}: {error}"
            findings.append({"state": "broken", "what": what, "details": ""})
            continue
        if place.needed:
            where = str(place.path) if place.path else f"not on this machine. To get them: {place.install}"
            state = "ok" if place.path else "missing"
            findings.append({"state": state, "what": f"weights of {entry.name}: {where}", "details": ""})
    return findings
