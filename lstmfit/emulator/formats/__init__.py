"""Emulators of other groups, read as they are: what a file is, is told from its content."""

import hashlib
from pathlib import Path

from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator_source import is_globalemu
from lstmfit.errors import InputError
from lstmfit.files import sha256

PREFIX = "21cmemu:"
"""Of the names of emulators that are read from an installed package."""

FORMATS = (
    ("21cmLSTM", "emulator_*.h5 of Keras; train_mins_*.txt and train_maxs_*.txt lie beside it", "21cmgem or ares"),
    ("21cmKAN", "emulator_*.pth; train_mins_*.npy and train_maxs_*.npy lie beside it", "21cmgem, ares or SPEC.yaml"),
    ("globalemu", "the folder with model.h5, z.txt, data_mins.txt", "21cmgem, ares or SPEC.yaml"),
    ("21cmEMU", f"{PREFIX}mcg or {PREFIX}acg; needs: pip install --no-deps py21cmemu", "its own"),
)
"""Emulators of other groups: name, what to give, and the parameters that they can have."""


def is_named(source) -> bool:
    """Whether a source is the name of an emulator of another group, and no path."""
    return isinstance(source, str) and source.startswith(PREFIX)


def load_named(source: str) -> BaseEmulator:
    """Load an emulator of another group by its name, see `is_named`.

    Raises
    ------
    InputError
        There is none of this name, or the package that it is read from is missing.
    """
    from lstmfit.emulator.formats.emu21cm import load_21cmemu

    return load_21cmemu(source)


def checksum_of(files, parameters, redshifts) -> str:
    """SHA-256 of what a published emulator is: its files, and the parameters and grid that a spec may have named.

    Parameters
    ----------
    files : sequence of path
        In a fixed order.
    parameters : sequence of Parameter
        In the order of theta.
    redshifts : numpy.ndarray
        (n_channels,).
    """
    content = f"{sha256(*files)} {tuple(parameters)} {redshifts.tolist()}"
    return hashlib.sha256(content.encode()).hexdigest()


def load_foreign(path: Path, parameters=None) -> BaseEmulator | None:
    """Load an emulator of another group, unless it is this package's own network, which 21cmLSTM is too.

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

    if path.is_dir():
        if not is_globalemu(path):
            raise InputError(f"emulator {path} is a folder, but not one of globalemu; give a file or a shipped name")
        from lstmfit.emulator.formats.globalemu import load_globalemu as load
    elif is_torch(path):
        from lstmfit.emulator.formats.kan import load_kan as load
    else:
        return None
    return load(path, None if parameters is None else find_spec(parameters))
