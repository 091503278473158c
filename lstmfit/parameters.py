"""What a model can take: names, units, ranges and whether a parameter lives in log10."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstmfit.errors import InputError, listed, one_line


@dataclass(frozen=True)
class Parameter:
    """One parameter of a simulator or an emulator.

    Parameters
    ----------
    name : str
        Name as run files and chains use it.
    min, max : float
        Range in physical units.
    log : bool
        True where the natural space is log10 (a log-uniform prior, a log-scaled network input).
    unit : str
        Unit, empty for a pure number.
    latex : str
        LaTeX label without dollar signs.
    zero : float, optional
        What stands for 0 where log10 is taken (21cmGEM: 1e-6 for fX).
    """

    name: str
    min: float
    max: float
    log: bool = False
    unit: str = ""
    latex: str = ""
    zero: float | None = None

    def __post_init__(self):
        if not self.min < self.max:
            raise InputError(
                f"parameter {self.name}: the range {self.min:g}..{self.max:g} is empty; min < max is needed"
            )
        if self.log and self.min <= 0:
            raise InputError(f"parameter {self.name}: min is {self.min:g}, but a log parameter needs min > 0")


def to_array(theta, parameters: Sequence[Parameter]) -> np.ndarray:
    """Bring a mapping by name or an array into the order of `parameters`.

    Parameters
    ----------
    theta : mapping, pandas.Series, pandas.DataFrame or array_like
        Physical values by name, or an array of shape (n_params,) or (n, n_params). The columns of a DataFrame (of
        anesthetic's samples too) and the entries of a Series are taken by name, and there may be more of them.
    parameters : sequence of Parameter
        The order wanted.

    Returns
    -------
    numpy.ndarray
        float64, shape (n_params,) or (n, n_params); a new array where a conversion was needed.

    Raises
    ------
    InputError
        A name is missing or unknown, or the last axis has the wrong length.
    """
    names = [p.name for p in parameters]
    if hasattr(theta, "iloc"):
        return _from_pandas(theta, names)
    if hasattr(theta, "keys"):
        missing = [n for n in names if n not in theta]
        unknown = [n for n in theta if n not in names]
        if missing or unknown:
            found = (("missing", missing), ("unknown", unknown))
            what = "; ".join(f"{word} {', '.join(map(str, which))}" for word, which in found if which)
            raise InputError(f"theta: {what}; the parameters are {', '.join(names)}")
        return np.array([_number(n, theta[n], names) for n in names])
    try:
        array = np.asarray(theta, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"theta is {theta!r}; expected {len(names)} numbers in the order {', '.join(names)}") from None
    if array.ndim not in (1, 2) or array.shape[-1] != len(names):
        raise InputError(
            f"theta has shape {array.shape}; expected ({len(names)},) or (n, {len(names)}) "
            f"in the order {', '.join(names)}"
        )
    return array


def _from_pandas(theta, names):
    """Columns of a DataFrame, (n, n_params), or entries of a Series, (n_params,), by name."""
    keys = theta.columns if hasattr(theta, "columns") else theta.index
    # anesthetic's have a second level: the labels.
    known = [str(key[0] if isinstance(key, tuple) else key) for key in keys]
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"theta: no column {listed(missing)}; the table has {listed(known)}, expected {listed(names)}")
    twice = [name for name in names if known.count(name) > 1]
    if twice:
        raise InputError(f"theta: {known.count(twice[0])} columns are called {twice[0]}; leave one of them")
    at = [known.index(name) for name in names]
    try:
        return np.array(theta.iloc[:, at] if hasattr(theta, "columns") else theta.iloc[at], dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"theta: the columns {listed(names)} are not all numbers ({one_line(error, 100)})") from None


def _number(name, value, names):
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"theta: {name} is {value!r}, not a number; many signals at once are an array of shape (n, {len(names)}) "
            f"in the order {', '.join(names)}"
        ) from None
