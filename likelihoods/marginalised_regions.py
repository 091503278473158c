"""Spectral indices of regions, marginalised by Laplace's method.

The foreground of regions is not linear in its spectral indices. But it is so much brighter than the noise that the
indices are known to 10^-3 or better for any given signal, and within that range chi-square is nearly quadratic in them.
So the integral over the indices is that of a Gaussian at the smallest chi-square, with the curvature there.

Chi-square has other minima far away. The search for those that matter is made once, from many points, with the data
and an unknown smooth signal; for each signal, the smallest chi-square is then searched from there.
"""

import functools
import math

import numpy as np
from scipy.optimize import least_squares
from scipy.special import log_ndtr

from lstmfit.errors import InputError
from lstmfit.likelihoods._marginalised_regions_kernel import (
    chi_squares,
    find_mode,
    find_mode_near,
    subtract_power_laws,
)
from lstmfit.likelihoods.gaussian import LN_2PI, GaussianNoise

N_PROPOSED = 64
"""Number of draws from the Gaussian, of which one is chosen by its weight."""
NO_TERMS = np.empty((0, 0, 0))
DEGREE = 8
"""Highest degree of the expansion in the indices."""
NEGLIGIBLE = 1e-5
"""Error of the expansion in units of the noise, over all channels."""
N_STARTS = 60
"""Number of random points from which minima are searched."""
N_SMOOTH, SMOOTH = 16, 500.0
"""An unknown smooth signal: number of Gaussians over the band, and standard deviation of their amplitudes in mK."""
MOST_MINIMA, MATTERS = 5, 50.0
"""Largest number of minima that are kept, and largest difference of chi-square, with a smooth signal, from the best."""
N_CHECKED = 1000
LARGEST_ERROR = 0.5
"""Error of Laplace's method in ln L that is allowed. Most of it is the same for all signals."""
FAR = 9.0
"""Distance from the limits of the prior, in standard deviations, beyond which they do not matter."""


