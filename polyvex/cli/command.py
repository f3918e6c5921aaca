"""What holds while one command runs: options that may stand anywhere, and where log messages go."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from polyvex.cli.output import echo_error

PLUGIN = "--plugin"


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        echo_error(record.getMessage())


def take_options(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """Split off ``--debug`` and ``--plugin FILE``, which may stand anywhere before ``--``.

    Returns:
        The other arguments, whether ``--debug`` was given, and the plugin files.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest, files, debug = [], [], False
    waiting = iter(arguments[:end])
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if argument == "--debug":
            debug = True
        elif argument == PLUGIN and (file := next(waiting, None)) is not None:
            files.append(file)
        elif name == PLUGIN and equals:
            files.append(value)
        else:
            rest.append(argument)  # also a --plugin without a file, which typer reports
    return [*rest, *arguments[end:]], debug, files


@contextmanager
def one_command(files: list[str]) -> Iterator[None]:
    """Load ``files`` as plugins wherever plugins are loaded, also in child processes, and print log messages."""
    from polyvex.hooks.files import FILES

    logger, handler, before = logging.getLogger("polyvex"), _ToStderr(), os.environ.get(FILES)
    logger.addHandler(handler)
    if files:
        os.environ[FILES] = os.pathsep.join([*filter(None, [before]), *map(os.path.abspath, files)])
    try:
        yield
    finally:
        logger.removeHandler(handler)
        if files:
            os.environ.pop(FILES)
            os.environ.update({FILES: before} if before else {})
