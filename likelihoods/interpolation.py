"""Interpolation from the redshift grid of a signal to the channels of the data."""

import numpy as np

from lstmfit.constants import frequency_to_redshift, redshift_to_frequency
from lstmfit.errors import InputError

EDGE = 0.05
"""A channel may lie outside the signal's grid by this fraction of a step, and is then moved to the edge."""


def interpolation_matrix(redshifts: np.ndarray, frequency: np.ndarray) -> np.ndarray | None:
    """Matrix that interpolates a signal from the emulator's grid to the channels of the data.

    This is a cubic spline in redshift. It is linear in the signal, so the matrix is computed only once.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    frequency : numpy.ndarray
        (n,) MHz.

    Returns
    -------
    numpy.ndarray or None
        (n, n_channels); None if the data are on the grid itself.

    Raises
    ------
    InputError
        A frequency lies outside the grid by more than 5 % of the step at its edge.
    """
    z = frequency_to_redshift(frequency)
    # Allow for frequencies of the grid itself that are rounded to a few digits.
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
    """Error message, with the band to use if most of the channels lie within the grid."""
    low, high = redshift_to_frequency(redshifts[-1]), redshift_to_frequency(redshifts[0])
    n, bad = len(frequency), int(outside.sum())
    where = (
        f"{bad} of {n} channels lie outside the emulator's {low:.2f} to {high:.2f} MHz (the data span "
        f"{frequency.min():.6g} to {frequency.max():.6g} MHz)"
    )
    if bad > n / 2:
        return (
            f"{where}; check the emulator and that the first column is in MHz (otherwise set columns: to redshift: 0, "
            "or to frequency: 0 with frequency_unit: Hz, kHz or GHz)"
        )
    good = frequency[~outside]
    # Round inwards without losing a good channel.
    edges = np.ceil(100.0 * low) / 100.0, np.floor(100.0 * high) / 100.0
    edges = [float(min(edges[0], good.min())), float(max(edges[1], good.max()))]
    return f"{where}; exclude them with data: {{band: {edges}}}"
