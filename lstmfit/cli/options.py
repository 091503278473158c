"""Options that several commands have."""

from typing import Annotated, Optional

import typer

from lstmfit.console import leave_stdout_to_json
from lstmfit.files import check_writable


def writable(path):
    """Refuse a file that cannot be written before the work is done that it is for."""
    if path is not None:
        check_writable(path)
    return path


def _json_target(target):
    leave_stdout_to_json(target == "-")
    return target if target == "-" else writable(target)


Json = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--json", metavar="FILE|-", callback=_json_target, help="Write the figures as JSON; - is stdout, alone."
    ),
]
Jobs = Annotated[Optional[int], typer.Option("--jobs", help="Processes; all cores by default.")]  # noqa: UP045
