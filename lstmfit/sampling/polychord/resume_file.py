"""PolyChord's resume file: reading its header, checking that it is complete, and keeping the last good one."""

import contextlib
import os
from pathlib import Path

from lstmfit.errors import InputError
from lstmfit.sampling.state import KEPT


def read_resume_header(path) -> dict:
    """Read the counts in the header of a PolyChord resume file.

    Parameters
    ----------
    path : str or pathlib.Path
        A `.resume` file.

    Returns
    -------
    dict
        n_dims, n_derived, n_dead, n_like.

    Raises
    ------
    InputError
        The file is not a complete PolyChord resume file.
    """
    wanted = {
        "=== Number of dimensions ===": "n_dims",
        "=== Number of derived parameters ===": "n_derived",
        "=== Number of dead points/iterations ===": "n_dead",
        "=== Number of likelihood calls ===": "n_like",
    }
    found = {}
    try:
        with Path(path).open(encoding="ascii") as file:
            key = None
            for line in file:
                if key:
                    # The calls are given as one number per parameter speed.
                    found[key] = sum(int(word) for word in line.split())
                if len(found) == len(wanted):
                    return found
                key = wanted.get(line.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); start over with --force") from error
    raise InputError(f"{path} is not a complete PolyChord resume file; start over with --force")


def is_whole(path, last_section: str | None) -> bool:
    """Whether a resume file is complete: on a full disk PolyChord truncates it without an error.

    Parameters
    ----------
    path : str or pathlib.Path
        A `.resume` file.
    last_section : str or None
        Title of the last section; None if unknown, in which case any file counts as complete.
    """
    try:
        content = Path(path).read_bytes()
    except OSError:
        return False
    return last_section is None or (last_section.encode() in content and content.endswith(b"\n"))


def keep_resume_file(folder, root) -> None:
    """Keep a complete resume file under a second name, because PolyChord replaces it before the next can be checked."""
    resume, kept = Path(folder) / f"{root}.resume", Path(folder) / f"{root}{KEPT}"
    temporary = kept.with_name(f"{kept.name}.new")
    # On file systems without hard links there is no backup.
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
        os.link(resume, temporary)
        temporary.replace(kept)


def restore_resume_file(folder, root, last_section: str | None) -> None:
    """Replace a truncated resume file by the one that was kept."""
    resume, kept = Path(folder) / f"{root}.resume", Path(folder) / f"{root}{KEPT}"
    if kept.is_file() and not is_whole(resume, last_section):
        kept.replace(resume)
