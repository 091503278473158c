"""Check that data and noise are in the same unit."""

import warnings

import numpy as np

from lstmfit.likelihoods.components import middle
from lstmfit.likelihoods.foreground_formulae import log_polynomial

FACTOR = 30.0
"""A larger ratio of scatter and noise points to wrong units: K instead of mK is 1000, s instead of h is 60."""


def check_scale(frequency, temperature, weight, sigma, extra=None) -> None:
    """Warn if the scatter between channels is inconsistent with the noise, usually because K is mistaken for mK.

    A smooth log polynomial is subtracted, and second differences of neighbouring channels, which are insensitive to a
    smooth signal, are compared with the noise.

    Parameters
    ----------
    frequency, temperature, weight : numpy.ndarray
        (n,) MHz, mK and weights of the data.
    sigma : float or (float, float)
        Noise of a channel of weight one in mK; the limits of its prior if it is free.
    extra : numpy.ndarray, optional
        Additional covariance of the channels in mK^2: (n,) if diagonal, otherwise (n, n).
    """
    if len(frequency) < 10:
        return
    order = np.argsort(frequency)
    data, weight = np.asarray(temperature, dtype=float)[order], np.asarray(weight, dtype=float)[order]
    if extra is not None:
        extra = np.asarray(extra)[order] if np.ndim(extra) == 1 else np.asarray(extra)[np.ix_(order, order)]
    low, high = np.broadcast_to(sigma, (2,))
    root = np.sqrt(weight)
    smooth = log_polynomial(frequency[order], 7, middle(frequency))
    rest = data - smooth @ np.linalg.lstsq(root[:, None] * smooth, root * data, rcond=None)[0]
    steps = rest[2:] - 2.0 * rest[1:-1] + rest[:-2]
    ratios = [np.abs(steps) / np.sqrt(_step_variance(s * s / weight, extra)) for s in (low, high)]
    # In units of the smallest and the largest possible noise; 1.4826 converts a median to a standard deviation.
    at_most, at_least = (1.4826 * float(np.median(ratio)) for ratio in ratios)
    if at_most >= 1.0 / FACTOR and at_least <= FACTOR:
        return
    scatter = 1.4826 * float(np.median(np.abs(steps) / np.sqrt(_step_variance(1.0 / weight, None))))
    advice = (
        "check the unit of the data (K or mK), the weights and the noise (channel_width in MHz, integration_time in "
        "hours)"
    )
    if scatter <= 1e-7 * float(np.abs(data).max()):
        text = f"the data have no channel-to-channel noise; unless this is a noise-free test, {advice}"
    else:
        free = f"{low:.3g} to {high:.3g} mK according to its prior"
        noise = f"{scatter / at_most:.3g} mK" if low == high else free
        text = f"neighbouring channels scatter by {scatter:.3g} mK, but the noise is {noise}; {advice}"
    warnings.warn(text, stacklevel=2)


def _step_variance(variance, extra):
    """Variance (n - 2,) of second differences of noise with this variance (n,) and additional covariance."""
    diagonal = variance if extra is None else variance + (extra if extra.ndim == 1 else np.diagonal(extra))
    total = diagonal[2:] + 4.0 * diagonal[1:-1] + diagonal[:-2]
    if extra is not None and extra.ndim == 2:
        pairs, ends = np.diagonal(extra, 1), np.diagonal(extra, 2)
        # A covariance that is smooth in frequency almost cancels, so limit the effect of rounding.
        total = np.maximum(total - 4.0 * (pairs[1:] + pairs[:-1]) + 2.0 * ends, 1e-4 * total)
    return np.maximum(total, np.finfo(float).tiny)
