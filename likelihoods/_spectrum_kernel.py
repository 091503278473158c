"""Compiled residual and chi-square of a spectrum whose signal is interpolated with a cubic spline.

The arrays are those of `lstmfit.likelihoods.compiled_spectrum`.
"""

import numpy as np

from lstmfit.kernels import cached_kernel


@cached_kernel()
def second_derivatives(signal, nodes, ends, first):
    """Second derivatives of the spline at its m + 2 nodes: a tridiagonal system that is already factorised."""
    m = nodes.shape[1]
    second = np.empty(m + 2)
    previous = 0.0
    for i in range(m):
        at = first + i
        right = nodes[2, i] * signal[at] + nodes[3, i] * signal[at + 1] + nodes[4, i] * signal[at + 2]
        previous = right - nodes[0, i] * previous
        second[i + 1] = previous
    for i in range(m - 2, -1, -1):
        second[i + 1] -= nodes[1, i] * second[i + 2]
    second[0] = ends[0, 0] * second[1] + ends[0, 1] * second[2]
    second[m + 1] = ends[1, 0] * second[m] + ends[1, 1] * second[m - 1]
    return second


@cached_kernel()
def residual(signal, data, nodes, ends, channels, knot, first):
    """Data minus the signal at the channels, (n,)."""
    second = second_derivatives(signal, nodes, ends, first)
    out = np.empty(data.size)
    for j in range(data.size):
        k = knot[j]
        value = channels[0, j] * signal[first + k] + channels[1, j] * signal[first + k + 1]
        out[j] = data[j] - (value + channels[2, j] * second[k] + channels[3, j] * second[k + 1])
    return out


@cached_kernel(fastmath={"reassoc", "contract"})
def chi_square(r, inverse, weighted, inverse_factor, pull, constant, largest):
    """Chi-square of a residual (n,) after the marginalisation of k terms.

    NaN if there are such terms and it is not below `largest` before, because the difference of larger numbers loses
    digits.
    """
    n, k = r.size, pull.size
    whole = constant
    for j in range(n):
        whole += r[j] * r[j] * inverse[j]
    if k > 0 and not whole < largest:
        return np.nan
    t = pull.copy()
    for a in range(k):
        total = 0.0
        for j in range(n):
            total += weighted[a, j] * r[j]
        t[a] += total
    for a in range(k):
        v = 0.0
        for b in range(a + 1):
            v += inverse_factor[a, b] * t[b]
        whole -= v * v
    return whole


@cached_kernel(fastmath={"reassoc", "contract"})
def marginalised_at(directions, inverse, width, log_prior_volume):
    """As `MarginalisedTerms.at`: weighted (k, n), the inverse Cholesky factor (k, k), and the log normalisation."""
    k, n = directions.shape
    weighted, factor, found = np.empty((k, n)), np.empty((k, k)), np.zeros((k, k))
    for a in range(k):
        for j in range(n):
            weighted[a, j] = directions[a, j] * inverse[j]
    for a in range(k):
        for b in range(a + 1):
            total = 0.0
            for j in range(n):
                total += weighted[a, j] * directions[b, j]
            if a == b:
                total += 1.0 / width[a] ** 2
            for c in range(b):
                total -= factor[a, c] * factor[b, c]
            factor[a, b] = np.sqrt(total) if a == b else total / factor[b, b]
    log_norm = -log_prior_volume
    for a in range(k):
        log_norm -= np.log(factor[a, a])
        found[a, a] = 1.0 / factor[a, a]
        for b in range(a):
            total = 0.0
            for c in range(b, a):
                total += factor[a, c] * found[c, b]
            found[a, b] = -total / factor[a, a]
    return weighted, found, log_norm


@cached_kernel()
def chi_square_of_signal(signal, data, table, noise, largest):
    """`chi_square` of the `residual` of a signal."""
    return chi_square(residual(signal, data, *table), *noise, largest)


@cached_kernel()
def chi_squares_of_signal(signal, data, starts, table, noise, largest):
    """`chi_square_of_signal` of several spectra, (s,).

    Their channels follow one another: spectrum i has those from ``starts[i]`` to ``starts[i + 1]``. Likewise the
    arrays `weighted` (k, n_i) follow one another in one dimension, because chi-square needs contiguous rows.
    """
    inverse, weighted, inverse_factor, pull, constant = noise
    r = residual(signal, data, *table)
    out, k = np.empty(constant.size), pull.shape[1]
    for i in range(constant.size):
        a, b = starts[i], starts[i + 1]
        own = weighted[k * a : k * b].reshape(k, b - a)
        out[i] = chi_square(r[a:b], inverse[a:b], own, inverse_factor[i], pull[i], constant[i], largest)
    return out
