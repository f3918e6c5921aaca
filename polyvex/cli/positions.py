"""``polyvex positions``: list position schemes, and show what a recipe's scheme does."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyvex.cli.listings import positions as list_positions
from polyvex.cli.options import AsJson, Changes, RecipeFile
from polyvex.cli.output import console, echo, installed, print_json
from polyvex.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

    from polyvex.plan.positions import Panel

SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""One sign for each whole position, over again after the last."""

app = typer.Typer(help="Position schemes, and what they do.", invoke_without_command=True)


@app.callback()
def root(context: typer.Context, as_json: AsJson = False) -> None:
    """List position schemes with their options; ``show`` draws what a recipe's scheme does."""
    if context.invoked_subcommand is None:
        list_positions(as_json)


@app.command()
def show(
    recipe: RecipeFile,
    changes: Changes = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="The image's width and height in pixels.")] = "",
    picture: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="Also draw it into a .png or .svg file; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the position of each visual token of an image, by colours and signs, with the budget per encoder."""
    from polyvex.plan.positions import describe, position_map
    from polyvex.recipe import read_recipe

    for path in picture or ():
        _check_ending(path)
    registries = installed()
    checked = read_recipe(recipe, overrides=changes or (), registries=registries)
    found = position_map(checked, registries, size=_size(size))
    if size and found.size is None:
        echo(f"--size {size} makes no difference: all images have the same visual tokens here", err=True)
    for path in picture or ():
        from polyvex.report.position_chart import draw_positions

        path.parent.mkdir(parents=True, exist_ok=True)
        draw_positions(found, path)
    if as_json:
        print_json(
            {
                **{key: getattr(found, key) for key in ("recipe", "scheme", "size", "tokens", "takes", "separators")},
                "encoders": [vars(share) for share in found.shares],
            }
        )
        return
    echo(describe(found))
    _print_panels(found.panels)
    for path in picture or ():
        echo(f"drawn: {path}")


def _check_ending(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".svg"):
        raise typer.BadParameter(f"{path} ends in '{path.suffix}', expected .png or .svg", param_hint="--out")


def _size(text: str) -> tuple[int, int] | None:
    """Height and width from ``WxH``."""
    if not text:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise typer.BadParameter(f"got '{text}', expected width and height such as 640x480", param_hint="--size")
    return int(height), int(width)


def _print_panels(panels: "list[Panel]") -> None:
    from polyvex.plan.positions import spread

    terminal = console()
    low, high = spread(panels)
    for panel in panels:
        terminal.print(f"\n{printable(panel.title)}", style="bold")
        step = -(-panel.places.shape[1] // max(16, terminal.width - 2))
        for row in panel.places:
            terminal.print(_line(row[::step], low=low, high=max(high, low + 1)), soft_wrap=True)
        if step > 1:
            terminal.print(f"  every {step}th column", style="dim")


def _line(row: "Iterable[float]", *, low: float, high: float) -> "Text":
    """One row of a panel: a sign for each place, on the colour of its position."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from rich.text import Text

    line = Text("  ")
    for value in row:
        if math.isnan(value):
            line.append(" ")
            continue
        share = (value - low) / (high - low)
        ink = "white" if share < 0.5 else "black"
        line.append(SYMBOLS[int(value) % len(SYMBOLS)], style=f"{ink} on {to_hex(colormaps['viridis'](share))}")
    return line
