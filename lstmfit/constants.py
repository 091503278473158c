"""The rest frequency of the 21-cm line, and frequency against redshift."""

import numpy as np

NU21 = 1420.405751768
"""Rest frequency of the 21-cm hyperfine line in MHz."""


def redshift_to_frequency(redshift):
    """Observed frequency of the 21-cm line.

    Parameters
    ----------
    redshift : array_like
        Redshift, any shape.

    Returns
    -------
    numpy.ndarray
        Frequency in MHz, same shape.
    """
    return NU21 / (1.0 + np.asarray(redshift, dtype=float))


def frequency_to_redshift(frequency):
    """Redshift at which the 21-cm line is observed at a frequency.

    Parameters
    ----------
    frequency : array_like
        Frequency in MHz, any shape.

    Returns
    -------
    numpy.ndarray
        Redshift, same shape.
    """
    return NU21 / np.asarray(frequency, dtype=float) - 1.0
