"""Fast evaluation of spectra that are interpolated from the grid of the signal, by compiled code.

The interpolation is the cubic spline of `lstmfit.likelihoods.interpolation` (`scipy.interpolate.CubicSpline`). As a
matrix it costs n times n_channels operations, more than everything else in the likelihood. Here the second derivatives
at the nodes solve a tridiagonal system that is factorised in advance, and a channel takes two values and two of them.
"""

import numpy as np

from lstmfit.constants import frequency_to_redshift
from lstmfit.likelihoods._spectrum_kernel import chi_square_of_signal, marginalised_at, residual
from lstmfit.likelihoods.gaussian import LARGEST_DIFFERENCE, GaussianNoise

MARGIN = 64
"""Nodes beyond the channels that are taken into account. The influence of a node falls by at least 2 per node (by 3.7
on a uniform grid), so that those further away are below the rounding error."""
FEWEST = 8
"""Smallest grid for which this is done."""


def spline_table(redshifts: np.ndarray, frequency: np.ndarray, factor: np.ndarray) -> tuple:
    """Factorised spline on the part of the grid that matters for some channels.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    frequency : numpy.ndarray
        (n,) MHz.
    factor : numpy.ndarray
        (n,) factors of the interpolated signal.

    Returns
    -------
    tuple
        nodes (5, m), ends (2, 2), channels (4, n), knot (n,), first: arguments of the compiled functions.
    """
    z = np.clip(frequency_to_redshift(frequency), redshifts[0], redshifts[-1])
    at = np.clip(np.searchsorted(redshifts, z, side="right") - 1, 0, len(redshifts) - 2)
    first, last = max(int(at.min()) - MARGIN, 0), min(int(at.max()) + 1 + MARGIN, len(redshifts) - 1)
    if last - first < FEWEST:
        first, last = 0, len(redshifts) - 1
    x = redshifts[first : last + 1]
    h = np.diff(x)
    lower, diagonal, upper = h[:-1].copy(), 2.0 * (h[:-1] + h[1:]), h[1:].copy()
    ends = np.zeros((2, 2))
    # Not-a-knot at the ends of the grid: the second derivative is linear over the first two steps. Elsewhere it is zero
    # at the outermost node, which has no effect on the channels.
    if first == 0:
        step = h[0] / h[1]
        ends[0] = 1.0 + step, -step
        diagonal[0] += lower[0] * ends[0, 0]
        upper[0] += lower[0] * ends[0, 1]
    if last == len(redshifts) - 1:
        step = h[-1] / h[-2]
        ends[1] = 1.0 + step, -step
        diagonal[-1] += upper[-1] * ends[1, 0]
        lower[-1] += upper[-1] * ends[1, 1]
    m = len(diagonal)
    nodes = np.zeros((5, m))
    pivot, reduced = np.empty(m), np.zeros(m)
    for i in range(m):
        pivot[i] = diagonal[i] - (lower[i] * reduced[i - 1] if i else 0.0)
        reduced[i] = upper[i] / pivot[i]
    nodes[0, 1:], nodes[1] = lower[1:] / pivot[1:], reduced
    nodes[2:] = 6.0 / h[:-1] / pivot, -6.0 * (1.0 / h[:-1] + 1.0 / h[1:]) / pivot, 6.0 / h[1:] / pivot
    knot = at - first
    step = h[knot]
    b = (z - x[knot]) / step
    a = 1.0 - b
    square = step**2 / 6.0
    channels = factor * np.array([a, b, (a**3 - a) * square, (b**3 - b) * square])
    return nodes, ends, np.ascontiguousarray(channels), knot.astype(np.int64), first


class CompiledSpectrum:
    """Residual and ln L of a spectrum with independent Gaussian noise.

    Parameters
    ----------
    density : GaussianNoise
        Density of the residuals, whose E is diagonal.
    redshifts, frequency : numpy.ndarray
        (n_channels,) grid of the signal; (n,) MHz.
    root : numpy.ndarray
        (n,) factors of `GaussianNoise.whiten`.
    """

    def __init__(self, density: GaussianNoise, redshifts, frequency, root):
        self._density, self._table = density, spline_table(redshifts, frequency, root)
        self._kept: tuple = (None, None, 0.0)

    def residual(self, signal: np.ndarray, data: np.ndarray) -> np.ndarray:
        """Data minus signal in the basis of the density, (n,); a new array."""
        return residual(signal, data, *self._table)

    def loglikelihood(self, signal: np.ndarray, data: np.ndarray, sigma: float) -> float:
        """Ln L of the data (n,) in the basis of the density; NaN where `GaussianNoise.logpdf_whitened` must be used."""
        noise, norm = self.noise_at(sigma)
        if noise is None:
            return norm
        return norm - 0.5 * chi_square_of_signal(signal, data, self._table, noise, LARGEST_DIFFERENCE)

    def noise_at(self, sigma: float) -> tuple:
        """Arguments of `chi_square` that depend on the noise, and the log normalisation; None, -inf for no density."""
        kept = self._kept
        return kept[1:] if sigma == kept[0] else self._at(sigma)

    def _at(self, sigma):
        inverse, norm = self._density.noise_at(sigma)
        if norm == -np.inf:
            return None, norm
        if np.ndim(inverse) == 0:
            inverse = np.full(self._density.n, inverse)
        terms = self._density.terms
        if terms is None:
            noise = (inverse, np.empty((0, len(inverse))), np.empty((0, 0)), np.empty(0), 0.0)
        else:
            found = marginalised_at(terms.directions, inverse, terms.width, terms.log_prior_volume)
            weighted, inverse_factor, change = found
            noise, norm = (inverse, weighted, inverse_factor, terms.pull, terms.constant), norm + change
        # A single assignment, so that threads with different sigma do not mix.
        self._kept = sigma, noise, norm
        return noise, norm
