"""``polyvex plugins new`` and ``test``: for those who write plugins."""

from pathlib import Path
from typing import Annotated

import typer

from polyvex.cli.options import AsJson
from polyvex.cli.output import echo, print_json
from polyvex.scaffold import Kind


def new(
    name: Annotated[str, typer.Argument(help="Name of the plugin; its package is polyvex-NAME.", show_default=False)],
    kind: Annotated[Kind, typer.Option("--kind", help="What it brings.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder that it is written to [default: ./polyvex-NAME].")
    ] = None,
) -> None:
    """Write a plugin that works, with its tests, to go on from."""
    from polyvex.hooks.manager import load_registries
    from polyvex.scaffold.write import write_plugin

    plugin, folder, files = write_plugin(name, kind, out, registries=load_registries())
    echo(f"wrote {plugin.distribution} to {folder}:")
    for file in files:
        echo(f"  {file}")
    echo(f"install it: pip install --editable {folder}")
    echo(f"check it:   polyvex plugins test {plugin.name}")


def check(
    name: Annotated[str, typer.Argument(help="Name of an installed plugin, or of its package.", show_default=False)],
    components: Annotated[
        list[str] | None, typer.Option("--component", help="Check this one only; may be repeated.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COMPONENT.OPTION=VALUE", help="Check with this option; may be repeated."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Check encoders with their weights, where these are on this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold all that a plugin registers to its contract, check by check; exit 1 if one fails."""
    from polyvex.hooks.manager import load_registries
    from polyvex.testing.plugins import Outcome, check_plugin
    from polyvex.training.quiet import quiet_libraries

    quiet_libraries()
    outcomes: list[Outcome] = []
    for outcome in check_plugin(
        load_registries(), name, components=components or (), changes=changes or (), pretrained=pretrained
    ):
        outcomes.append(outcome)
        if not as_json:
            echo(str(outcome))
    failed = sorted({outcome.component for outcome in outcomes if outcome.state == "FAILED"})
    if as_json:
        print_json([vars(outcome) for outcome in outcomes])
    else:
        passed = sum(outcome.state == "ok" for outcome in outcomes)
        echo(f"{passed} checks passed" + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    if failed:
        raise typer.Exit(1)
