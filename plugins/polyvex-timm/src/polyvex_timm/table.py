"""What the named networks give at their own image size, written down so that listings need not build them.

``python -m polyvex_timm`` writes the table anew; a test compares every row with the network.
"""

import dataclasses
import json
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from polyvex.tokens import Grid
from polyvex_timm.network import Size, Structure, structure_of, weights_config

FILE = "structures.json"
LAYERS, NORM = (-1,), True


def known_structure(checkpoint: str, size: Size, layers: tuple[int, ...], norm: bool) -> Structure | None:
    """The table's row for exactly these options, if it was written with the timm that is installed."""
    if layers != LAYERS or norm is not NORM:
        return None
    row = _rows(version("timm")).get(checkpoint)
    return row if row is not None and row.size == size else None


@lru_cache(maxsize=4)
def _rows(timm_version: str) -> dict[str, Structure]:
    table = json.loads(files("polyvex_timm").joinpath(FILE).read_text(encoding="utf-8"))
    if table["timm"] != timm_version:
        return {}  # another version may build another network; it is asked itself
    return {checkpoint: _structure(row) for checkpoint, row in table["structures"].items()}


def _structure(row: dict[str, Any]) -> Structure:
    return Structure(
        size=(row["size"][0], row["size"][1]),
        grid=Grid(**row["grid"]),
        dims=tuple(row["dims"]),
        parameters=row["parameters"],
        flops=row["flops"],
    )


def write_table(checkpoints: Iterable[str]) -> str:
    """The table as JSON, from each network on ``meta``."""
    rows = {}
    for checkpoint in sorted(checkpoints):
        _, height, width = weights_config(checkpoint).input_size
        rows[checkpoint] = dataclasses.asdict(structure_of(checkpoint, (height, width), LAYERS, NORM))
    return json.dumps({"timm": version("timm"), "structures": rows}, indent=1) + "\n"
