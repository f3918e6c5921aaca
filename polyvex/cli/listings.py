"""``polyvex plugins`` and the listings of components: what recipes may name."""

from typing import Any

import typer

from polyvex.cli.options import AsJson
from polyvex.cli.output import echo, installed, print_json, print_table


def list_plugins(as_json: AsJson = False) -> None:
    """List the installed plugins: distribution, version, import time in seconds, hooks, and whether each works."""
    from polyvex.catalog import plugin_rows
    from polyvex.hooks.manager import load_registries

    rows = plugin_rows(load_registries())
    if as_json:
        print_json(rows)
        return
    reasons = [row.pop("reason") for row in rows]
    effects = [row.pop("effects") for row in rows]
    print_table([{**row, "import_s": row["import_s"] or "", "hooks": ", ".join(row["hooks"])} for row in rows])
    for row, reason in zip(rows, reasons, strict=True):
        if reason:
            echo(f"{row['state'].upper()} {row['name']}: {reason}")
    for row, changed in zip(rows, effects, strict=True):
        if changed:
            echo(f"WARNING {row['name']}: its import {'; '.join(changed)}")


def doctor(as_json: AsJson = False) -> None:
    """Check every plugin, every component and every encoder's weights; exit 1 if something is broken."""
    from polyvex.catalog import diagnose
    from polyvex.hooks.manager import load_registries

    findings = diagnose(load_registries())
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            echo(f"{finding['state']:8}  {finding['what']}")
            for line in str(finding["details"]).splitlines():
                echo(f"          {line}")
    if any(finding["state"] == "broken" for finding in findings):
        raise typer.Exit(1)


def encoders(as_json: AsJson = False) -> None:
    """List encoders: tokens, grid, width, image size, licence, whether weights are here, and options."""
    from polyvex.catalog import encoder_rows

    _components("encoders", as_json, encoder_rows)


def reducers(as_json: AsJson = False) -> None:
    """List reducers, which leave fewer tokens of an encoder, with their options."""
    _components("reducers", as_json)


def fusions(as_json: AsJson = False) -> None:
    """List fusions with their options."""
    _components("fusions", as_json)


def positions(as_json: AsJson = False) -> None:
    """List position schemes with their options."""
    _components("position_schemes", as_json)


def routers(as_json: AsJson = False) -> None:
    """List routers with their options."""
    _components("routers", as_json)


def language_models(as_json: AsJson = False) -> None:
    """List language models with their options."""
    _components("language_models", as_json)


def datasets(as_json: AsJson = False) -> None:
    """List data sets with their options."""
    _components("datasets", as_json)


def metrics(as_json: AsJson = False) -> None:
    """List metrics."""
    _components("metrics", as_json)


def _components(field: str, as_json: bool, rows_of: Any = None) -> None:
    from polyvex.catalog import component_rows

    registry = getattr(installed(), field)
    rows = (rows_of or component_rows)(registry)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        echo(f"{row['name']}  {row['summary']}")
        for key, value in row.items():
            if key not in ("name", "summary", "options"):
                echo(f"    {key}: {value}")
        for option in row["options"]:
            echo(f"    {option['name']} = {option['default']}   {option['description']}")
    if not rows:
        echo(f"no {registry.kind} is installed")
