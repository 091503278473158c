"""Error metrics of an emulator as quoted in the literature."""

from dataclasses import dataclass

import numpy as np

from lstmfit.constants import redshift_to_frequency
from lstmfit.errors import InputError


@dataclass(frozen=True)
class ErrorSummary:
    """Summary of the errors over a set of signals.

    Parameters
    ----------
    mean_percent, median_percent, p95_percent, max_percent : float
        Mean, median, 95th percentile and maximum of the relative rms errors.
    mean_mK, p95_mK : float
        Mean and 95th percentile of the absolute rms errors, in mK.
    n : int
        Number of signals.
    """

    mean_percent: float
    median_percent: float
    p95_percent: float
    max_percent: float
    mean_mK: float
    p95_mK: float
    n: int


def rms_error(predicted, true, redshifts=None, low=None, high=None):
    """Rms error of each signal, absolute and relative.

    The relative error is Eq. 3 of Dorigo Jones et al. 2024 (arXiv:2410.07619): the rms over channels divided by the
    largest absolute value of the true signal, both within the band.

    Parameters
    ----------
    predicted, true : array_like
        (n, n_channels) mK.
    redshifts : array_like, optional
        (n_channels,) grid; needed if a band edge is given.
    low, high : float, optional
        Band edges in MHz, inclusive; either may be omitted.

    Returns
    -------
    absolute : numpy.ndarray
        (n,) mK.
    relative : numpy.ndarray
        (n,) fraction.

    Raises
    ------
    InputError
        No channel lies in the band.
    """
    predicted, true = np.atleast_2d(predicted), np.atleast_2d(true)
    if low is not None or high is not None:
        nu = redshift_to_frequency(redshifts)
        band = (nu >= (-np.inf if low is None else low)) & (nu <= (np.inf if high is None else high))
        if not band.any():
            raise InputError(
                f"no channel between {low} and {high} MHz; choose a band within {nu.min():.2f} to {nu.max():.2f} MHz"
            )
        predicted, true = predicted[:, band], true[:, band]
    absolute = np.sqrt(np.mean((predicted - true) ** 2, axis=1, dtype=float))
    return absolute, absolute / np.max(np.abs(true), axis=1)


def summarise(absolute: np.ndarray, relative: np.ndarray) -> ErrorSummary:
    """Summarise the errors returned by `rms_error`."""
    percent = 100.0 * relative
    return ErrorSummary(
        float(percent.mean()),
        float(np.median(percent)),
        float(np.percentile(percent, 95)),
        float(percent.max()),
        float(absolute.mean()),
        float(np.percentile(absolute, 95)),
        len(percent),
    )
