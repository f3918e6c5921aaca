"""Progress bars, quick on a terminal and rare in a log file."""

import sys
from typing import Any

from tqdm import tqdm

from polyvex.printable import printable

IN_A_LOG = 15.0
"""Seconds between two states of a bar where nobody watches."""


def bar(*args: Any, **options: Any) -> tqdm:
    """tqdm's bar; where stderr is a file, it is written every quarter of a minute instead of ten times a second."""
    watched = sys.stderr.isatty()
    if "desc" in options:
        options["desc"] = printable(options["desc"])
    return tqdm(*args, mininterval=0.1 if watched else IN_A_LOG, **options)


def show_beside(progress: tqdm, **values: str) -> None:
    """Show values beside a bar; in a file they wait for its next state."""
    progress.set_postfix({name: printable(value) for name, value in values.items()}, refresh=sys.stderr.isatty())
