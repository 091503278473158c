"""Densities of a measurement with different upper and lower errors, and of one-sided limits."""

import math

from scipy.special import log_ndtr, ndtr


def two_piece(model: float, value: float, up: float, down: float) -> float:
    """Split normal: a Gaussian of width `up` if the model is above the value, `down` if below; normalised.

    Parameters
    ----------
    model, value : float
        Prediction and measurement.
    up, down : float
        Errors of the measurement, both positive.

    Returns
    -------
    float
        Log density.
    """
    z = (model - value) / (up if model > value else down)
    return -0.5 * z * z - math.log(0.5 * (up + down)) - 0.5 * math.log(2.0 * math.pi)


def variable_width(model: float, value: float, up: float, down: float) -> float:
    """Gaussian whose variance is linear in the model, as in 21CMMC; normalised like `two_piece`.

    ln L = -(model - value)^2 / 2 / [up down + (up - down)(model - value)]; -inf where that variance is not positive.

    Parameters
    ----------
    model, value, up, down : float
        As in `two_piece`.
    """
    d = model - value
    variance = up * down + (up - down) * d
    if not variance > 0:
        return -math.inf
    return -0.5 * d * d / variance - math.log(0.5 * (up + down)) - 0.5 * math.log(2.0 * math.pi)


def upper_limit(model: float, limit: float, err: float) -> float:
    """Upper limit on a fraction between 0 and 1 (arXiv:2504.09725).

    L = 1/2 [erf((1 + m - d) / (sqrt2 s)) - erf((m - d) / (sqrt2 s))]: about one well below the limit d, and a Gaussian
    tail of width s above it.

    Parameters
    ----------
    model, limit, err : float
        m, d and s.

    Returns
    -------
    float
        Log likelihood.
    """
    low, high = (model - limit) / err, (1.0 + model - limit) / err
    if high - low < 1e-4:
        # For a wide error the two functions are nearly equal: use density times width, which is accurate to 1e-10.
        middle = 0.5 * (low + high)
        return -0.5 * middle * middle - 0.5 * math.log(2.0 * math.pi) - math.log(err)
    if high < -5.0:
        low, high = -high, -low
    if low > 5.0:
        # In the tail the two error functions cancel, so use the logarithms of the tail probabilities.
        return float(log_ndtr(-low)) + math.log1p(-math.exp(float(log_ndtr(-high) - log_ndtr(-low))))
    return math.log(float(ndtr(high) - ndtr(low)))


def half_gaussian(model: float, limit: float, err: float) -> float:
    """Upper limit as in 21CMMC: flat below the limit, a Gaussian of width `err` above; not normalised.

    Parameters
    ----------
    model, limit, err : float
        Prediction, limit and its width.
    """
    z = max(model - limit, 0.0) / err
    return -0.5 * z * z
