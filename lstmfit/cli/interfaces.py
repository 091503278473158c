"""Commands for other frameworks."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.cli.options import writable_as
from lstmfit.console import say


def cobaya(
    run: Annotated[str, typer.Argument(help="Run file, or the name of a shipped one.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--output", help="Cobaya input to write.", callback=writable_as(".yaml", ".yml")),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
):
    """Write the Cobaya input of a run file, for cobaya-run."""
    from lstmfit import config
    from lstmfit.interfaces.cobaya_input import default_output, write_input

    loaded = config.load(run)
    path = write_input(loaded, default_output(run, loaded) if output is None else output, force)
    say(f"{path} is written; to run it: cobaya-run {path}")
