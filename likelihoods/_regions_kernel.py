"""Compiled sky of regions with a spectral index each."""

import math

import numpy as np

from lstmfit.kernels import cached_kernel


@cached_kernel()
def _sum_of_power_laws(weights, log_frequency, constant, betas):
    out = np.full(log_frequency.size, constant)
    for i in range(betas.size):
        for j in range(out.size):
            out[j] += weights[i, j] * math.exp(-betas[i] * log_frequency[j])
    return out


def sky_of_regions(weights, log_frequency, constant, betas) -> np.ndarray:
    """Constant plus the sum over regions i of weights_i(nu) (nu / nu_c)^-beta_i.

    Parameters
    ----------
    weights : numpy.ndarray
        (n_regions, n) C-contiguous.
    log_frequency : numpy.ndarray
        (n,) ln(nu / nu_c).
    constant : float
        In the unit of the weights.
    betas : numpy.ndarray
        (n_regions,) spectral indices.

    Returns
    -------
    numpy.ndarray
        (n,) in the unit of the weights.
    """
    return _sum_of_power_laws(weights, log_frequency, constant, np.ascontiguousarray(betas, dtype=np.float64))
