"""The report's section on routing: charts, a table by layer, and pictures of tokens on their images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from polyvex.encoders.images import open_image
from polyvex.errors import DataError
from polyvex.report.canvas import COLORS
from polyvex.report.examples import inline
from polyvex.report.routing_charts import routing_pictures

PICTURES = 8
"""Token pictures in a page, at most."""
SIDE = 1100
"""Longest side of such a picture, in pixels."""
CAPTIONS = {
    "load": "Each bar is a layer: the share of tokens whose first choice is the expert. Beside it, how each expert’s "
    "tokens are split, with text scaled to as many tokens as there are visual ones.",
    "modality": "The same, of text and of visual tokens apart.",
    "encoders": "The same, of each visual encoder; and how far each source’s load is from that of all tokens (total "
    "variation distance: 0 is the same, 1 has no expert in common).",
    "pathways": "MoE-LLaVA’s pathways: directions in which tokens’ paths differ most, scaled to expert numbers. No "
    "token went exactly so.",
    "flows": "Counted: how many tokens ask for one expert and then, in the next layer, for another, whether they had "
    "room or not, as widths of lines, and the three most common paths through all layers.",
    "certainty": "Entropy of 100% is a router that cannot decide; an expert is dead if no token went to it.",
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture of a sample's tokens as ``data:`` address, or a sentence why it cannot be shown."""

    sample: str
    question: str
    address: str
    gone: str


def routing_view(found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the template says of a run's routing.

    Args:
        found: what ``routing.json`` holds.
        folder: where it and its pictures lie.
    """
    charts = []
    for picture in routing_pictures(found):
        svg = picture.svg(key=f"routing-{picture.name}")
        width = int(svg.split('viewBox="0 0 ', 1)[1].split(" ", 1)[0])
        charts.append((picture.title, Markup(svg), CAPTIONS[picture.name], width))
    return {
        "what": _what(found),
        "charts": charts,
        "heads": _heads(found),
        "rows": [_row(found, layer) for layer in found["layers"]],
        "pictures": [_shown(one, folder) for one in found["pictures"][:PICTURES]],
        "more": max(0, len(found["pictures"]) - PICTURES),
    }


def _what(found: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{found['tokens'][source]:,} of {source}" for source in found["sources"])
    left = f"; {found['skipped']:,} samples were left out" if found["skipped"] else ""
    return f"{found['samples']:,} samples of {found['split']}, tokens: {counts}{left}."


def _sources(found: Mapping[str, Any]) -> list[str]:
    return [source for source in found["sources"] if found["tokens"][source]]


def _heads(found: Mapping[str, Any]) -> list[str]:
    dropped = ["dropped"] if _drops(found) else []
    distances = [f"distance of {source}" for source in _sources(found)]
    return ["layer", "experts", "load by expert", "dead", *dropped, "entropy", "confidence", *distances]


def _drops(found: Mapping[str, Any]) -> bool:
    return any(layer["dropped"]["all"] for layer in found["layers"])


def _row(found: Mapping[str, Any], layer: Mapping[str, Any]) -> list[str]:
    return [
        str(layer["layer"]),
        f"{layer['num_experts']}, {layer['experts_per_token']:g} a token",
        _load(layer["load"]["all"]),
        _dead(layer["dead"]),
        *([f"{layer['dropped']['all']:.1%}"] if _drops(found) else []),
        f"{layer['entropy']['all']:.2f}",
        f"{layer['confidence']['all']:.2f}",
        *(f"{layer['apart'][source]:.3f}" for source in _sources(found)),
    ]


def _load(shares: list[float]) -> str:
    """All shares, or least and most where a line could not hold them."""
    if len(shares) <= len(COLORS):
        return " · ".join(f"{share:.1%}" for share in shares)
    most = max(range(len(shares)), key=shares.__getitem__)
    return f"{min(shares):.1%} to {shares[most]:.1%} (expert {most})"


def _dead(dead: list[int]) -> str:
    more = f" and {len(dead) - 6} more" if len(dead) > 6 else ""
    return ", ".join(map(str, dead[:6])) + more if dead else "none"


def _shown(one: Mapping[str, Any], folder: Path) -> Shown:
    """Only a file beside ``routing.json`` is shown, whatever path is written there."""
    address, gone = "", ""
    try:
        address = inline(open_image(folder / Path(one["file"]).name), side=SIDE, colors=256)
    except DataError as error:
        gone = str(error)
    return Shown(sample=one["sample"], question=one["question"], address=address, gone=gone)
