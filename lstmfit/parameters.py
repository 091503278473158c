"""Parameters of a model: names, units, ranges, and whether the natural space is log10."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lstmfit.errors import InputError, listed, one_line
from lstmfit.schema import shown, to_number

LONGEST_NAME = 64
"""Maximum length of a parameter name in characters."""


def check_name(name, what: str = "parameter") -> str:
    """Check the name of a parameter for run files, expressions and chains.

    Parameters
    ----------
    name : object
        The name.
    what : str
        Description for the message.

    Returns
    -------
    str
        The name.

    Raises
    ------
    InputError
        The name contains other characters than letters (a to z), digits and underscores, starts with a digit, or is too
        long.
    """
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise InputError(
            f"{what} {shown(name)}: this is not a valid name; use at most {LONGEST_NAME} letters, digits and "
            "underscores, and do not start with a digit"
        )
    return name


def widened(low: float, high: float, log: bool = False) -> tuple[float, float]:
    """Widen a range slightly to allow for rounding errors; all range checks use this tolerance.

    The limits are moved outwards by 1e-9 of the width (in the logarithm for a logarithmic range), so that limits that
    were computed, or written with ten digits, are inside.

    Parameters
    ----------
    low, high : float
        Limits of any sign; infinite limits are unchanged.
    log : bool
        Whether the range is logarithmic; both limits are then positive.
    """
    if log and low > 0:
        step = 1e-9 * min(math.log(high) - math.log(low), 1.0) + 4e-16 if math.isfinite(high) else 1e-9
        return low * (1.0 - step), high * (1.0 + step)
    width = 1e-9 * (high - low) if math.isfinite(low) and math.isfinite(high) else 0.0
    return low - width - 4e-16 * abs(low), high + width + 4e-16 * abs(high)


def is_inside(values, low: float, high: float, log: bool = False):
    """Whether values lie within a range, with the tolerance of `widened`; NaN does not.

    Parameters
    ----------
    values : array_like
        Values of any shape.
    low, high, log
        As for `widened`.

    Returns
    -------
    bool or numpy.ndarray
        Same shape as the values.
    """
    low, high = widened(low, high, log)
    values = np.asarray(values, dtype=float)
    return (values >= low) & (values <= high)


Theta = ArrayLike | Mapping[str, Any]
"""Types of parameters: arrays, sequences and tables of pandas, or numbers by name."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a simulator or an emulator.

    Parameters
    ----------
    name : str
        Name in run files and chains.
    min, max : float
        Range in physical units.
    log : bool
        Whether the natural space is log10 (a log-uniform prior, a log-scaled network input).
    unit : str
        Unit; empty if dimensionless.
    latex : str
        LaTeX label without dollar signs.
    zero : float, optional
        Value that replaces 0 before log10 is taken (21cmGEM: 1e-6 for fX).
    """

    name: str
    min: float
    max: float
    log: bool = False
    unit: str = ""
    latex: str = ""
    zero: float | None = None

    def __post_init__(self):
        check_name(self.name)
        for key in ("min", "max", *(() if self.zero is None else ("zero",))):
            try:
                object.__setattr__(self, key, to_number(getattr(self, key)))
            except ValueError as error:
                raise InputError(f"parameter {self.name}: {key}: {error}") from None
        if not isinstance(self.log, (bool, np.bool_)):
            raise InputError(f"parameter {self.name}: log is {shown(self.log)}; give true or false")
        for key in ("unit", "latex"):
            if not isinstance(getattr(self, key), str):
                raise InputError(f"parameter {self.name}: {key} is {shown(getattr(self, key))}; give text")
        object.__setattr__(self, "log", bool(self.log))
        if not self.min < self.max:
            raise InputError(
                f"parameter {self.name}: the range {self.min:g}..{self.max:g} is empty; give min < max"
            )
        if self.log and self.min <= 0:
            raise InputError(f"parameter {self.name}: min is {self.min:g}, but a log parameter needs min > 0")
        if self.zero is not None and not (self.log and self.zero > 0):
            raise InputError(
                f"parameter {self.name}: zero is {self.zero:g}, but it requires log: true and zero > 0"
            )

    def is_inside(self, values):
        """Whether values lie in the range, see `lstmfit.parameters.is_inside`."""
        return is_inside(values, self.min, self.max, self.log)


def to_array(theta: Theta, parameters: Sequence[Parameter]) -> np.ndarray:
    """Convert a mapping by name or an array to an array in the order of `parameters`.

    Parameters
    ----------
    theta : mapping, pandas.Series, pandas.DataFrame or array_like
        Physical values by name, or an array of shape (n_params,) or (n, n_params). Columns of a DataFrame (including
        anesthetic's samples) and entries of a Series are selected by name, and there may be further ones.
    parameters : sequence of Parameter
        Parameters in the order of the result.

    Returns
    -------
    numpy.ndarray
        float64, shape (n_params,) or (n, n_params); a new array unless no conversion was necessary.

    Raises
    ------
    InputError
        A name is missing or unknown, or the last axis has the wrong length.
    """
    return to_array_of(theta, [p.name for p in parameters])


def to_array_of(theta: Theta, names: Sequence[str]) -> np.ndarray:
    """As `to_array`, for parameters of which only the names are known."""
    if hasattr(theta, "iloc"):
        return _from_pandas(theta, names)
    if hasattr(theta, "keys"):
        missing = [n for n in names if n not in theta]
        unknown = [n for n in theta if n not in names]
        if missing or unknown:
            found = (("missing", missing), ("unknown", unknown))
            what = "; ".join(f"{word} {listed(which)}" for word, which in found if which)
            raise InputError(f"theta: {what}; the parameters are {', '.join(names)}")
        return np.array([_number(n, theta[n], names) for n in names])
    try:
        array = np.asarray(theta, dtype=float)
    except (TypeError, ValueError, OverflowError):
        order = ", ".join(names)
        raise InputError(f"theta is {shown(theta)}; expected {len(names)} numbers in the order {order}") from None
    if array.ndim not in (1, 2) or array.shape[-1] != len(names):
        raise InputError(
            f"theta has shape {array.shape}; expected ({len(names)},) or (n, {len(names)}) "
            f"in the order {', '.join(names)}"
        )
    return array


def _from_pandas(theta, names):
    """Columns of a DataFrame, (n, n_params), or entries of a Series, (n_params,), by name."""
    keys = theta.columns if hasattr(theta, "columns") else theta.index
    # anesthetic's columns have the labels as a second level.
    known = [str(key[0] if isinstance(key, tuple) else key) for key in keys]
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"theta: no column {listed(missing)}; the table has {listed(known)}, expected {listed(names)}")
    twice = [name for name in names if known.count(name) > 1]
    if twice:
        raise InputError(f"theta: {known.count(twice[0])} columns are called {twice[0]}; keep only one of them")
    at = [known.index(name) for name in names]
    try:
        return np.array(theta.iloc[:, at] if hasattr(theta, "columns") else theta.iloc[at], dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"theta: the columns {listed(names)} are not all numbers ({one_line(error, 100)})") from None


def _number(name, value, names):
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"theta: {name} is {shown(value)}, not a number; for several signals, give an array of shape "
            f"(n, {len(names)}) in the order {', '.join(names)}"
        ) from None
