"""Compiled luminosity function of the double power law: one or two roots per magnitude bin."""

import math

import numpy as np

from lstmfit.kernels import cached_kernel


@cached_kernel()
def _log_rate(x, x_p, lo, hi, log_norm, slope):
    """Log of f(M) M^slope and its derivative, at x = ln M."""
    a, b = -lo * (x - x_p), -hi * (x - x_p)
    top = max(a, b)
    ea, eb = math.exp(a - top), math.exp(b - top)
    return log_norm - top - math.log(ea + eb) + slope * x, slope + (lo * ea + hi * eb) / (ea + eb)


@cached_kernel()
def luminosity_function(target, which, table, first, step, slope, values):
    """Sum of dn/dlnM / |dM_UV/dlnM| over the masses with the magnitude of each bin.

    Because gamma_hi < gamma_lo, ln f(M) M^slope is concave in ln M and has at most one peak. So Newton steps from the
    asymptote, which lies above the function, never overshoot the root, and a few steps are enough.

    Parameters
    ----------
    target : numpy.ndarray
        (n_bins,) ln f(M) M^slope for the magnitude of each bin, with masses in 10^12 solar masses.
    which : numpy.ndarray
        (n_bins,) index of the bin's redshift in the table.
    table : numpy.ndarray
        Cubic coefficients of ln dn/dlnM on ln M = first + i step:
        shape (n_cells, n_z, 4), highest power first.
    first, step, slope : float
        Start and step of the grid of ln M, and the exponent of the accretion rate.
    values : numpy.ndarray
        f_star, M_p (solar masses), gamma_lo, gamma_hi.

    Returns
    -------
    numpy.ndarray
        (n_bins,) in the unit of the table.
    """
    x_p, lo, hi = math.log(values[1] / 1e12), values[2], values[3]
    # The function is symmetric in the two exponents; the steeper rise belongs to small masses.
    lo, hi = max(lo, hi), min(lo, hi)
    log_norm = math.log(2.0 * values[0])
    rising, falling = lo + slope, hi + slope
    peak = math.inf
    if rising > 0.0 > falling:
        peak = x_p + math.log(-falling / rising) / (hi - lo)
    out = np.zeros(target.size)
    for i in range(target.size):
        t = target[i]
        for branch in range(2):
            s = rising if branch == 0 else falling
            if (branch == 0 and s <= 0.0) or (branch == 1 and s >= 0.0):
                continue
            if peak < math.inf and _log_rate(peak, x_p, lo, hi, log_norm, slope)[0] <= t:
                continue
            power = lo if branch == 0 else hi
            x = (t - log_norm + power * x_p) / s
            derivative = s
            for _ in range(60):
                value, derivative = _log_rate(x, x_p, lo, hi, log_norm, slope)
                move = (t - value) / derivative
                x += move
                if abs(move) < 1e-12:
                    break
            position = (x - first) / step
            if position < 0.0 or position >= table.shape[0]:
                continue
            cell = int(position)
            d = x - (first + cell * step)
            c = table[cell, which[i]]
            density = math.exp(((c[0] * d + c[1]) * d + c[2]) * d + c[3])
            out[i] += density * 0.4 * math.log(10.0) / abs(derivative)
    return out
