"""Options that several commands have."""

import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.console import leave_stdout_to_json
from lstmfit.errors import InputError
from lstmfit.files import check_writable, user_path
from lstmfit.workers import check_jobs


def writable(path, *endings: str):
    """Refuse a file that cannot be written, or that holds something else, before the work is done that it is for.

    Parameters
    ----------
    path : str or pathlib.Path or None
        What the user gave.
    endings : str
        What a file that exists must end in to be replaced: a run file is not to become a report.
    """
    if path is None:
        return None
    file = user_path(path, "output")
    # A file is made beside and renamed: over /dev/null or /dev/stdout that would take them from the whole machine.
    if file.absolute().parent == Path("/dev") or (file.exists() and not (file.is_file() or file.is_dir())):
        raise InputError(f"cannot write {path}: it is not an ordinary file; give a file (JSON: - for stdout)")
    check_writable(file)
    if file.is_file():
        if endings and file.suffix.lower() not in endings:
            raise InputError(
                f"{path} already exists and does not end in {' or '.join(endings)}, so it may be something else; "
                "remove it first or give another file"
            )
        from lstmfit.run_folder import check_target

        check_target(file)
    _try_to_write(file.parent, f"cannot write {path}")
    return path if isinstance(path, str) else file


def writable_as(*endings: str):
    """Make a callback of `writable` for files that end in one of `endings`."""
    return lambda path: writable(path, *endings)


def writable_folder(path):
    """Refuse a folder that can be neither made nor written into before the work is done that it is for."""
    if path is None:
        return None
    path = user_path(path, "output folder")
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise InputError(f"cannot write into {path}: {there} is a file; give another folder")
    _try_to_write(there, f"cannot write into {path}")
    return path


def _try_to_write(folder, what):
    """Rights do not tell all: a disk may be full or read-only, and root has every right."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{what}: {error.strerror}; give another path") from None


def _at_least_one(jobs):
    check_jobs(jobs)
    return jobs


def _json_target(target):
    leave_stdout_to_json(target == "-")
    return target if target == "-" else writable(target, ".json")


Json = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--json", metavar="FILE|-", callback=_json_target, help="Write the figures as JSON; - is stdout, alone."
    ),
]
Jobs = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--jobs", callback=_at_least_one, help="Processes; all cores by default."),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Import the likelihoods and simulators that the run folder names by dotted path."),
]
