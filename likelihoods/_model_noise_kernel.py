"""Compiled ln L of a residual whose noise is that of the model's own sky.

The arrays are those of `lstmfit.likelihoods.model_noise`.
"""

import numpy as np

from lstmfit.kernels import cached_kernel
from lstmfit.likelihoods._spectrum_kernel import chi_square, marginalised_at


@cached_kernel(fastmath={"reassoc", "contract"})
def without_terms(r, constant, whole, scale):
    """Sum of ln variance and of r^2 / variance for variances ``constant + (scale * sky)^2`` with sky = whole - r.

    (inf, 0) if the sky is not positive in a channel.
    """
    logs, chi2 = 0.0, 0.0
    for j in range(r.size):
        sky = whole[j] - r[j]
        if sky <= 0.0:
            return np.inf, 0.0
        variance = constant[j] + (scale[j] * sky) ** 2
        logs += np.log(variance)
        chi2 += r[j] * r[j] / variance
    return logs, chi2


@cached_kernel(fastmath={"reassoc", "contract"})
def without_fitted_terms(r, directions, weighted, inverse_factor, pull):
    """Residual minus the marginalised terms at their conditional mean, (n,)."""
    k, n = directions.shape
    t, v, left = pull.copy(), np.zeros(k), r.copy()
    for a in range(k):
        total = 0.0
        for j in range(n):
            total += weighted[a, j] * r[j]
        t[a] += total
    for a in range(k):
        for b in range(a + 1):
            v[a] += inverse_factor[a, b] * t[b]
    for b in range(k):
        best = 0.0
        for a in range(b, k):
            best += inverse_factor[a, b] * v[a]
        for j in range(n):
            left[j] -= best * directions[b, j]
    return left


@cached_kernel(fastmath={"reassoc", "contract"})
def with_terms(r, constant, whole, scale, directions, width, log_prior_volume, pull, prior_constant, first, largest):
    """As `without_terms` after the marginalisation: minus twice the change of the log normalisation, and chi-square.

    The sky has the terms at their conditional mean under the noise `first`, the weighted terms and inverse factor of
    `marginalised_at`.
    """
    left = without_fitted_terms(r, directions, first[0], first[1], pull)
    inverse, logs = np.empty(r.size), 0.0
    for j in range(r.size):
        sky = whole[j] - left[j]
        if sky <= 0.0:
            return np.inf, 0.0
        variance = constant[j] + (scale[j] * sky) ** 2
        logs += np.log(variance)
        inverse[j] = 1.0 / variance
    weighted, inverse_factor, change = marginalised_at(directions, inverse, width, log_prior_volume)
    return logs - 2.0 * change, chi_square(r, inverse, weighted, inverse_factor, pull, prior_constant, largest)
