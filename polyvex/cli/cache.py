"""``polyvex cache``: fill the token cache ahead of training, and look after it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from polyvex.cli.options import AsJson, CacheFolder, Changes, Quiet, RecipeFile
from polyvex.cli.output import echo, installed, print_json, print_table

HELP = """Encode a recipe's images ahead of training, and look after the token cache.

polyvex cache RECIPE is short for polyvex cache fill RECIPE. A recipe file with the name of a command needs its folder
before it: polyvex cache ./verify.
"""

MIB = 2**20


class FillByDefault(TyperGroup):
    """A group whose command ``fill`` runs if no command is named, so that ``polyvex cache RECIPE`` works."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``fill`` before arguments that do not begin with a command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["fill", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=FillByDefault, help=HELP, no_args_is_help=True)


@app.command()
def fill(
    recipe: RecipeFile,
    changes: Changes = None,
    folder: CacheFolder = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Encode all images of the recipe again, also those in the cache.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Encode all images of a recipe before training; images in the cache are skipped."""
    from polyvex.recipe import read_recipe
    from polyvex.training.prepare import prepare

    registries = installed()
    checked = read_recipe(recipe, overrides=changes or (), registries=registries)
    prepared = prepare(checked, registries, folder=folder, progress=not quiet, refresh=refresh)
    echo(str(prepared.report))


@app.command("info")
def show(folder: CacheFolder = None, as_json: AsJson = False) -> None:
    """List what is in the cache: images, size and last use of each encoder's tokens."""
    from dataclasses import asdict

    from polyvex.cache.place import cache_root
    from polyvex.cache.upkeep import info

    root, rows = cache_root(folder), info(cache_root(folder))
    total = sum(row.bytes for row in rows)
    if as_json:
        print_json({"folder": root, "bytes": total, "stores": [asdict(row) for row in rows]})
        return
    echo(f"cache: {root}, {total / MIB:.1f} MiB in {len(rows)} stores")
    shown = [
        {
            "store": Path(row.folder).name,
            "images": row.images,
            "tiles": row.tiles,
            "MiB": f"{row.bytes / MIB:.1f}",
            "last use": row.last_use,
            "options": row.problem or ", ".join([*(f"{k}={v}" for k, v in row.options.items()), row.dtype]),
        }
        for row in rows
    ]
    print_table(shown, empty="no stores")


@app.command()
def verify(folder: CacheFolder = None, as_json: AsJson = False) -> None:
    """Compare every shard with its hash, and list what is damaged or left over. Exit code 1 if anything is damaged."""
    from polyvex.cache.place import cache_root
    from polyvex.cache.upkeep import verify as findings

    found = list(findings(cache_root(folder)))
    damaged = sum(one.kind == "damaged" for one in found)
    _print(cache_root(folder), found, as_json, empty="every shard is whole, and nothing is left over")
    if not as_json and damaged:
        echo(f"{damaged} damaged. Remove them with: polyvex cache prune --damaged; images are encoded again")
    elif not as_json and found:
        echo("nothing is damaged. Remove what is left over with: polyvex cache prune")
    if damaged:
        raise typer.Exit(1)


@app.command()
def prune(
    folder: CacheFolder = None,
    unused: Annotated[
        float | None,
        typer.Option("--unused", metavar="DAYS", min=0, help="Also remove tokens that were not used for DAYS days."),
    ] = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Also read every shard and remove damaged ones.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no recipe can use: unfinished files, shards without an index entry, unused rows of shards."""
    from polyvex.cache.place import cache_root
    from polyvex.cache.upkeep import prune as findings

    found = list(findings(cache_root(folder), unused_days=unused, damaged=damaged, dry_run=dry_run))
    _print(cache_root(folder), found, as_json, empty="nothing to remove")
    if not as_json and found:
        echo(f"{sum(one.bytes for one in found) / MIB:.1f} MiB {'would be ' if dry_run else ''}freed")


def _print(root: Path, found: list[Any], as_json: bool, *, empty: str) -> None:
    from dataclasses import asdict

    if as_json:
        print_json({"folder": root, "findings": [asdict(one) for one in found]})
        return
    echo(f"cache: {root}")
    rows = [
        {"kind": one.kind, "MiB": f"{one.bytes / MIB:.1f}", "path": f"{one.path} {one.details}".strip()}
        for one in found
    ]
    print_table(rows, empty=empty)