class MarginalisedRegions:
    """Integral of exp(-chi^2 / 2) over spectral indices with a uniform prior, by Laplace's method.

    Chi-square is minimised for each residual. Its Hessian there includes the second derivatives of the model, because
    the best and the worst known combinations of indices differ by a factor of a thousand or more.

    Parameters
    ----------
    weights : sequence of numpy.ndarray
        For each spectrum (n_regions, n), the temperature of each region at the reference frequency in the transformed
        basis of its residuals.
    log_frequencies : sequence of numpy.ndarray
        For each spectrum (n,), ln(nu / nu_c).
    roots : sequence of numpy.ndarray
        For each spectrum (n,), factors that transform a signal in mK to that basis.
    positions : sequence of numpy.ndarray
        For each spectrum (n_regions,), which of the k indices its regions have.
    limits : numpy.ndarray
        (2, k) lower and upper limits of the prior.
    data, inverse : numpy.ndarray
        (n_all,) residual without a signal, and inverse variances.
    scale_is_free : bool
        Whether the inverse variances are only known up to a factor.

    Attributes
    ----------
    size : int
        Number of indices.
    inverse : numpy.ndarray
        As given.

    Raises
    ------
    InputError
        The indices cannot be told apart with these data, or chi-square is not quadratic enough in them.
    """

    def __init__(self, weights, log_frequencies, roots, positions, limits, data, inverse, scale_is_free):
        sizes = [w.shape[1] for w in weights]
        ends = np.cumsum([0, *sizes])
        rows = [len(w) for w in weights]
        padded = np.zeros((sum(rows), max(sizes)))
        starts = np.cumsum([0, *rows])
        for w, at in zip(weights, starts):
            padded[at : at + len(w), : w.shape[1]] = w
        self._sky = (
            padded, np.concatenate(log_frequencies), np.concatenate(positions).astype(np.int64),
            np.repeat(ends[:-1], rows), np.repeat(ends[1:], rows), starts,
        )  # fmt: skip
        self._low, self._high = limits
        self.size, self.inverse = len(self._low), inverse
        self._log_volume = float(np.log(self._high - self._low).sum())
        # The same points always, so that ln L does not depend on when the problem was built.
        minima = self._minima(data, np.random.default_rng(0))
        chi2, self._starts = self._with_smooth_signal(minima, data, np.concatenate(roots))
        if not math.isfinite(chi2):
            raise self._refuse("they cannot be told apart")
        self._expansions = [self._expand(start, np.sqrt(inverse)) for start in self._starts]
        self._check(inverse * len(data) / chi2 if scale_is_free else inverse)

    def _minima(self, data, rng):
        """Different indices (m, k) at which chi-square of the data without a signal has a minimum."""
        found: list = []
        starts = np.vstack([0.5 * (self._low + self._high), rng.uniform(self._low, self._high, (N_STARTS, self.size))])
        for start in starts:
            chi2, mode, _ = find_mode(start, data, self.inverse, self._sky, NO_TERMS)
            if math.isfinite(chi2) and not any(abs(chi2 - other) < 1.0 for other, _ in found):
                found.append((chi2, mode))
        return [mode for _, mode in sorted(found, key=lambda pair: pair[0])]

    def _with_smooth_signal(self, minima, data, roots):
        """Smallest chi-square with an unknown smooth signal, and the indices at its minima that may matter."""
        x, root = np.exp(self._sky[1]), np.sqrt(self.inverse)
        centres, step = np.linspace(x.min(), x.max(), N_SMOOTH, retstep=True)
        signals = SMOOTH * np.exp(-0.5 * ((x[:, None] - centres) / step) ** 2)
        directions, widths, _ = np.linalg.svd((root * roots)[:, None] * signals, full_matrices=False)
        # What the prior of the signal leaves of the residuals in these directions.
        change = 1.0 - 1.0 / np.sqrt(1.0 + widths**2)

        def without_signal(r):
            return r - directions @ ((change * (directions.T @ r).T).T)

        def residual(betas):
            return without_signal(root * (data - self._power_laws(betas)[1]))

        def slopes(betas):
            return without_signal(((root * self._sky[1]) * self._power_laws(betas)[0]).T)

        found: list = []
        for start in minima:
            # A step may lead to infinite temperatures.
            with np.errstate(over="ignore", invalid="ignore"):
                best = least_squares(residual, start, slopes, method="lm", x_scale=1e-3)
            if math.isfinite(best.cost) and not any(abs(2.0 * best.cost - chi2) < 1.0 for chi2, _ in found):
                found.append((2.0 * best.cost, best.x))
        found = sorted(found, key=lambda pair: pair[0])[:MOST_MINIMA]
        if not found:
            return math.nan, []
        return found[0][0], [betas for chi2, betas in found if chi2 < found[0][0] + MATTERS]

    def _check(self, inverse):
        """Check Laplace's method by importance sampling, for data that the model fits exactly."""
        _, data = self._power_laws(np.clip(self._starts[0], self._low, self._high))
        error, _ = self.error(data, inverse, N_CHECKED, np.random.default_rng(0))
        if not abs(error) < LARGEST_ERROR:
            raise self._refuse(
                f"it would be off by {abs(error):.2g} in ln L, but at most {LARGEST_ERROR:g} is allowed"
                if math.isfinite(error)
                else "they cannot be told apart"
            )

    def _refuse(self, reason):
        return InputError(
            f"foreground: {self.size} spectral indices cannot be marginalised by Laplace's method with "
            f"{len(self._sky[1])} channels ({reason}); use more spectra with shared indices or fewer regions, or set "
            "marginalise: false"
        )

    def known(self, inverse: np.ndarray) -> np.ndarray:
        """The array `inverse` of this object if it has the same values, for which `log_integral` is fast."""
        return self.inverse if np.array_equal(inverse, self.inverse) else inverse

    def _expand(self, start, root):
        """Radius of an expansion of the foreground about a point, and arguments of `find_mode_near`.

        Its variables are the changes of the indices in units of the radius, within which it is accurate. The terms of
        all degrees span a few tens of dimensions, in which a step of Newton's method costs as much as one of its
        exponentials in all channels.
        """
        laws, constant = self._power_laws(start)
        terms = [root * laws * -self._sky[1]]
        for degree in range(2, DEGREE + 2):
            terms.append(terms[-1] * -self._sky[1] / degree)
        # The first term that is left out must not matter, in units of the noise.
        largest = np.sqrt((terms.pop() ** 2).sum(axis=1)).max()
        radius = (NEGLIGIBLE / largest) ** (1.0 / (DEGREE + 1))
        scaled = np.array([term * radius ** (d + 1) for d, term in enumerate(terms)])
        columns = scaled.reshape(-1, len(root)).T
        directions, singular, _ = np.linalg.svd(columns, full_matrices=False)
        projection = np.ascontiguousarray(directions[:, singular > NEGLIGIBLE].T)
        return radius, (constant, root, projection, np.ascontiguousarray(scaled @ projection.T))

    def _power_laws(self, betas):
        """Power law of each index in all channels (k, n), and their sum (n,)."""
        _, _, region, first, last, _ = self._sky
        laws = np.zeros((self.size, last[-1]))
        negative = np.zeros(last[-1])
        for law, i, a, b in zip(subtract_power_laws(betas, self._sky, negative), region, first, last):
            laws[i, a:b] += law[: b - a]
        return laws, -negative

    def _find_mode(self, residual, inverse):
        """Smallest chi-square, its indices (k,), and the inverse Cholesky factor (k, k) of half of its Hessian."""
        found = None
        for start, (radius, expansion) in zip(self._starts, self._expansions):
            one = self._find_mode_from(start, radius, expansion, residual, inverse)
            # A NaN is not smaller.
            if found is None or one[0] < found[0]:
                found = one
        return found

    def _find_mode_from(self, start, radius, expansion, residual, inverse):
        if inverse is self.inverse:
            chi2, change, factor = find_mode_near(*expansion, residual, self._sky)
            if np.abs(change).max() < 1.0:
                return chi2, start + radius * change, radius * factor
        return find_mode(start, residual, inverse, self._sky, NO_TERMS)

    def log_integral(self, residual: np.ndarray, inverse: np.ndarray) -> float:
        """Ln of the mean of exp(-chi^2 / 2) over the prior.

        Parameters
        ----------
        residual : numpy.ndarray
            (n,) data minus everything but the regions, in the transformed basis; not modified.
        inverse : numpy.ndarray
            (n,) inverse variances; much faster if it is the array `inverse` of this object, see `known`.
        """
        chi2, mode, inverse_factor = self._find_mode(residual, inverse)
        if not math.isfinite(chi2):
            return -math.inf
        # The diagonal of the inverse Cholesky factor gives the root of the determinant.
        log_width = float(np.log(inverse_factor.diagonal()).sum()) + 0.5 * self.size * LN_2PI
        return -0.5 * chi2 + log_width - self._log_volume + self._log_inside(mode, inverse_factor)

    def _log_inside(self, mode, inverse_factor):
        """Ln of the fraction of the Gaussian within the limits, as if each index had a limit of its own."""
        sigma = np.sqrt((inverse_factor**2).sum(axis=0))
        below, above = (mode - self._low) / sigma, (self._high - mode) / sigma
        near = np.minimum(below, above)
        if near.min() > FAR:
            return 0.0
        one, other = log_ndtr(near), log_ndtr(-np.maximum(below, above))
        return float((one + np.log1p(-np.exp(np.minimum(other - one, 0.0)))).sum())

    def linearised(self, residual, inverse):
        """-chi^2 / 2 with the foreground linear about its best indices for a residual, and minimised over them.

        Returns
        -------
        callable
            Residual (n,) -> value, which is quadratic in the residual.
        """
        _, mode, _ = self._find_mode(residual, inverse)
        laws, foreground = self._power_laws(mode)
        root = np.sqrt(inverse)
        directions, _ = np.linalg.qr((root * self._sky[1] * laws).T)

        def value(r):
            z = root * (r - foreground)
            along = directions.T @ z
            return -0.5 * float(z @ z - along @ along)

        return value

    def error(self, residual, inverse, n: int, rng: np.random.Generator) -> tuple[float, float]:
        """Error of `log_integral` by importance sampling from the Gaussian.

        Parameters
        ----------
        residual, inverse
            As for `log_integral`.
        n : int
            Number of points.
        rng : numpy.random.Generator
            Their generator.

        Returns
        -------
        error : float
            Exact minus approximate value; NaN if no point is within the prior.
        efficiency : float
            Effective fraction of the points, one if the posterior is the Gaussian.
        """
        # Without a mode everything is NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            mode, inverse_factor, _, log_weight = self._propose(residual, inverse, n, rng)
            largest = log_weight.max()
            weight = np.exp(log_weight - largest)
            error = largest + np.log(weight.mean()) - self._log_inside(mode, inverse_factor)
            return float(error), float(weight.mean() ** 2 / np.mean(weight**2))

    def coefficients(
        self, residual: np.ndarray, inverse: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Spectral indices (k,) given a residual: those of the smallest chi-square, or a random draw.

        A draw is one of many from the Gaussian, chosen with the ratio of posterior to Gaussian as its weight.
        """
        if rng is None:
            return self._find_mode(residual, inverse)[1]
        mode, _, proposed, log_weight = self._propose(residual, inverse, N_PROPOSED, rng)
        if log_weight.max() == -np.inf:
            return np.clip(mode, self._low, self._high)
        weight = np.exp(log_weight - log_weight.max())
        return proposed[rng.choice(N_PROPOSED, p=weight / weight.sum())]

    def _propose(self, residual, inverse, n, rng):
        """Mode (k,), inverse Cholesky factor (k, k), n draws from the Gaussian (n, k), and their log weights (n,).

        The weight is the ratio of the posterior to the Gaussian, which is one at the mode.
        """
        chi2, mode, inverse_factor = self._find_mode(residual, inverse)
        z = rng.standard_normal((n, self.size))
        proposed = mode + z @ inverse_factor
        change = chi_squares(proposed, residual, inverse, self._sky) - chi2
        inside = ((proposed >= self._low) & (proposed <= self._high)).all(axis=1)
        return mode, inverse_factor, proposed, np.where(inside, 0.5 * ((z**2).sum(axis=1) - change), -np.inf)


class NoiseWithRegions(GaussianNoise):
    """Gaussian noise in independent channels plus a foreground of regions whose spectral indices are marginalised.

    Parameters
    ----------
    weight, variance : numpy.ndarray
        (n,) as for `GaussianNoise`; `variance` may be None.
    component : Component
        The foreground.
    data : numpy.ndarray
        (n,) mK, data without the part of the foreground that has no index.
    sigma : float or None
        Noise of a channel of weight one [mK]; None if it is free.

    Attributes
    ----------
    weights, log_frequency, root : numpy.ndarray
        (n_regions, n) temperature of each region at the reference frequency in the transformed basis, (n,) ln(nu /
        nu_c), and (n,) square roots of the weights.

    Raises
    ------
    InputError
        As `GaussianNoise`; `regions` as `MarginalisedRegions`.
    """

    def __init__(self, weight, variance, component, data, sigma: float | None):
        super().__init__(weight, variance)
        weights, self.log_frequency = component.regions
        self.root = np.sqrt(np.asarray(weight, dtype=float))
        self.weights = np.ascontiguousarray(self.whiten(weights.T).T)
        self._problem = component.limits, self.whiten(data), sigma

    @functools.cached_property
    def regions(self) -> MarginalisedRegions:
        """The foreground in the transformed basis; only computed if the spectrum shares no indices with others."""
        limits, data, sigma = self._problem
        # The mode does not depend on the scale of a free sigma.
        inverse, _ = self.inverse_at(1.0 if sigma is None else sigma)
        return MarginalisedRegions(
            [self.weights], [self.log_frequency], [self.root], [np.arange(len(self.weights))], limits, data, inverse,
            sigma is None,
        )  # fmt: skip

    def inverse_at(self, sigma: float) -> tuple[np.ndarray, float]:
        """As `noise_at`, with an inverse variance (n,) of every channel."""
        inverse, norm = self.noise_at(sigma)
        return np.full(self.n, inverse), norm

    def _at(self, sigma):
        inverse, norm = self.inverse_at(sigma)
        kept = sigma, self.regions.known(inverse), norm
        self._kept = kept
        return kept

    def logpdf_whitened(self, r: np.ndarray, sigma: float) -> float:
        """As `GaussianNoise.logpdf_whitened`."""
        kept = self._kept
        if sigma != kept[0]:
            kept = self._at(sigma)
        _, inverse, norm = kept
        return norm if norm == -math.inf else norm + self.regions.log_integral(r, inverse)

    def logpdf_whitened_batch(self, r: np.ndarray, sigma) -> np.ndarray:
        """As `GaussianNoise.logpdf_whitened_batch`."""
        sigmas = np.broadcast_to(sigma, (len(r),)).tolist()
        return np.array([self.logpdf_whitened(row, s) for row, s in zip(r, sigmas)])

    def linearised(self, residual: np.ndarray, sigma: float):
        """`MarginalisedRegions.linearised` for a residual (n,) in the transformed basis."""
        _, inverse, _ = self._at(sigma)
        return self.regions.linearised(residual, inverse)

    def coefficients(self, residual: np.ndarray, sigma: float, rng: np.random.Generator | None = None) -> np.ndarray:
        """Spectral indices (k,) as from `MarginalisedRegions.coefficients`."""
        _, inverse, _ = self._at(sigma)
        return self.regions.coefficients(self.whiten(residual), inverse, rng)
