"""``polyvex export``: a run's language model for others, who need no polyvex."""

from pathlib import Path
from typing import Annotated

import typer

from polyvex.cli.options import AsJson, RunFolder
from polyvex.cli.output import echo, installed, print_json


def export(
    run: RunFolder,
    to: Annotated[str, typer.Option("--to", help="Family of transformers to write it as: mixtral or qwen3_moe.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; must be empty or not there.")],
    copy_dense: Annotated[
        bool,
        typer.Option(
            "--copy-dense", help="Write layers without experts as equal experts, if the family has none; takes memory."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the language model of a finished run so that plain transformers loads it, and compare their logits."""
    from polyvex.export import export_run
    from polyvex.training.quiet import quiet_libraries

    quiet_libraries()
    done = export_run(run, to, out, copy_dense=copy_dense, registries=installed())
    print_json(done.as_dict()) if as_json else echo(str(done))
