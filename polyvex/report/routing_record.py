"""Read ``routing.json``, which ``polyvex routing RUN`` writes, and hold it to its form before anything is drawn."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from polyvex.records.ablation import Part
from polyvex.records.files import Record, damaged, read_record

Shares = dict[str, list[float]]
"""By source (or ``all``, ``text``, ``visual``), one share per expert."""
KEYS = ("all", "text", "visual")


class LayerTable(Part):
    """What one MoE layer did."""

    name: str
    layer: int
    num_experts: int
    experts_per_token: float
    load: Shares
    first: Shares
    entropy: dict[str, float]
    confidence: dict[str, float]
    dropped: dict[str, float]
    apart: dict[str, float]
    dead: list[int]


class PathTable(Part):
    """First choices layer after layer, and the share of tokens that went so."""

    path: list[int]
    share: float


class PathwayTable(Part):
    """How tokens went from layer to layer."""

    layers: list[int]
    tokens: int
    common: dict[str, list[PathTable]]
    flows: dict[str, list[list[list[float]]]]
    components: dict[str, list[list[float]]]


class PictureTable(Part):
    """A picture of one sample's tokens; ``file`` lies beside ``routing.json``."""

    sample: str
    question: str
    image: str
    file: str


class RoutingTable(Record):
    """All of ``routing.json``."""

    run: str
    split: str
    samples: int
    skipped: int
    sources: list[str]
    tokens: dict[str, int]
    layers: Annotated[list[LayerTable], Field(min_length=1)]
    pathways: PathwayTable
    pictures: list[PictureTable]


def read_routing(path: Path) -> dict[str, Any]:
    """The routing of a run.

    Raises:
        RunError: if the file is damaged or not what ``polyvex routing`` writes; all problems at once.
    """
    raw = read_record(path, RoutingTable).model_dump(exclude={"version"})
    if problems := _disagreements(raw):
        raise damaged(path, problems)
    return raw


def _disagreements(raw: dict[str, Any]) -> list[str]:
    """Sources that lack figures, and lists that are not as long as what they count."""
    sources = raw["sources"]
    found = [f"tokens lacks {source}" for source in sources if source not in raw["tokens"]]
    for layer in raw["layers"]:
        for table in ("load", "first", "entropy", "confidence", "dropped", "apart"):
            wanted = [key for key in (*KEYS, *sources) if (table, key) != ("apart", "all")]
            found += [
                f"{table} of {layer['name']} lacks {key}" for key in dict.fromkeys(wanted) if key not in layer[table]
            ]
        found += [
            f"{table} of {layer['name']}, {key}: got {len(shares)} shares, expected {layer['num_experts']}"
            for table in ("load", "first")
            for key, shares in layer[table].items()
            if len(shares) != layer["num_experts"]
        ]
    return found + _pathway_disagreements(raw["pathways"], [layer["num_experts"] for layer in raw["layers"]])


def _pathway_disagreements(ways: dict[str, Any], sizes: list[int]) -> list[str]:
    found = [
        f"pathways.{table} lacks {key}"
        for table in ("common", "flows", "components")
        for key in KEYS
        if key not in ways[table]
    ]
    lengths = [("pathways.layers", len(ways["layers"]), len(sizes))]
    lengths += [
        (f"pathways.common.{key}", len(one["path"]), len(sizes))
        for key, paths in ways["common"].items()
        for one in paths
    ]
    lengths += [
        (f"pathways.components.{key}", len(one), len(sizes)) for key, rows in ways["components"].items() for one in rows
    ]
    lengths += [
        (f"pathways.flows.{key}", len(tables), len(sizes) - 1) for key, tables in ways["flows"].items() if tables
    ]
    found += [f"{what}: got {got} values, expected {wanted}" for what, got, wanted in lengths if got != wanted]
    for key, tables in ways["flows"].items():
        for start, end, table in zip(sizes, sizes[1:], tables, strict=False):
            if len(table) != start or any(len(row) != end for row in table):
                found.append(f"pathways.flows.{key}: a table is not {start} by {end}, as its layers' experts are")
    return found
