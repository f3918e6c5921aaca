"""What ``polyvex routing`` writes: figures as JSON, charts, and pictures of tokens on their images."""

import json
from pathlib import Path
from typing import Any

from polyvex.report.routing_charts import draw_routing
from polyvex.report.token_views import draw_tokens
from polyvex.storage import write_text
from polyvex.training.routing import RoutingFound

TABLE = "routing.json"
CHARTS = ("load", "modality", "encoders", "pathways", "flows", "certainty")


def write_routing(found: RoutingFound, folder: Path, *, png: bool = False) -> tuple[dict[str, Any], list[Path]]:
    """Write everything into ``folder``; pictures of an earlier call are replaced.

    Returns:
        What ``routing.json`` holds, and the files, that one first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    drawn, pictures = [], []
    for number, picture in enumerate(found.pictures):
        if not picture.views:
            continue
        path = folder / f"tokens-{number}.png"
        draw_tokens(picture.views, path, question=picture.sample.question)
        drawn.append(path)
        pictures.append(
            {
                "sample": picture.sample.id,
                "question": picture.sample.question,
                "image": str(picture.sample.images[0]),
                "file": path.name,
                "views": [
                    {
                        "encoder": view.encoder,
                        "view": view.view,
                        "experts": {str(layer): grid.tolist() for layer, grid in view.experts.items()},
                    }
                    for view in picture.views
                ],
            }
        )
    table = {**found.table, "pictures": pictures}
    write_text(folder / TABLE, json.dumps(table, indent=1, allow_nan=False))
    draw_routing(table, folder, png=png)
    charts = [folder / f"{name}{ending}" for name in CHARTS for ending in ((".svg", ".png") if png else (".svg",))]
    return table, [folder / TABLE, *charts, *drawn]


def _clear(folder: Path) -> None:
    """Take away what an earlier call wrote here, and nothing else."""
    if not (folder / TABLE).is_file():
        return
    try:
        pictures = [str(picture["file"]) for picture in json.loads((folder / TABLE).read_text("utf-8"))["pictures"]]
    except (ValueError, KeyError, TypeError):
        pictures = []  # damaged: whose files these are cannot be told
    for name in [*(f"{chart}{ending}" for chart in CHARTS for ending in (".svg", ".png")), *pictures]:
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)


def describe_routing(table: dict[str, Any]) -> str:
    """The figures in short, as text: load, certainty, and how far each source is from all, by layer."""
    sources = table["sources"]
    counts = ", ".join(f"{count:,} of {name}" for name, count in table["tokens"].items())
    lines = [f"routing of {table['run']}: {table['samples']} samples of {table['split']}; tokens: {counts}"]
    if table["skipped"]:
        lines.append(f"{table['skipped']} LEFT OUT, unreadable")
    for layer in table["layers"]:
        load = " ".join(f"{share:4.0%}" for share in layer["load"]["all"])
        apart = ", ".join(f"{name} {layer['apart'][name]:.0%}" for name in sources)
        dead = f"; DEAD: {', '.join(map(str, layer['dead']))}" if layer["dead"] else ""
        dropped = f"; dropped {layer['dropped']['all']:.1%}" if layer["dropped"]["all"] else ""
        lines.append(
            f"layer {layer['layer']:3}: load {load}; entropy {layer['entropy']['all']:.2f}, confidence "
            f"{layer['confidence']['all']:.0%}; apart from all: {apart}{dropped}{dead}"
        )
    if common := table["pathways"]["common"]["all"]:
        path = " ".join(map(str, common[0]["path"]))
        lines.append(f"most common path: {path} ({common[0]['share']:.1%} of tokens)")
    return "\n".join(lines)
