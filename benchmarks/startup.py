"""How long `polyvex --help` takes against `python -c "import typer"`: whole processes, in turns, CPU time."""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = 15
BASE = [sys.executable, "-c", "import typer"]
COMMANDS = {
    'python -c "import typer"': BASE,
    "polyvex --help": [str(Path(sys.executable).with_name("polyvex")), "--help"],
}


def cpu_seconds(command: list[str]) -> float:
    """CPU time, user and system, of one run of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the median of each command, and its ratio to the first."""
    for command in COMMANDS.values():
        cpu_seconds(command)  # bytecode and the disk's cache are warm from here on
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(cpu_seconds(command))
    base = statistics.median(next(iter(times.values())))
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"{name:28} {middle * 1000:7.1f} ms of CPU   {middle / base:5.2f} x   ({ROUNDS} runs)")


if __name__ == "__main__":
    main()
