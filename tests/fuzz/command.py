"""Run a command line in this process and classify how it ends."""

import contextlib
import io
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from polyvex.cli import run
from polyvex.errors import PolyvexError

T = TypeVar("T")

WORKING, WAITING = 40, 300
"""Seconds of processor time, and of the clock, after which a trial counts as a hang. A healthy one takes about one."""


class Hang(BaseException):
    """The deadline has passed. A BaseException, so that no ``except Exception`` swallows it."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: exit code, standard output and error, and the fault if there is one.

    ``fault`` is empty, ``hang``, ``traceback`` (an exception left the command line or was printed) or ``failed``
    (an error that polyvex did not foresee: the line ``failed: …``).
    """

    code: int
    out: str = ""
    error: str = ""
    fault: str = ""

    @property
    def refused(self) -> bool:
        """Whether the input was rejected with a message of polyvex or of the command line's parser."""
        return not self.fault and self.code != 0


def polyvex(*arguments: object) -> Ended:
    """Run ``polyvex ARGUMENTS``."""
    out, error = io.StringIO(), io.StringIO()
    try:
        with deadline(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = run([str(argument) for argument in arguments])
    except Hang:
        return Ended(code=1, fault="hang")
    except (Exception, SystemExit):
        return Ended(code=1, error=traceback.format_exc(), fault="traceback")
    told = error.getvalue()
    fault = "traceback" if "Traceback (most recent call last)" in told else "failed" if "failed: " in told else ""
    return Ended(code=int(code), out=out.getvalue(), error=told, fault=fault)


def call(function: Callable[[], T]) -> tuple[T | None, Ended]:
    """Call a function of the library: its result, and how it ended, judged as the command line would."""
    try:
        with deadline():
            return function(), Ended(code=0)
    except Hang:
        return None, Ended(code=1, fault="hang")
    except PolyvexError as error:
        return None, Ended(code=error.exit_code, error=str(error))
    except Exception:
        return None, Ended(code=1, error=traceback.format_exc(), fault="failed")


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    """Raise :class:`Hang` in a trial that works or waits for too long."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = {number: signal.signal(number, ring) for number in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    signal.setitimer(signal.ITIMER_PROF, WORKING)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
