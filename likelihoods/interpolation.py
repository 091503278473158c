"""From the grid of a signal to the channels of the data."""

import numpy as np

from lstmfit.constants import frequency_to_redshift, redshift_to_frequency
from lstmfit.errors import InputError

EDGE = 0.05
"""How far, in steps of the signal's grid, a channel may lie beyond its end; it is then taken to be the end."""


def interpolation_matrix(redshifts: np.ndarray, frequency: np.ndarray) -> np.ndarray | None:
    """Matrix that takes a signal on the emulator's grid to the data's channels.

    A cubic spline in redshift, which is linear in the signal, so it is worked out once.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    frequency : numpy.ndarray
        (n,) MHz.

    Returns
    -------
    numpy.ndarray or None
        (n, n_channels); None where the data are on the grid itself.

    Raises
    ------
    InputError
        A frequency outside the grid by more than a twentieth of its last step.
    """
    z = frequency_to_redshift(frequency)
    # Frequencies of the grid itself, written with few digits, are not outside.
    low, high = (EDGE * abs(redshifts[i + 1] - redshifts[i]) for i in (0, -2))
    outside = (z < redshifts[0] - low) | (z > redshifts[-1] + high)
    if outside.any():
        raise InputError(_outside(redshifts, np.asarray(frequency), outside))
    margin = 1e-9 * redshifts[-1]
    if len(z) == len(redshifts) and np.allclose(z, redshifts, rtol=0, atol=margin):
        return None
    from scipy.interpolate import CubicSpline

    return CubicSpline(redshifts, np.eye(len(redshifts)))(np.clip(z, redshifts[0], redshifts[-1]))


def _outside(redshifts, frequency, outside) -> str:
    """What is wrong, and the band to cut where that leaves most of the channels."""
    low, high = redshift_to_frequency(redshifts[-1]), redshift_to_frequency(redshifts[0])
    n, bad = len(frequency), int(outside.sum())
    where = (
        f"{bad} of {n} channels lie outside the emulator's {low:.2f} to {high:.2f} MHz (the data span "
        f"{frequency.min():.6g} to {frequency.max():.6g} MHz)"
    )
    if bad > n / 2:
        return (
            f"{where}: most of them, so do not cut them with band: but check the emulator, and that the first column "
            "is in MHz; columns: takes redshift: 0, or frequency: 0 with frequency_unit: Hz, kHz or GHz"
        )
    good = frequency[~outside]
    # Rounded inwards, but not so far that a good channel is lost.
    edges = np.ceil(100.0 * low) / 100.0, np.floor(100.0 * high) / 100.0
    edges = [float(min(edges[0], good.min())), float(max(edges[1], good.max()))]
    return f"{where}; cut them with data: {{band: {edges}}}"
