"""Emulators of other groups, read as they are: what a file is, is told from its content."""

from pathlib import Path

from lstmfit.emulator.base import BaseEmulator
from lstmfit.errors import InputError


def load_foreign(path: Path, parameters=None) -> BaseEmulator | None:
    """Load an emulator of another group.

    Parameters
    ----------
    path : pathlib.Path
        What exists there.
    parameters : str or path, optional
        Name or file of the spec that says what its parameters are, see `lstmfit.datasets.specs.find_spec`; needed
        where neither the file itself nor its numbers of parameters and channels tell.

    Returns
    -------
    BaseEmulator or None
        None where it is none of the formats that are known here.

    Raises
    ------
    InputError
        It is one of them, but damaged or incomplete.
    """
    from lstmfit.datasets.specs import find_spec
    from lstmfit.emulator.formats.pickles import is_torch

    spec = None if parameters is None else find_spec(parameters)
    if path.is_file() and is_torch(path):
        from lstmfit.emulator.formats.kan import load_kan

        return load_kan(path, spec)
    if path.is_dir():
        raise InputError(f"emulator {path} is a folder, but not one of globalemu; give a file or a shipped name")
    return None
