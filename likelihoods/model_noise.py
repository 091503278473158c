"""Radiometer noise of the sky of the model instead of that of the data, so that noise is not learnt from noise.

The variance of a channel is ``sigma^2 / weight + T^2 / (dnu tau weight) + e`` with T the sky of the model at the given
parameters and e the emulator error, and the determinant of the covariance changes with it. If a linear foreground is
marginalised, T has its coefficients at their conditional mean under the noise of the data.
"""

import math

import numpy as np

from lstmfit.likelihoods.gaussian import LARGEST_DIFFERENCE, LN_2PI, GaussianNoise


class ModelNoise:
    """Density of the residual of a spectrum whose noise is that of its own model.

    Parameters
    ----------
    density : GaussianNoise
        Density with the noise of the data, whose E is diagonal.
    temperature, weight : numpy.ndarray
        (n,) data in mK, and their weights.
    samples : float
        Number dnu tau of independent samples in a channel of weight one.
    error : numpy.ndarray, optional
        (n,) mK^2, variances in addition to the noise.

    Attributes
    ----------
    density : GaussianNoise
        As given.
    whole, scale : numpy.ndarray
        (n,) data in the basis of the density, and the noise there in units of the sky there.
    rest : numpy.ndarray
        (n,) mK^2, the further variances in the basis of the density.
    """

    def __init__(self, density: GaussianNoise, temperature, weight, samples: float, error: np.ndarray | None = None):
        self.density = density
        self.whole = density.whiten(np.asarray(temperature, dtype=float))
        self.scale = 1.0 / np.sqrt(samples * weight)
        self.rest = np.zeros(density.n) if error is None else weight * error
        self._kept: tuple = (math.nan, None)

    def remainder(self, r: np.ndarray, sigma: float) -> np.ndarray:
        """Residual r (n,) minus the marginalised terms at their conditional mean under the noise of the data."""
        from lstmfit.likelihoods._model_noise_kernel import without_fitted_terms

        terms = self.density.terms
        return r if terms is None else without_fitted_terms(r, terms.directions, *self._first(sigma), terms.pull)

    def variance(self, left: np.ndarray) -> np.ndarray | None:
        """Variances (n,) without sigma in the basis of the density; None if the sky is not positive in a channel.

        Parameters
        ----------
        left : numpy.ndarray
            (n,) data minus the sky of the model in that basis.
        """
        sky = self.whole - left
        return None if (sky <= 0).any() else self.rest + (self.scale * sky) ** 2

    def logpdf(self, r: np.ndarray, sigma: float, further: np.ndarray | float = 0.0) -> float:
        """Log density of a residual (n,) in the basis of the density.

        Parameters
        ----------
        r : numpy.ndarray
            (n,); not modified.
        sigma : float
            Noise of a channel of weight one in addition to that of the sky, mK.
        further : numpy.ndarray or float
            Further variance (n,) in that basis.
        """
        from lstmfit.likelihoods._model_noise_kernel import with_terms, without_terms

        if math.isnan(sigma):
            return -math.inf
        terms, constant = self.density.terms, sigma * sigma + self.rest + further
        if terms is None:
            logs, chi2 = without_terms(r, constant, self.whole, self.scale)
        else:
            prior = terms.directions, terms.width, terms.log_prior_volume, terms.pull, terms.constant
            logs, chi2 = with_terms(
                r, constant, self.whole, self.scale, *prior, self._first(sigma), LARGEST_DIFFERENCE
            )
        value = -0.5 * (self.density.n * LN_2PI + logs + chi2) + self.density.log_jacobian
        return value if value == value else self._far(r, sigma)

    def _far(self, r, sigma):
        """`logpdf` where the compiled function gives NaN, because digits would be lost or r is not finite."""
        total = float(r.sum())
        if not math.isfinite(total) or self.density.terms is None:
            # An infinite sky is infinitely noisy.
            return math.nan if math.isnan(total) else -math.inf
        variance = self.variance(self.remainder(r, sigma))
        return -math.inf if variance is None else self.density.with_extra(variance).logpdf_whitened(r, sigma)

    def _first(self, sigma):
        """Weighted terms and inverse factor under the noise of the data; cached until sigma changes."""
        kept = self._kept
        if sigma != kept[0]:
            from lstmfit.likelihoods._spectrum_kernel import marginalised_at

            terms, (inverse, _) = self.density.terms, self.density.noise_at(sigma)
            weighted, inverse_factor, _ = marginalised_at(
                terms.directions, inverse, terms.width, terms.log_prior_volume
            )
            # A single assignment, so that threads with different sigma do not mix.
            self._kept = kept = sigma, (weighted, inverse_factor)
        return kept[1]
