"""``polyvex routing``: which experts a finished run's tokens go to, as figures and pictures."""

import json
from pathlib import Path
from typing import Annotated

import typer

from polyvex.cli.options import AsJson, CacheFolder, Quiet, RunFolder
from polyvex.cli.output import echo, echo_error, installed, print_json


def routing(
    run: RunFolder,
    split: Annotated[str, typer.Option("--split", help="Split to look at [default: the recipe's test split].")] = "",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="data.KEY=VALUE", help="Look at other data; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only the first N samples; 0 for all.")] = 512,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, help="Images on which tokens are drawn with their experts.")
    ] = 4,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to [default: RUN/routing].")] = None,
    png: Annotated[bool, typer.Option("--png", help="Write each chart as PNG too.")] = False,
    folder: CacheFolder = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show which experts tokens go to: by layer, by modality, by visual encoder, along their paths, on the image."""
    from polyvex.report.routing import describe_routing, write_routing
    from polyvex.training.quiet import quiet_libraries
    from polyvex.training.routing import routing_of_run

    quiet_libraries()
    found = routing_of_run(
        run,
        split=split,
        limit=limit,
        pictures=pictures,
        changes=changes or (),
        cache=folder,
        registries=installed(),
        say=echo_error,
        progress=not quiet,
    )
    table, files = write_routing(found, out or run / "routing", png=png)
    if as_json:
        print_json(json.loads(json.dumps(table)))
        return
    echo(describe_routing(table))
    echo(f"written: {', '.join(str(path) for path in files)}")
