"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(help="A recipe, such as recipes/quickstart.toml.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="A run, as polyvex train writes it.", show_default=False)]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Change a value: fusion.depth=3, fusion=gated, moe=false; may be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CacheFolder = Annotated[
    Path | None, typer.Option("--cache", help="Folder of the token cache [default: the platform's, or POLYVEX_CACHE].")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
