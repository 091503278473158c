"""Lists of numbers in the text files that lie beside published networks."""

import warnings
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError, one_line
from lstmfit.schema import LARGEST


def read_list(path, what: str, n: int | None = None, remedy: str = "copy it again") -> np.ndarray:
    """Numbers of a text file, in float64.

    Parameters
    ----------
    path : path
        Numbers between spaces or line ends.
    what : str
        What they are, for messages.
    n : int, optional
        How many are needed.
    remedy : str
        What to do about a file that is damaged or missing.

    Raises
    ------
    InputError
        It is missing, holds anything else, another number of them, or some that are not finite.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {path}, which holds {what}; {remedy}")
    try:
        with warnings.catch_warnings():
            # Of an empty file, which is refused below.
            warnings.simplefilter("ignore", UserWarning)
            numbers = np.loadtxt(path).ravel()
    except (ValueError, OSError, OverflowError) as error:
        raise InputError(f"{path} is not a list of numbers ({one_line(error, 120)}); {remedy}") from None
    if n is not None and len(numbers) != n:
        raise InputError(f"{path} has {len(numbers)} numbers; expected {n}: {what}")
    if not len(numbers) or not (np.abs(numbers) <= LARGEST).all():
        most = f"numbers up to {np.abs(numbers).max():g}" if len(numbers) else "no numbers"
        raise InputError(f"{path}: {most}; finite ones are needed: {what}")
    return numbers
