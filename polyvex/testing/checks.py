"""A kit is a list of named checks: run to the first that fails, or one by one with a line for each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Check:
    """One law: a name for reports, and a function that raises AssertionError where the law is broken."""

    name: str
    run: Callable[[], object]


class Kit(Protocol):
    """All checks of one component. They build on one another, so they run in order, and none after one that failed."""

    def checks(self) -> Iterator[Check]:
        """The checks in order. Each has to be run before the next one is asked for."""
        ...


def run_all(kit: Kit) -> None:
    """Run a kit's checks.

    Raises:
        AssertionError: at the first that fails.
    """
    for check in kit.checks():
        check.run()
