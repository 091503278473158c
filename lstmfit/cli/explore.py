"""The command that writes the page of an emulator."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.cli.options import Trust, writable_as, writable_folder
from lstmfit.console import say


def explore(
    emulator: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help="Name of a shipped emulator, or an emulator file.", show_default="that of the run, or echo21"
        ),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "-o",
            "--output",
            callback=writable_as(".html", ".htm"),
            help="HTML file; by default explore.html in the run folder, or EMULATOR.html.",
        ),
    ] = None,
    run: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--run", metavar="DIR", help="Output folder of a fit whose posterior and data to show."),
    ] = None,
    trust: Trust = False,
):
    """Write a web page with sliders for the parameters of an emulator.

    One HTML file, in which the emulator itself runs. It loads nothing from the network.
    """
    from lstmfit.analysis.chains import read_run
    from lstmfit.emulator.emulator import Emulator
    from lstmfit.explorer import check_page, emulator_of, write_page
    from lstmfit.run_folder import EXPLORER

    if output is not None:
        check_page(output)
    done = None if run is None else read_run(run, trust)
    if done is None or emulator is not None:
        loaded = Emulator.load(emulator or "echo21")
    else:
        loaded = emulator_of(done)
    if output is None and run is not None:
        writable_folder(run)
        output = run / EXPLORER
    elif output is None:
        output = writable_as(".html")(Path(f"{loaded.name}.html"))
    say(f"{write_page(output, loaded, done)} is written; open it in a browser")
