"""What the named networks give at their own image size, and where their weights are from, written down so that
listings need neither build them nor import timm.

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
from polyvex_timm.network import Size, Structure, structure_of
from polyvex_timm.weights import Origin, origin_of

FILE = "structures.json"
LAYERS, NORM = (-1,), True


def known_structure(checkpoint: str, size: Size, layers: tuple[int, ...], norm: bool) -> Structure | None:
    """The table's row for exactly these options, if it was written with the timm that is installed."""
    if layers != LAYERS or norm is not NORM:
        return None
    row = _table(version("timm"))["structures"].get(checkpoint)
    return _structure(row) if row is not None and tuple(row["size"]) == size else None


def known_origin(checkpoint: str) -> Origin | None:
    """The table's row, if it was written with the timm that is installed."""
    row = _table(version("timm"))["origins"].get(checkpoint)
    if row is None:
        return None
    return Origin(**{**row, "size": (row["size"][0], row["size"][1]), "files": tuple(row["files"])})


@lru_cache(maxsize=4)
def _table(timm_version: str) -> dict[str, Any]:
    table = json.loads(files("polyvex_timm").joinpath(FILE).read_text(encoding="utf-8"))
    if table["timm"] != timm_version:
        return {"structures": {}, "origins": {}}  # another version may know or build otherwise; it is asked itself
    return table


def _structure(row: dict[str, Any]) -> Structure:
    return Structure(
        size=(row["size"][0], row["size"][1]),
        grid=Grid(**row["grid"]),
        dims=tuple(row["dims"]),
        parameters=row["parameters"],
        flops=row["flops"],
    )


def write_table(checkpoints: Iterable[str]) -> str:
    """The table as JSON, from timm and from each network on ``meta``."""
    structures, origins = {}, {}
    for checkpoint in sorted(checkpoints):
        origin = origin_of(checkpoint)
        origins[checkpoint] = dataclasses.asdict(origin)
        structures[checkpoint] = dataclasses.asdict(structure_of(checkpoint, origin.size, LAYERS, NORM))
    table = {"timm": version("timm"), "structures": structures, "origins": origins}
    return json.dumps(table, indent=1) + "\n"
