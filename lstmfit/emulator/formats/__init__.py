"""Emulators of other groups, read in their own formats. The format is recognised from the content of the file."""

import hashlib
from pathlib import Path

from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator_source import is_globalemu
from lstmfit.errors import InputError
from lstmfit.files import sha256

PREFIX = "21cmemu:"
"""Prefix of the names of emulators that are read from an installed package."""

FORMATS = (
    ("21cmLSTM", "emulator_*.h5 (Keras), with train_mins_*.txt, train_maxs_*.txt in its folder", "21cmgem or ares"),
    ("21cmKAN", "emulator_*.pth, with train_mins_*.npy, train_maxs_*.npy in its folder", "21cmgem, ares or SPEC.yaml"),
    ("globalemu", "the folder with model.h5, z.txt, data_mins.txt", "21cmgem, ares or SPEC.yaml"),
    ("21cmEMU", f"{PREFIX}mcg or {PREFIX}acg; needs: pip install --no-deps py21cmemu", "its own"),
)
"""Emulators of other groups: name, files or name to give, and possible parameters."""


def is_named(source) -> bool:
    """Whether a source is the name of an emulator of another group, not a path."""
    return isinstance(source, str) and source.startswith(PREFIX)


def load_named(source: str) -> BaseEmulator:
    """Load an emulator of another group by its name, see `is_named`.

    Raises
    ------
    InputError
        There is no emulator of this name, or its package is not installed.
    """
    from lstmfit.emulator.formats.emu21cm import load_21cmemu

    return load_21cmemu(source)


def checksum_of(files, parameters, redshifts) -> str:
    """SHA-256 that identifies a published emulator: its files, and its parameters and grid, which a spec may define.

    Parameters
    ----------
    files : sequence of path
        Its files, in a fixed order.
    parameters : sequence of Parameter
        In the order of theta.
    redshifts : numpy.ndarray
        (n_channels,).
    """
    content = f"{sha256(*files)} {tuple(parameters)} {redshifts.tolist()}"
    return hashlib.sha256(content.encode()).hexdigest()


def load_foreign(path: Path, parameters=None) -> BaseEmulator | None:
    """Load an emulator of another group, unless it uses the network of this package, as 21cmLSTM does.

    Parameters
    ----------
    path : pathlib.Path
        An existing file or folder.
    parameters : str or path, optional
        Name or file of the spec that defines its parameters, see `lstmfit.datasets.specs.find_spec`; needed if they
        follow neither from the file itself nor from its numbers of parameters and channels.

    Returns
    -------
    BaseEmulator or None
        None if the file has none of the formats in `FORMATS`.

    Raises
    ------
    InputError
        The emulator is damaged or incomplete.
    """
    from lstmfit.datasets.specs import find_spec
    from lstmfit.emulator.formats.pickles import is_torch

    if path.is_dir():
        if not is_globalemu(path):
            raise InputError(
                f"emulator {path} is a folder, but not a globalemu emulator; give an emulator file or a shipped name"
            )
        from lstmfit.emulator.formats.globalemu import load_globalemu as load
    elif is_torch(path):
        from lstmfit.emulator.formats.kan import load_kan as load
    else:
        return None
    return load(path, None if parameters is None else find_spec(parameters))
