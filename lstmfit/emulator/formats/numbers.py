"""Lists of numbers in the text files of published networks."""

import warnings
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError, one_line
from lstmfit.schema import LARGEST


def read_list(path, what: str, n: int | None = None, remedy: str = "copy it again") -> np.ndarray:
    """Read the numbers of a text file, in float64.

    Parameters
    ----------
    path : path
        Text file of numbers separated by spaces or line breaks.
    what : str
        Description of the numbers, for messages.
    n : int, optional
        Expected number of values.
    remedy : str
        How to fix a missing or damaged file, for messages.

    Raises
    ------
    InputError
        The file is missing, is not a list of numbers, has another number of values, or a value is not finite.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {path} ({what}); {remedy}")
    try:
        with warnings.catch_warnings():
            # NumPy warns of an empty file, which raises an error below.
            warnings.simplefilter("ignore", UserWarning)
            numbers = np.loadtxt(path).ravel()
    except (ValueError, OSError, OverflowError) as error:
        raise InputError(f"{path} is not a list of numbers ({one_line(error, 120)}); {remedy}") from None
    if n is not None and len(numbers) != n:
        raise InputError(f"{path} has {len(numbers)} numbers, but {n} are expected ({what}); {remedy}")
    if not len(numbers) or not (np.abs(numbers) <= LARGEST).all():
        given = f"numbers up to {np.abs(numbers).max():g}" if len(numbers) else "no numbers"
        raise InputError(f"{path} has {given}, but finite numbers are expected ({what}); {remedy}")
    return numbers
