"""Redshift grids of sets of signals, from redshifts or frequencies in any order."""

import warnings

import numpy as np

from lstmfit.constants import NU21, frequency_to_redshift
from lstmfit.datasets.columns import FREQUENCY_UNITS, Heading
from lstmfit.errors import InputError

HIGHEST = 1500.0
"""Upper limit of a redshift; recombination is at 1100. A larger number is a frequency in another unit."""


def check_redshifts(where, values: np.ndarray, remedy: str) -> None:
    """Refuse redshifts that cannot be redshifts.

    Parameters
    ----------
    where : str or pathlib.Path
        The file, for the message.
    values : numpy.ndarray
        (n,) in any order.
    remedy : str
        What to do if they are frequencies; ``UNIT`` stands for their unit.

    Raises
    ------
    InputError
        There are less than two values, or one is negative or above `HIGHEST`.
    """
    _check_length(where, values)
    low, high = values.min(), values.max()
    if 0 <= low and high <= HIGHEST:
        return
    unit = _likely_unit(values)
    what = f"expected 0 to {HIGHEST:g}"
    if unit is not None:
        what = f"this looks like a frequency in {unit}; {remedy.replace('UNIT', unit)}"
    raise InputError(f"{where}: its redshifts run from {low:.6g} to {high:.6g}; {what}")


def redshifts_of(where, values: np.ndarray, unit: str | None = None) -> np.ndarray:
    """Convert frequencies to redshifts.

    Parameters
    ----------
    where : str or pathlib.Path
        The file, for the message.
    values : numpy.ndarray
        (n,) in any order.
    unit : {"Hz", "kHz", "MHz", "GHz"}, optional
        Unit of the values; by default MHz, and values that look like redshifts are refused.

    Returns
    -------
    numpy.ndarray
        (n,) redshifts in the same order.

    Raises
    ------
    InputError
        There are less than two values, or they cannot be frequencies in this unit.
    """
    _check_length(where, values)
    low, high = values.min(), values.max()
    # Below 1.42 everything is a frequency in GHz.
    if unit is None and 0 <= low < 25 and 1.5 < high <= 60:
        raise InputError(
            f"{where}: its frequencies run from {low:.6g} to {high:.6g} MHz; this looks like redshifts; set redshifts "
            "instead of frequency in the spec, or frequency_unit: MHz if it is MHz"
        )
    mhz = values * FREQUENCY_UNITS[unit or "MHz"]
    # Rounding may put z = 0 below zero.
    if NU21 / (1 + HIGHEST) <= mhz.min() and mhz.max() <= NU21 * (1 + 1e-6):
        return np.maximum(frequency_to_redshift(mhz), 0.0)
    likely = _likely_unit(values)
    what = f"the 21-cm line is below {NU21:.1f} MHz"
    if likely is not None:
        what = f"this looks like {likely}; set frequency_unit: {likely} in the spec"
    raise InputError(f"{where}: its frequencies run from {low:.6g} to {high:.6g} {unit or 'MHz'}; {what}")


def check_grid_name(where, name: str, frequency: bool, unit: str | None) -> None:
    """Refuse an array whose name says that it is something else than the spec does.

    Parameters
    ----------
    where : str or pathlib.Path
        The file, for the message.
    name : str
        Name of the array, such as ``freq_Hz``.
    frequency : bool
        Whether the spec takes it for frequencies, else for redshifts.
    unit : str or None
        Unit of the frequencies in the spec.

    Raises
    ------
    InputError
        The name is that of the other quantity, or has another unit.
    """
    heading = Heading.of(name.split("/")[-1])
    if not frequency and heading.kind == "frequency":
        raise InputError(f"{where}: {name} is a frequency by its name; set frequency: {name} in the spec")
    if frequency and heading.kind == "redshift":
        raise InputError(f"{where}: {name} is a redshift by its name; set redshifts: {name} in the spec")
    if frequency and heading.unit in FREQUENCY_UNITS and heading.unit != (unit or "MHz"):
        raise InputError(
            f"{where}: {name} is in {heading.unit} by its name, but the spec has {unit or 'MHz'}; "
            f"set frequency_unit: {heading.unit}"
        )


def warn_of_frequencies(where, redshifts: np.ndarray) -> None:
    """Warn of redshifts that look like frequencies in MHz; those of the dark ages do too."""
    if redshifts.min() > 25 and redshifts.max() > 60:
        warnings.warn(
            f"{where}: the redshifts run from {redshifts.min():.6g} to {redshifts.max():.6g}; if these are MHz, set "
            "frequency instead of redshifts in the spec",
            stacklevel=6,
        )


def ascending(where, redshifts: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Sort a grid.

    Parameters
    ----------
    where : str or pathlib.Path
        The file, for the message.
    redshifts : numpy.ndarray
        (n,) ascending or descending.

    Returns
    -------
    redshifts : numpy.ndarray
        (n,) ascending.
    order : numpy.ndarray or None
        (n,) indices that sort the channels; None where they are sorted.

    Raises
    ------
    InputError
        The grid is neither ascending nor descending, or has a value twice.
    """
    steps = np.diff(redshifts)
    if (steps > 0).all():
        return redshifts, None
    if (steps < 0).all():
        return redshifts[::-1].copy(), np.arange(len(redshifts))[::-1]
    at = int(np.argmax(np.sign(steps) != np.sign(steps[0]))) if steps[0] else 0
    raise InputError(
        f"{where}: its grid is neither ascending nor descending, from channel {at} to {at + 1}; sort it, and the "
        "signals with it"
    )


def _check_length(where, values):
    if len(values) < 2:
        raise InputError(f"{where}: its grid has length {len(values)}; two channels or more are needed")


def _likely_unit(values) -> str | None:
    """Unit in which all values are frequencies of the 21-cm line between 1 MHz and its rest frequency."""
    for unit in ("MHz", "kHz", "Hz", "GHz"):
        mhz = values * FREQUENCY_UNITS[unit]
        if mhz.min() >= 1 and mhz.max() <= NU21 * (1 + 1e-6):
            return unit
    return None
