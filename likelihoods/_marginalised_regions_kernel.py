"""Compiled mode and curvature of chi-square in the spectral indices of regions.

A sky is a tuple (weights, log_frequency, region, first, last, spectra). Each row is a region that is seen in a
spectrum: row i has the weights ``weights[i, : last[i] - first[i]]`` in the channels from ``first[i]`` to ``last[i]`` of
all spectra one after another, and the spectral index number ``region[i]``. The rows of spectrum s are those from
``spectra[s]`` to ``spectra[s + 1]``.
"""

import numpy as np

from lstmfit.kernels import cached_kernel
from lstmfit.likelihoods._regions_kernel import exp

LARGEST_STEPS = 200
LEAST_DAMPING = 1e-9
CONVERGED = 1e-5
"""Largest change of chi-square that the next step of Newton's method may predict."""


@cached_kernel(fastmath={"contract"})
def subtract_power_laws(betas, sky, out):
    """Subtract the power laws from a residual (n,) in place; return each of them (n_rows, longest)."""
    weights, log_frequency, region, first, last, _ = sky
    laws = np.empty_like(weights)
    for i in range(region.size):
        index = betas[region[i]]
        for j in range(last[i] - first[i]):
            at = first[i] + j
            law = weights[i, j] * exp(-index * log_frequency[at])
            laws[i, j] = law
            out[at] -= law
    return laws


@cached_kernel(fastmath={"reassoc", "contract"})
def chi_square_of(r, inverse):
    """Weighted sum of squares of a residual (n,)."""
    total = 0.0
    for j in range(r.size):
        total += r[j] * r[j] * inverse[j]
    return total


@cached_kernel(fastmath={"reassoc", "contract"})
def _derivatives_of_sky(betas, residual, inverse, sky):
    """As `_derivatives`, of the exact model."""
    _, log_frequency, region, first, last, spectra = sky
    k = betas.size
    r = residual.copy()
    laws = subtract_power_laws(betas, sky, r)
    gradient, matrix, curvature = np.zeros(k), np.zeros((k, k)), np.zeros(k)
    slopes = np.empty_like(laws)
    for i in range(region.size):
        down = bend = 0.0
        for j in range(last[i] - first[i]):
            at = first[i] + j
            slope = -log_frequency[at] * laws[i, j]
            slopes[i, j] = slope
            weighted = inverse[at] * r[at] * slope
            down += weighted
            bend += weighted * log_frequency[at]
        gradient[region[i]] += down
        # The second derivative of a power law by its index is -ln(nu / nu_c) times the first.
        curvature[region[i]] += bend
    weighted = np.empty(slopes.shape[1])
    for s in range(spectra.size - 1):
        for i in range(spectra[s], spectra[s + 1]):
            n = last[i] - first[i]
            for j in range(n):
                weighted[j] = inverse[first[i] + j] * slopes[i, j]
            for m in range(spectra[s], i + 1):
                total = 0.0
                for j in range(n):
                    total += weighted[j] * slopes[m, j]
                a, b = region[i], region[m]
                matrix[a, b] += total
                if a != b:
                    matrix[b, a] += total
    return chi_square_of(r, inverse), gradient, matrix, curvature


@cached_kernel(fastmath={"reassoc", "contract"})
def _derivatives_of_polynomial(x, residual, terms):
    """As `_derivatives`, of the expanded model; all inverse variances are one."""
    degree, k, n = terms.shape
    r = residual.copy()
    gradient, matrix, curvature = np.zeros(k), np.zeros((k, k)), np.zeros(k)
    slopes, bends, value = np.zeros((k, n)), np.zeros((k, n)), np.zeros(n)
    for i in range(k):
        for j in range(n):
            value[j] = terms[degree - 1, i, j]
        for d in range(degree - 2, -2, -1):
            # Horner's scheme for the polynomial, its first derivative and half of its second; degree 0 is zero.
            for j in range(n):
                bends[i, j] = bends[i, j] * x[i] + slopes[i, j]
                slopes[i, j] = slopes[i, j] * x[i] + value[j]
                value[j] = value[j] * x[i] + (terms[d, i, j] if d >= 0 else 0.0)
        for j in range(n):
            r[j] -= value[j]
    for i in range(k):
        for j in range(n):
            gradient[i] += slopes[i, j] * r[j]
            curvature[i] -= 2.0 * bends[i, j] * r[j]
        for m in range(i + 1):
            total = 0.0
            for j in range(n):
                total += slopes[i, j] * slopes[m, j]
            matrix[i, m] = matrix[m, i] = total
    total = 0.0
    for j in range(n):
        total += r[j] * r[j]
    return total, gradient, matrix, curvature


