"""All commands. Each is a few lines over a function; what a command needs is imported when it runs."""

from typing import Annotated

import typer

from polyvex.cli import ablations, authors, cache, export, listings, positions, recipes, routing, runs
from polyvex.cli.output import echo

app = typer.Typer(
    name="polyvex",
    help="Vision-language models that see through several encoders.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time of --help
)

plugins = typer.Typer(
    help="Which plugins are installed, whether they work, and a start for new ones.", no_args_is_help=True
)
plugins.command("list")(listings.list_plugins)
plugins.command("doctor")(listings.doctor)
plugins.command("new")(authors.new)
plugins.command("test")(authors.check)
app.add_typer(plugins, name="plugins")
app.add_typer(positions.app, name="positions")
app.add_typer(cache.app, name="cache")

for name, function in {
    "encoders": listings.encoders,
    "reducers": listings.reducers,
    "fusions": listings.fusions,
    "routers": listings.routers,
    "language-models": listings.language_models,
    "datasets": listings.datasets,
    "metrics": listings.metrics,
    "compose": recipes.compose,
    "show": recipes.show,
    "schema": recipes.schema,
    "plan": recipes.plan,
    "train": runs.train,
    "eval": runs.evaluate,
    "ask": runs.ask,
    "routing": routing.routing,
    "export": export.export,
    "ablate": ablations.ablate,
    "report": ablations.report,
}.items():
    app.command(name)(function)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Load a Python file as a plugin. May stand anywhere, and be repeated."),
    ] = None,
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of errors. May stand anywhere."),
) -> None:
    """Vision-language models that see through several encoders."""
    if version:
        from importlib.metadata import version as version_of

        echo(version_of("polyvex"))
        raise typer.Exit
