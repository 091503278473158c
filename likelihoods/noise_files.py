"""Files of numbers for noise models: a column by its name, or a table.

Imports neither pandas nor SciPy, because run files are validated with the module that uses it.
"""

import warnings
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError, one_line


def read_column(path: Path, name: str) -> np.ndarray:
    """Column (n,) of a table with a header, by its name."""
    from lstmfit.datasets.tables import read_table

    if not path.is_file():
        raise InputError(f"noise: no file {path}; give a path relative to the folder of the run file")
    table = read_table(path, least=1)
    return table.column(table.number(name))[0]


def read_numbers(path: Path) -> np.ndarray:
    """Read a table (rows, columns) or a one-dimensional array of real numbers from text or ``.npy``."""
    if not path.is_file():
        raise InputError(f"noise: no file {path}; give a path relative to the folder of the run file")
    try:
        if path.suffix == ".npy":
            # Not np.load, which would also read an archive or a pickle under this name.
            with path.open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        else:
            with warnings.catch_warnings():
                # NumPy warns about an empty file, which is an error below.
                warnings.simplefilter("ignore", UserWarning)
                array = np.loadtxt(path.read_text(encoding="utf-8-sig").replace(",", " ").splitlines(), ndmin=2)
    except (ValueError, OSError, EOFError, MemoryError, OverflowError) as error:
        raise InputError(f"noise: {path.name} is not a table of numbers ({one_line(error, 120)})") from None
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or not array.size:
        raise InputError(
            f"noise: {path.name} has shape {array.shape} and type {array.dtype}; give a column or a table of real "
            "numbers"
        )
    return array.astype(float)
