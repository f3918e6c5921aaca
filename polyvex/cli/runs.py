"""``polyvex train``, ``eval``, ``ask``: from a recipe to answers."""

from pathlib import Path
from typing import Annotated

import typer

from polyvex.cli.options import AsJson, CacheFolder, Changes, Quiet, RecipeFile, RunFolder
from polyvex.cli.output import echo, echo_error, installed, print_json


def train(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; a stopped run there goes on.")],
    changes: Changes = None,
    folder: CacheFolder = None,
    quiet: Quiet = False,
) -> None:
    """Train all stages of a recipe, or go on where an earlier call stopped."""
    from polyvex.recipe import read_recipe
    from polyvex.training.quiet import quiet_libraries
    from polyvex.training.stages import Stopped
    from polyvex.training.stages import train as run_stages

    quiet_libraries()
    registries = installed()
    checked = read_recipe(recipe, overrides=changes or (), registries=registries, out=out)
    try:
        run_stages(checked, out, registries=registries, cache=folder, say=echo, progress=not quiet)
    except Stopped as stopped:
        echo(f"{stopped}. Go on with the same command", err=True)
        raise typer.Exit(1) from None


def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option("--split", help="Split to answer [default: the recipe's test split].")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only the first N questions; 0 for all.")] = 0,
    metric: Annotated[
        str,
        typer.Option(
            "--metric", help="Score stored answers with this metric instead; runs no model. --split selects some."
        ),
    ] = "",
    folder: CacheFolder = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Answer the questions of a split with a finished run and store every answer, or rescore stored answers."""
    from polyvex.training.evaluate import describe, evaluate_run
    from polyvex.training.quiet import quiet_libraries
    from polyvex.training.rescore import rescore_run

    quiet_libraries()
    registries = installed()
    if metric:
        if limit or folder:
            raise typer.BadParameter("has no effect with --metric", param_hint="--limit" if limit else "--cache")
        results = rescore_run(run, metric, name=split, registries=registries)
        print_json([one.summary() for one in results]) if as_json else echo("\n".join(map(describe, results)))
        return
    result = evaluate_run(
        run, split=split, limit=limit, cache=folder, registries=registries, say=echo_error, progress=not quiet
    )
    print_json(result.summary()) if as_json else echo(describe(result))


def ask(
    run: RunFolder,
    image: Annotated[Path, typer.Argument(help="An image file.", show_default=False)],
    question: Annotated[
        str, typer.Argument(help="A question about it; after -- if it begins with a dash.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Ask a finished run one question about one image."""
    from polyvex.answer import load
    from polyvex.training.quiet import quiet_libraries

    quiet_libraries()
    answer = load(run, registries=installed()).ask(image, question)
    print_json({"image": image, "question": question, "answer": answer.text}) if as_json else echo(answer.text)
