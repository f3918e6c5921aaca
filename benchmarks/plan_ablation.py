"""What planning the cells of an ablation costs: seconds and memory of many cells, above those of one.

Each number of cells is planned in a process of its own: `python benchmarks/plan_ablation.py 1 5000`.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.toml"
COUNTS = ("1", "5000")


def plan(count: int) -> dict[str, float]:
    """Seconds, and the peak of this process's memory in MB, of planning so many cells."""
    from polyvex.ablation.planner import plan_cells
    from polyvex.hooks.manager import load_registries
    from polyvex.recipe import read_recipe

    registries = load_registries()
    recipe = read_recipe(RECIPE, registries=registries)
    began = time.perf_counter()
    cells = plan_cells(recipe, registries, axes={"stages.tune.steps": list(range(100, 100 + count))}, seeds=1)
    seconds = time.perf_counter() - began
    assert len(cells) == count
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main(counts: list[str]) -> None:
    """Print a line for each number of cells; each line shows the memory above that of the first one."""
    found = [
        json.loads(subprocess.run([sys.executable, __file__, "--one", count], check=True, stdout=-1).stdout)
        for count in counts
    ]
    for count, one in zip(counts, found, strict=True):
        above = one["peak"] - found[0]["peak"]
        print(
            f"{count:>6} cells  {one['seconds']:8.2f} s  {above:8.0f} MB above {counts[0]} (peak {one['peak']:.0f} MB)"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(plan(int(sys.argv[2]))))
    else:
        main(sys.argv[1:] or list(COUNTS))
