"""Options shared by several commands."""

import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.console import leave_stdout_to_json
from lstmfit.errors import InputError
from lstmfit.files import check_writable, user_path
from lstmfit.workers import check_jobs


def writable(path, *endings: str):
    """Refuse an output file that cannot be written or that contains something else, before any work is done.

    Parameters
    ----------
    path : str or pathlib.Path or None
        Path given by the user.
    endings : str
        Endings that an existing file must have to be overwritten, so that a report cannot replace a run file.
    """
    if path is None:
        return None
    file = user_path(path, "output")
    # Files are written under a temporary name and renamed, which would replace /dev/null or /dev/stdout themselves.
    if file.absolute().parent == Path("/dev") or (file.exists() and not (file.is_file() or file.is_dir())):
        raise InputError(f"cannot write {path}: it is not a regular file; give a file name (JSON: - for stdout)")
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
    """Return a callback that applies `writable` to files that end in one of `endings`."""
    return lambda path: writable(path, *endings)


def writable_folder(path):
    """Refuse an output folder that cannot be created or written to, before any work is done."""
    if path is None:
        return None
    path = user_path(path, "output folder")
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise InputError(f"cannot write into {path}: {there} is a file; give another folder")
    _try_to_write(there, f"cannot write into {path}")
    return path


def _try_to_write(folder, what):
    """Test by writing: permissions do not show a full or read-only disk, and root has all of them."""
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
    typer.Option("--json", metavar="FILE|-", callback=_json_target, help="Write the results as JSON; - for stdout."),
]
Jobs = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--jobs", callback=_at_least_one, help="Number of processes; by default all cores."),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Import and run the user code (likelihoods, simulators) that the run folder names."),
]
