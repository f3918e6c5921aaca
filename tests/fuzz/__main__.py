"""Fuzz polyvex: ``python -m tests.fuzz --seed 0`` from the repository's root; ``--kind`` and ``--mutants`` for a part.

Every mutant must be refused with a message, or used completely: a traceback, the line ``failed: …``, a hang and a
silent acceptance are faults. The exit code is 1 if there is any.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from . import KINDS


def main() -> int:
    """Run the chosen fuzzers and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append", help="repeat it for several [default: all]")
    parser.add_argument("--mutants", type=int, help="number of mutants [default: the full number of each kind]")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    faults = 0
    for kind in chosen.kind or KINDS:
        trials, number = KINDS[kind]
        tally: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            os.environ["POLYVEX_CACHE"] = str(Path(folder, "cache"))
            for name, fault in trials(chosen.mutants or number, chosen.seed, Path(folder)):
                tally["mutants"] += 1
                if fault:
                    tally["faults"] += 1
                    print(f"{kind}: {name}: {fault}", flush=True)
        faults += tally["faults"]
        print(f"{kind}: {tally['mutants']} mutants, {tally['faults']} faults", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
