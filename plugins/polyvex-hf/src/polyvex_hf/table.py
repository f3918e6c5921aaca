"""What the named checkpoints give with their default options, written down so that listings need not build them.

``python -m polyvex_hf`` writes the table anew; a test compares every row with the network.
"""

import dataclasses
import json
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from polyvex.tokens import Grid
from polyvex_hf.checkpoint import Checkpoint
from polyvex_hf.structure import Size, Structure, structure_of

FILE = "structures.json"

Asked = tuple[Checkpoint, Size, tuple[int, ...], bool]
"""What a structure follows from: the checkpoint, the image size, the layers that are read, and the norm."""


def known_structure(checkpoint: Checkpoint, size: Size, layers: tuple[int, ...], norm: bool) -> Structure | None:
    """The table's row for exactly these options, if it was written with the transformers that is installed."""
    if checkpoint.known is None:
        return None  # a directory of that name may hold anything
    row = _rows(version("transformers")).get(checkpoint.name)
    if row is None or row["asked"] != _asked(size, layers, norm):
        return None
    return _structure(row["given"])


@lru_cache(maxsize=4)
def _rows(transformers_version: str) -> dict[str, Any]:
    table = json.loads(files("polyvex_hf").joinpath(FILE).read_text(encoding="utf-8"))
    # Another version may build another network; it is asked itself.
    return table["structures"] if table["transformers"] == transformers_version else {}


def _asked(size: Size, layers: tuple[int, ...], norm: bool) -> dict[str, Any]:
    return {"size": list(size), "layers": list(layers), "norm": norm}


def _structure(row: dict[str, Any]) -> Structure:
    return Structure(
        grid=Grid(**row["grid"]),
        dims=tuple(row["dims"]),
        layers=tuple(row["layers"]),
        front=row["front"],
        parameters=row["parameters"],
        flops=row["flops"],
    )


def write_table(named: Iterable[Any]) -> str:
    """The table as JSON for the options ``named``, from each network on ``meta``."""
    rows = {
        checkpoint.name: {
            "asked": _asked(size, layers, norm),
            "given": dataclasses.asdict(structure_of(checkpoint, size, layers, norm)),
        }
        for checkpoint, size, layers, norm in (options.asked() for options in named)
    }
    return json.dumps({"transformers": version("transformers"), "structures": rows}, indent=1, sort_keys=True) + "\n"
