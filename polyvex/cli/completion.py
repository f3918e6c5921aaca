"""Tab completion of answers to questions, where Python was built with ``readline``."""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

DELIMITERS = " \t\n,"
"""Characters between the words of an answer. Names contain dashes and dots; a path, which is a whole answer, any."""


def matches(text: str, words: Sequence[str], *, paths: bool = False) -> list[str]:
    """Words that begin with ``text``, sorted; with ``paths`` also files and folders, which end in a slash."""
    found = sorted(word for word in words if word.startswith(text))
    if paths and (text or not words):  # before the first letter, only the words are offered
        named = sorted(glob.glob(glob.escape(text) + "*"))
        found += [path + os.sep if os.path.isdir(path) else path for path in named]
    return found


@contextmanager
def completing(words: Sequence[str], *, paths: bool = False) -> Iterator[None]:
    """Complete ``words`` (and paths) with the tab key while a question waits for its answer."""
    readline = _readline()
    if readline is None:
        yield
        return
    completer, delimiters = readline.get_completer(), readline.get_completer_delims()
    readline.set_completer(lambda text, state: dict(enumerate(matches(text, words, paths=paths))).get(state))
    readline.set_completer_delims("\n" if paths else DELIMITERS)
    # macOS has libedit behind the same module, with another syntax.
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(completer)
        readline.set_completer_delims(delimiters)


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:  # Windows
        return None
    return readline