@cached_kernel()
def _derivatives(x, residual, inverse, sky, terms):
    """Chi-square and its derivatives.

    These are half of the negative gradient (k,), Gauss-Newton's matrix (k, k), and what the residual adds to its
    diagonal (k,) for half of the Hessian.
    """
    if terms.size > 0:
        return _derivatives_of_polynomial(x, residual, terms)
    return _derivatives_of_sky(x, residual, inverse, sky)


@cached_kernel()
def _factorise(matrix, diagonal, damping):
    """Inverse Cholesky factor (k, k) of matrix + diag(diagonal), its diagonal enlarged by a factor, and success."""
    k = matrix.shape[0]
    factor, inverse = np.zeros((k, k)), np.zeros((k, k))
    for a in range(k):
        for b in range(a + 1):
            total = matrix[a, b]
            if a == b:
                total = (total + diagonal[a]) * (1.0 + damping)
            for c in range(b):
                total -= factor[a, c] * factor[b, c]
            if a == b:
                # A tiny pivot is a rounding error.
                if not total > 1e-13 * matrix[a, a]:
                    return inverse, False
                factor[a, a] = np.sqrt(total)
            else:
                factor[a, b] = total / factor[b, b]
    for a in range(k):
        inverse[a, a] = 1.0 / factor[a, a]
        for b in range(a):
            total = 0.0
            for c in range(b, a):
                total += factor[a, c] * inverse[c, b]
            inverse[a, b] = -total / factor[a, a]
    return inverse, True


@cached_kernel()
def find_mode(start, residual, inverse, sky, terms):
    """Smallest chi-square over the indices, by Newton's method with the damping of Levenberg and Marquardt.

    Parameters
    ----------
    start : numpy.ndarray
        (k,) indices, or the variables of the expansion.
    residual, inverse : numpy.ndarray
        (n,) data minus everything else, and inverse variances.
    sky : tuple
        As described above.
    terms : numpy.ndarray
        (degree, k, n) coefficients of an expansion of the model, used instead of the sky if it is not empty: n
        numbers with variances of one, for the degrees from one.

    Returns
    -------
    chi2 : float
        NaN if the indices cannot be told apart.
    mode : numpy.ndarray
        (k,).
    inverse_factor : numpy.ndarray
        (k, k) inverse Cholesky factor of half of the Hessian of chi-square there, or of Gauss-Newton's matrix where the
        Hessian is not positive definite.
    """
    nothing, damping, mode = np.zeros(start.size), 0.0, start.copy()
    chi2, gradient, matrix, curvature = _derivatives(mode, residual, inverse, sky, terms)
    for _ in range(LARGEST_STEPS):
        factor, newton = _factorise(matrix, curvature, 0.0)
        good = newton
        if not newton or damping > 0.0:
            factor, good = _factorise(matrix, nothing, damping)
        if not good:
            damping = max(LEAST_DAMPING, 10.0 * damping)
            continue
        v = factor @ gradient
        step, drop = v @ factor, v @ v
        if newton and damping == 0.0 and drop < CONVERGED:
            return chi2 - drop, mode + step, factor
        there = mode + step
        new = _derivatives(there, residual, inverse, sky, terms)
        if new[0] <= chi2:
            mode = there
            chi2, gradient, matrix, curvature = new
            damping = 0.0 if damping <= LEAST_DAMPING else 0.1 * damping
        else:
            damping = max(LEAST_DAMPING, 10.0 * damping)
    factor, good = _factorise(matrix, curvature, 0.0)
    if not good:
        factor, good = _factorise(matrix, nothing, 0.0)
    return chi2 if good else np.nan, mode, factor


@cached_kernel()
def find_mode_near(laws, root, projection, terms, residual, sky):
    """`find_mode` for the expansion about a point, of a residual (n_all,).

    Parameters
    ----------
    laws : numpy.ndarray
        (n_all,) sum of the power laws there.
    root : numpy.ndarray
        (n_all,) square roots of the inverse variances.
    projection : numpy.ndarray
        (n, n_all) orthonormal rows, which span the terms.
    """
    whole, r = 0.0, np.empty_like(residual)
    for j in range(r.size):
        r[j] = root[j] * (residual[j] - laws[j])
        whole += r[j] * r[j]
    seen = projection @ r
    # Chi-square of what the foreground cannot change.
    rest = whole - seen @ seen
    chi2, mode, factor = find_mode(np.zeros(terms.shape[1]), seen, seen, sky, terms)
    return chi2 + rest, mode, factor


@cached_kernel()
def chi_squares(betas, residual, inverse, sky):
    """Chi-square (m,) for many sets of indices (m, k)."""
    out, r = np.empty(betas.shape[0]), np.empty_like(residual)
    for i in range(betas.shape[0]):
        r[:] = residual
        subtract_power_laws(betas[i], sky, r)
        out[i] = chi_square_of(r, inverse)
    return out
