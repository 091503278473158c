"""PolyChord's resume file: is it whole, what does it count, and a second name for the last good one."""

import contextlib
import os
from pathlib import Path

from lstmfit.errors import InputError
from lstmfit.sampling.state import KEPT


def read_resume_header(path) -> dict:
    """Counts at the head of a PolyChord resume file.

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
        It is not a resume file.
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
                    # One number per parameter speed for the calls.
                    found[key] = sum(int(word) for word in line.split())
                if len(found) == len(wanted):
                    return found
                key = wanted.get(line.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); start over with --force") from error
    raise InputError(f"{path} is not a whole PolyChord resume file; start over with --force")


def is_whole(path, last_section: str | None) -> bool:
    """Tell whether a resume file was written to its end: on a full disk PolyChord continues silently.

    Parameters
    ----------
    path : str or pathlib.Path
        A `.resume` file.
    last_section : str or None
        Title of the last section; None where that is not known, and any file will do.
    """
    try:
        content = Path(path).read_bytes()
    except OSError:
        return False
    return last_section is None or (last_section.encode() in content and content.endswith(b"\n"))


def keep_resume_file(folder, root) -> None:
    """Give the resume file, which is whole, a second name: the next one replaces it before anyone can look at it."""
    resume, kept = Path(folder) / f"{root}.resume", Path(folder) / f"{root}{KEPT}"
    temporary = kept.with_name(f"{kept.name}.new")
    # Some file systems have no hard links; then there is no backup.
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
        os.link(resume, temporary)
        temporary.replace(kept)


def restore_resume_file(folder, root, last_section: str | None) -> None:
    """Put the kept resume file in place of one that was cut short."""
    resume, kept = Path(folder) / f"{root}.resume", Path(folder) / f"{root}{KEPT}"
    if kept.is_file() and not is_whole(resume, last_section):
        kept.replace(resume)
