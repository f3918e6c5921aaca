"""Print tables and JSON."""

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from polyvex.hooks.manager import Registries


def installed() -> "Registries":
    """The installed plugins; those that could not be loaded are told on stderr, once per command."""
    from polyvex.hooks.manager import load_registries

    registries = load_registries()
    for status in registries.plugins:
        if status.state in ("broken", "unknown"):
            typer.echo(f"{status.state.upper()} plugin {status.plugin}: {status.reason}", err=True)
    return registries


def print_json(value: Any) -> None:
    """Print plain data as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(rows: Sequence[Mapping[str, Any]], *, empty: str = "none") -> None:
    """Print rows as columns that fit the terminal; the last column is wrapped under itself."""
    if not rows:
        typer.echo(empty)
        return
    heads = list(rows[0])
    cells = [[str(row[head]) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    room = max(24, shutil.get_terminal_size((100, 24)).columns - sum(widths[:-1]) - 2 * len(widths[:-1]))
    for line in [heads, *cells]:
        wrapped = textwrap.wrap(line[-1], room) or [""]
        start = "  ".join(cell.ljust(width) for cell, width in zip(line[:-1], widths[:-1], strict=True))
        typer.echo(f"{start}  {wrapped[0]}".rstrip())
        for more in wrapped[1:]:
            typer.echo(" " * (len(start) + 2) + more)
