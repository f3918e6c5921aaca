"""The command line. ``polyvex --help`` imports neither torch nor transformers."""

import io
import sys
import traceback
from pathlib import Path

from polyvex.errors import PolyvexError
from polyvex.storage import full_disk, out_of_space

DONE, FAILED, WRONG_INPUT = 0, 1, 2

INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


NO_MEMORY = "failed: this machine has not enough memory for it; polyvex plan tells what a recipe needs"
"""What is said instead of torch's many words for it."""


def main() -> None:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 wrong input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 must not end the command
    try:
        code = run(sys.argv[1:])
    except Exception:  # only --debug lets one through
        from polyvex.cli.output import echo_error

        echo_error(traceback.format_exc(), nl=False)
        code = FAILED
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. People's mistakes are told without a traceback; --debug shows it."""
    import typer

    from polyvex.cli.app import app
    from polyvex.cli.command import one_command, take_options
    from polyvex.cli.output import echo_error

    arguments, debug, files = take_options(arguments)
    try:
        with one_command(files):
            code = app(arguments, prog_name="polyvex", standalone_mode=False) or DONE
    except PolyvexError as error:
        if debug:
            raise
        echo_error(f"error: {error}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except Exception as error:
        # Wrong usage: typer carries a click of its own, whose exceptions have no public name.
        if show := getattr(error, "show", None):
            usage = io.StringIO()
            show(file=usage)
            echo_error(usage.getvalue(), nl=False)
            return WRONG_INPUT
        if debug:
            raise
        if isinstance(error, OSError) and error.filename is not None and not out_of_space(error):
            echo_error(f"error: {error.strerror}: {error.filename}")  # a path that somebody gave
            return WRONG_INPUT
        echo_error(_failure(error))
        return FAILED
    return _interrupted() if code == INTERRUPTED else code


def _failure(error: Exception) -> str:
    """What to say of an error that is nobody's mistake, or of too little memory."""
    if out_of_space(error):
        return f"error: {full_disk(Path(getattr(error, 'filename', None) or '.'))}"
    if isinstance(error, MemoryError) or any(words in str(error) for words in ("not enough memory", "out of memory")):
        return f"{NO_MEMORY}\n(--debug shows where)"
    return f"failed: {type(error).__name__}: {error}\n(--debug shows where)"


def _interrupted() -> int:
    from polyvex.cli.output import echo_error

    echo_error("\nstopped. What was finished is kept")
    return FAILED
