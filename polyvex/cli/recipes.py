"""``polyvex compose``, ``show``, ``schema``, ``plan``: recipes before anything is loaded."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from polyvex.cli.options import AsJson, CacheFolder, Changes, RecipeFile
from polyvex.cli.output import echo, installed, print_json


def compose(
    encoder: Annotated[list[str] | None, typer.Option(help="An encoder by name; repeat it, in order.")] = None,
    fusion: Annotated[str, typer.Option(help="A fusion by name.")] = "",
    positions: Annotated[str, typer.Option(help="A position scheme by name.")] = "",
    lm: Annotated[str, typer.Option(help="A language model by name, or the directory or hub name of one.")] = "",
    moe: Annotated[
        str, typer.Option(help="Layers that become experts: none, sparse, dense, first_half, second_half.")
    ] = "",
    data: Annotated[str, typer.Option(help="A data set by name, or a folder with train.jsonl and test.jsonl.")] = "",
    name: Annotated[str, typer.Option(help="Name of the recipe.")] = "",
    changes: Changes = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write [default: print it].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Write a complete, commented recipe; asks step by step on a terminal when called without options."""
    from polyvex.errors import RecipeError
    from polyvex.recipe.compose import Choices, compose_recipe
    from polyvex.storage import write_text

    if output is not None and output.exists() and not force:
        raise RecipeError([f"{output} exists; choose another file, or overwrite it with --force"], source="compose")
    registries = installed()
    choices = Choices(encoders=encoder or [], fusion=fusion, positions=positions, lm=lm, moe=moe, data=data, name=name)
    if choices == Choices() and not changes:
        if not sys.stdin.isatty():
            raise RecipeError(["no --encoder given. Names: polyvex encoders"], source="compose")
        from polyvex.cli.questions import write_by_questions

        output = write_by_questions(registries, output)
    else:
        text = compose_recipe(choices, registries, overrides=changes or (), file=output)
        if output is None:
            echo(text, nl=False)
            return
        write_text(output, text)
    echo(f"wrote {output}. What it costs: polyvex plan {output}")


def show(recipe: RecipeFile, changes: Changes = None, as_json: AsJson = False) -> None:
    """Print a recipe with every default written out, after --set."""
    from polyvex.recipe import read_recipe
    from polyvex.rundir import dump_recipe

    checked = read_recipe(recipe, overrides=changes or (), registries=installed())
    print_json(checked.dump()) if as_json else echo(dump_recipe(checked), nl=False)


def schema() -> None:
    """Print the JSON schema of recipes, for editors; it covers the plugins that are installed now."""
    from polyvex.recipe.model import json_schema

    print_json(json_schema(installed()))


def plan(recipe: RecipeFile, changes: Changes = None, folder: CacheFolder = None, as_json: AsJson = False) -> None:
    """Tell tokens, positions, parameters, memory, FLOPs, disk, licences and problems, before anything is loaded."""
    from polyvex.plan import make_plan
    from polyvex.recipe import read_recipe

    registries = installed()
    found = make_plan(read_recipe(recipe, overrides=changes or (), registries=registries), registries, cache=folder)
    print_json(found.as_dict()) if as_json else echo(str(found))
    if found.problems:
        raise typer.Exit(2)
