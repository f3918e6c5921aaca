"""``polyvex ablate`` and ``report``: does it matter, and what came out."""

from pathlib import Path
from typing import Annotated

import typer

from polyvex.cli.options import AsJson, CacheFolder, Changes, Quiet, RecipeFile
from polyvex.cli.output import echo, installed, print_json, print_table


def ablate(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", help="Folder of the ablation; a stopped one there goes on.")],
    axis: Annotated[
        list[str] | None,
        typer.Option(
            help="Values to compare, written as for --set: positions=a,b, order=all; repeat for a grid "
            "[default: the recipe's axes]."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="Seeds per cell; 0 takes the recipe's.")] = 0,
    changes: Changes = None,
    folder: CacheFolder = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train and evaluate a grid of recipes from the cache, and compare them question by question."""
    from polyvex.ablation.axes import parse_axis
    from polyvex.ablation.runner import ablate as run_cells
    from polyvex.recipe import read_recipe
    from polyvex.training.quiet import quiet_libraries
    from polyvex.training.stages import Stopped

    quiet_libraries()
    registries = installed()
    checked = read_recipe(recipe, overrides=changes or (), registries=registries, out=out)
    axes = dict(parse_axis(text) for text in axis or [])
    say = (lambda _: None) if as_json else echo
    try:
        outcome = run_cells(checked, registries, out, axes=axes, seeds=seeds, cache=folder, say=say, progress=not quiet)
    except Stopped as stopped:
        echo(f"{stopped}. Go on with the same command", err=True)
        raise typer.Exit(1) from None
    if as_json:
        print_json({"results": [result.as_dict() for result in outcome.results], "failed": outcome.failed})
    else:
        from polyvex.ablation.table import result_rows

        print_table(result_rows(outcome.results), empty="no cell was finished")
        echo(f"the report: polyvex report {out}")
    if outcome.failed:
        raise typer.Exit(1)


def report(
    folder: Annotated[Path, typer.Argument(help="A run, or an ablation.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Write report.html (one self-contained page), results.csv and results.md, and print the figures."""
    from polyvex.report import write_report

    written = write_report(folder)
    print_json(written.as_dict()) if as_json else echo(str(written))
