"""The command line: a thin layer over the package's functions."""

import functools
import logging
import os
import sys
import tempfile
import traceback
import warnings
from typing import Annotated

import typer

from lstmfit._version import __version__
from lstmfit.cli import comparison, emulators, fits, foregrounds, interfaces
from lstmfit.cli.evidence import evidence
from lstmfit.cli.explore import explore
from lstmfit.console import print_table
from lstmfit.errors import InputError, one_line
from lstmfit.mpi import promised_rank, stopping_all_ranks, under_mpirun
from lstmfit.workers import THREAD_VARIABLES

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fit the global 21-cm signal with an LSTM emulator, and measure the emulation bias.",
)


def main() -> None:
    """Entry point of the console script.

    User errors are printed as one line, with exit status 2. Any other error is also one line, and its traceback is
    written to a log file.
    """
    if under_mpirun():
        # Before NumPy is loaded: its libraries read these variables only once.
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    _begin_log()
    # JAX logs every kind of accelerator that it does not find.
    logging.getLogger("jax").setLevel(logging.WARNING)
    try:
        with stopping_all_ranks():
            app()
    except InputError as error:
        sys.stderr.write(f"lstmfit: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("lstmfit: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        sys.stderr.write(f"lstmfit: {_unexpected(error)}\n")
        sys.exit(2 if isinstance(error, OSError) and error.filename is not None else 1)


def _unexpected(error) -> str:
    """One line about an unexpected error; its traceback is written to a file."""
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"cannot use {error.filename}: {error.strerror}; check the path, permissions and disk space")
    name = type(error).__name__
    try:
        descriptor, log = tempfile.mkstemp(prefix="lstmfit-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"lstmfit {__version__}: {' '.join(sys.argv)}\n")
            traceback.print_exception(error, file=file)
        where = f"the full log is in {log}"
    except OSError:
        where = "no log could be written"
    return f"unexpected {name}: {one_line(error, 200) or 'no message'}; {where}"


def _begin_log():
    """Set up one log for all ranks: info from the first rank, warnings from all, each line with its rank."""
    rank = promised_rank()
    form = f"rank {rank}: %(message)s" if under_mpirun() else "%(message)s"
    logging.basicConfig(format=form, level=logging.WARNING if rank else logging.INFO, stream=sys.stderr)
    warnings.showwarning = _log_warning


@functools.cache
def _say_once(text):
    """Warn once: a fit builds its problem several times, which would repeat the warning."""
    logging.getLogger(__name__).warning("lstmfit: %s", text)


def _log_warning(message, category, *_):
    """Log a warning as one line, without the source location: it is about the user's input."""
    kind = "warning" if category is UserWarning else category.__name__
    _say_once(f"{kind}: {message}")


def _version(value: bool):
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
):
    """Options before a command."""


def doctor(
    install_polychord: Annotated[
        bool, typer.Option("--install-polychord", help="Build PolyChord in this environment.")
    ] = False,
):
    """Show what is installed, and how to install what is missing."""
    from lstmfit.doctor import examine

    if install_polychord:
        from lstmfit.sampling.polychord.build import install_polychord as install

        typer.echo(install(log=typer.echo))
    print_table(("part", "found", "to fix this"), examine())


# In the order of the help.
_FITS = (fits.fit, fits.plot, fits.bias, comparison.compare, evidence, fits.calibrate, fits.report, fits.check)
_EMULATORS = (emulators.simulate, emulators.train, emulators.evaluate, emulators.emulators, emulators.bench, explore)
for _command in (*_FITS, *_EMULATORS, foregrounds.modes, interfaces.cobaya, doctor):
    app.command()(_command)
app.add_typer(emulators.data, name="data")
