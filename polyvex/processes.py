"""Number and rank of the processes that train together, from the variables that torchrun sets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from polyvex.errors import RunError

VARIABLES = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}
"""Environment variables of a launcher, with the lowest value that each may have."""


NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables without which several processes do not find each other."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Processes that train together.

    ``rank`` counts them from 0. ``devices`` is how many GPUs each of them splits its batch over: more than one only
    where a single process sees several GPUs.
    """

    rank: int = 0
    count: int = 1
    devices: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    @property
    def replicas(self) -> int:
        """Batches of the recipe's ``batch_size`` that one step trains on."""
        return self.count * self.devices


def processes(environment: Mapping[str, str] | None = None) -> Processes:
    """Read the variables of a launcher. Without a ``WORLD_SIZE`` above 1, a process is alone, whatever its ``RANK``.

    Raises:
        RunError: with the code ``process-environment``, if a variable is not a number or they contradict each other.
    """
    environment = os.environ if environment is None else environment
    found = {name: environment[name] for name in VARIABLES if name in environment}
    problems = [
        f"{name} is {value!r}, expected an integer of at least {VARIABLES[name]}"
        for name, value in found.items()
        if not (value.strip().isdecimal() and int(value) >= VARIABLES[name])
    ]
    if not problems:
        count = int(found.get("WORLD_SIZE", 1))
        if count == 1:
            return Processes()
        problems = [f"{name} is not set, but WORLD_SIZE is {count}" for name in NEEDED if not environment.get(name)]
        if not problems and int(found["RANK"]) < count:
            return Processes(rank=int(found["RANK"]), count=count)
        problems = problems or [f"RANK is {found['RANK']}, expected less than WORLD_SIZE, which is {count}"]
    raise RunError(
        f"the environment does not describe a group of processes: {'; '.join(problems)}. Start the command with "
        f"torchrun, or unset {', '.join(found)}",
        code="process-environment",
    )
