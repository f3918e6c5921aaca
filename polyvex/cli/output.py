"""The one place that writes to the terminal: lines, tables, JSON and questions, with unsafe characters escaped."""

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from polyvex.printable import one_line, printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console

    from polyvex.hooks.manager import Registries


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print ``text`` with unsafe characters escaped; see :func:`polyvex.printable.printable`."""
    typer.echo(printable(text), err=err, nl=nl)


echo_error = partial(echo, err=True)
"""Print to stderr."""


def prompt(text: str, *, default: str | None = None, words: Sequence[str] = (), paths: bool = False) -> str:
    """Ask a question on the terminal; Ctrl-C aborts the command.

    Args:
        default: the answer if only Enter is pressed; without it, the question is repeated.
        words: answers that the tab key completes; with ``paths`` also files and folders.
    """
    from polyvex.cli.completion import completing

    shown = text if default is None else f"{text} [{default}]"
    with completing(words, paths=paths):
        return typer.prompt(printable(shown), default=default, show_default=False).strip()


def console() -> "Console":
    """A console for colored text; markup is off, and the caller passes only printable text."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def installed() -> "Registries":
    """The installed plugins; those that could not be loaded are told on stderr, once per command."""
    from polyvex.hooks.manager import load_registries

    registries = load_registries()
    for status in registries.plugins:
        if status.state in ("broken", "unknown"):
            echo(f"{status.state.upper()} plugin {status.plugin}: {status.reason}", err=True)
    return registries


def print_json(value: Any) -> None:
    """Print plain data as JSON."""
    typer.echo(printable_json(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def print_table(rows: Sequence[Mapping[str, Any]], *, empty: str = "none") -> None:
    """Print rows as columns that fit the terminal; the last column is wrapped under itself."""
    if not rows:
        echo(empty)
        return
    heads = list(rows[0])
    cells = [[one_line(row[head]) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    room = max(24, shutil.get_terminal_size((100, 24)).columns - sum(widths[:-1]) - 2 * len(widths[:-1]))
    for line in [heads, *cells]:
        wrapped = textwrap.wrap(line[-1], room) or [""]
        start = "  ".join(cell.ljust(width) for cell, width in zip(line[:-1], widths[:-1], strict=True))
        echo(f"{start}  {wrapped[0]}".rstrip())
        for more in wrapped[1:]:
            echo(" " * (len(start) + 2) + more)
