"""Kill a tiny training run at its file operations, continue it, and compare it with a run that was not killed.

    python tests/faults/kill_every_write.py --kills 300

Every file has to be the same to the bit: weights, metrics, evaluations, records (without the seconds in ``done.json``).
Some trials are killed a second time while they continue, and in some a file of a checkpoint is damaged as a power
failure would. Each trial is a fork of one process that has imported everything, so it costs the training alone.
"""

import argparse
import ctypes
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = "POLYVEX_KILL_LIBRARY"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Where a run is killed, whether after the operation, where it is killed again (0: not), and what is damaged."""

    at: int
    after: bool
    again: int
    damage: str


def damage_checkpoint(run: Path, how: str, chance: random.Random) -> str:
    """Damage a file of the newest checkpoint; return which one."""
    files = [path for path in run.glob("stages/*/checkpoints/*/*") if path.is_file()]
    if not files or not how:
        return ""
    newest = max(path.parent.stat().st_mtime_ns for path in files)
    path = chance.choice(sorted(path for path in files if path.parent.stat().st_mtime_ns == newest))
    content = path.read_bytes()
    if how == "lost":
        path.unlink()
    else:
        changed = {"empty": b"", "cut": content[: len(content) // 2], "zeros": bytes(len(content))}
        path.write_bytes(changed[how])
    return f", {path.parent.name}/{path.name} {how}"


def contents(run: Path) -> dict[str, str]:
    """A digest of every file of a run. Checkpoints and the lock file are means to an end and not compared."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir() or "/checkpoints/" in name or name == ".busy":
            continue
        content = path.read_bytes()
        if path.name == "done.json":
            record = json.loads(content)
            del record["seconds"]
            content = json.dumps(record).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


class Killer:
    """Trains in forks of this process, with the shim armed."""

    def __init__(self, work: Path, train: Callable[[Path], None]):
        self.work = work
        self.train = train
        self.shim = ctypes.CDLL(os.environ[LIBRARY])
        self.shim.kill_count.restype = ctypes.c_long

    def run(self, folder: Path, *, at: int = 0, after: bool = False) -> tuple[int, str]:
        """Train in a fork; return its status (minus the signal that killed it) and what it printed."""
        log = self.work / "output"
        child = os.fork()
        if child == 0:
            self._in_child(folder, log, at=at, after=after)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, log.read_text(encoding="utf-8", errors="replace")

    def _in_child(self, folder: Path, log: Path, *, at: int, after: bool) -> None:
        status = 1
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            self.shim.kill_arm(ctypes.c_long(at), ctypes.c_int(after), os.fsencode(folder))
            self.train(folder)
            os.write(1, f"\n{self.shim.kill_count()}".encode())
            status = 0
        except BaseException:
            import traceback

            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def trial(self, trial: Trial, reference: dict[str, str], chance: random.Random) -> tuple[str, list[str]]:
        """Kill, continue, compare; return where it was killed, and how the result differs."""
        folder = self.work / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        status, said = self.run(folder, at=trial.at, after=trial.after)
        if status != -signal.SIGKILL:
            return "not killed", [f"exit {status}: {said[-2000:]}"]
        where = said.strip().splitlines()[-1] + damage_checkpoint(folder, trial.damage, chance)
        if trial.again:
            status, said = self.run(folder, at=trial.again, after=not trial.after)
            if status not in (0, -signal.SIGKILL):
                return where, [f"exit {status} when continued: {said[-2000:]}"]
            where += f"; and at operation {trial.again} of the next"
        status, said = self.run(folder)
        if status:
            return where, [f"exit {status} when continued: {said[-2000:]}"]
        result = contents(folder)
        return where, sorted(name for name in reference | result if reference.get(name) != result.get(name))


def trials(operations: int, kills: int, chance: random.Random) -> list[Trial]:
    """Kills spread evenly over the operations; every fourth is killed again, every fourth finds a damaged file."""
    made = []
    for number in range(kills):
        at = 1 + number * operations // kills if kills < operations else 1 + number % operations
        again = chance.randrange(1, operations) if number % 4 == 1 else 0
        damage = chance.choice(["empty", "cut", "zeros", "lost"]) if number % 4 == 3 else ""
        after = bool(number % 2) if kills < operations else bool((number // operations) % 2)
        made.append(Trial(at=at, after=after, again=again, damage=damage))
    return made


def prepare(work: Path) -> Callable[[Path], None]:
    """Import everything, and return the function that trains into a folder."""
    import torch

    sys.path.insert(0, str(HERE))
    from tiny_run import tiny_recipe, write_data

    from polyvex.hooks.manager import load_registries
    from polyvex.training.quiet import quiet_libraries
    from polyvex.training.stages import train

    torch.set_num_threads(1)
    quiet_libraries()
    write_data(work / "data")
    registries = load_registries()
    recipe = tiny_recipe(work / "data", registries)
    gc.collect()
    gc.freeze()  # Accelerate collects garbage in each stage, which would visit all that was imported
    return lambda folder: train(recipe, folder, registries=registries, cache=work / "cache", progress=False) and None


def main() -> int:
    """Run the trials; return 1 if a run differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=300, help="number of trials")
    parser.add_argument("--seed", type=int, default=0, help="seed of second kills and damages")
    parser.add_argument("--shard", default="0/1", help="I/N: run the trials I, I + N, …, for N commands side by side")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        work, chance = Path(name), random.Random(options.seed)
        killer = Killer(work, prepare(work))
        killer.run(work / "warm")  # fills the token cache, so that every trial finds it
        status, said = killer.run(work / "whole")
        if status:
            print(said)
            return 1
        operations, reference = int(said.strip().splitlines()[-1]), contents(work / "whole")
        first, every = map(int, options.shard.split("/"))
        planned = list(enumerate(trials(operations, options.kills, chance)))[first::every]
        print(f"{operations} file operations, {len(reference)} files, {len(planned)} kills", flush=True)
        different = 0
        for number, trial in planned:
            where, differs = killer.trial(trial, reference, chance)
            different += bool(differs)
            shown = "".join(f"\n  {one}" for one in differs) or " same"
            print(f"{number} {where.replace(str(work), '')}:{shown}", flush=True)
        print(f"{len(planned)} kills, {different} different runs")
        return int(different > 0)


def with_library() -> None:
    """Compile the shim, and start this script again with it loaded."""
    library = Path(tempfile.mkdtemp(prefix="kill-")) / "kill.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "kill.c", "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), LIBRARY: str(library), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:]], env=environment, check=False)
    shutil.rmtree(library.parent)
    sys.exit(done.returncode)


if __name__ == "__main__":
    if LIBRARY not in os.environ:
        with_library()
    sys.exit(main())
