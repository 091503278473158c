"""Radiometer noise of the sky of the model instead of that of the data, so that noise is not learnt from noise.

The variance of a channel is ``sigma^2 / weight + T^2 / (dnu tau weight) + e`` with T the sky of the model at the given
parameters and e the emulator error, and the determinant of the covariance changes with it. If a linear foreground is
marginalised, T has its coefficients at their conditional mean under the noise of the data.
"""

import math

import numpy as np

from lstmfit.likelihoods.gaussian import LARGEST_DIFFERENCE, LN_2PI, GaussianNoise, MarginalisedTerms


class ModelNoise:
    """Density of residuals whose noise is that of their own model.

    Everything is in the basis of `lstmfit.likelihoods.gaussian.GaussianNoise`, in which channels are independent.

    Parameters
    ----------
    whole : numpy.ndarray
        (n,) data, from which a residual differs by the sky of the model.
    scale : numpy.ndarray
        (n,) noise as a fraction of the sky, 1 / sqrt(dnu tau weight); zero for a channel with another noise.
    rest : numpy.ndarray
        (n,) mK^2, further variances without sigma^2.
    extra : numpy.ndarray
        (n,) mK^2, all variances without sigma^2, but with the noise of the data.
    terms : MarginalisedTerms or None
        Marginalised terms.
    log_jacobian : float
        Log determinant of the transformation to this basis.
    sizes : tuple of int, optional
        Numbers of channels of several spectra with a sigma each.
    """

    def __init__(self, whole, scale, rest, extra, terms: MarginalisedTerms | None, log_jacobian: float, sizes=None):
        self.whole, self.scale, self.rest, self.extra = whole, scale, rest, extra
        self._terms, self._log_jacobian, self._sizes = terms, log_jacobian, sizes
        self._kept: tuple = (None, None, None)

    @classmethod
    def of(
        cls, density: GaussianNoise, temperature, weight, samples: float, error: np.ndarray | None = None
    ) -> "ModelNoise":
        """Noise of a spectrum.

        Parameters
        ----------
        density : GaussianNoise
            Density with the noise of the data, whose E is diagonal.
        temperature, weight : numpy.ndarray
            (n,) data in mK, and their weights.
        samples : float
            Number dnu tau of independent samples in a channel of weight one.
        error : numpy.ndarray, optional
            (n,) mK^2, emulator error.
        """
        rest = np.zeros(density.n) if error is None else weight * error
        whole, scale = density.whiten(np.asarray(temperature, dtype=float)), 1.0 / np.sqrt(samples * weight)
        return cls(whole, scale, rest, density.extra, density.terms, density.log_jacobian)

    @classmethod
    def joined(cls, members, terms: MarginalisedTerms) -> "ModelNoise":
        """Noise of all channels of several spectra with common terms.

        Parameters
        ----------
        members : list of (GaussianNoise, ModelNoise or None)
            Density of each spectrum, and its noise if that is of the model.
        terms : MarginalisedTerms
            Terms of all channels.
        """
        parts = []
        for density, noise in members:
            extra = np.broadcast_to(density.extra, (density.n,))
            # Any positive sky, if the noise does not depend on it.
            fixed = np.full(density.n, 1e300), np.zeros(density.n), extra
            parts.append((*(fixed if noise is None else (noise.whole, noise.scale, noise.rest)), extra))
        arrays = [np.concatenate(own) for own in zip(*parts)]
        jacobian = sum(density.log_jacobian for density, _ in members)
        return cls(*arrays, terms, jacobian, tuple(density.n for density, _ in members))

    def variance(self, r: np.ndarray, sigma) -> np.ndarray | None:
        """Variances (n,) without sigma^2 at a residual r (n,); None if the sky is not positive and finite in a channel.

        `sigma` is a number in mK, or one for each of several spectra.
        """
        sky = self.whole - self.remainder(r, sigma)
        return self.rest + (self.scale * sky) ** 2 if ((sky > 0) & (sky < np.inf)).all() else None

    def remainder(self, r: np.ndarray, sigma) -> np.ndarray:
        """Residual r (n,) minus the marginalised terms at their conditional mean under the noise of the data."""
        from lstmfit.likelihoods._model_noise_kernel import without_fitted_terms

        first = self._at(sigma)[2]
        return r if first is None else without_fitted_terms(r, self._terms.directions, *first, self._terms.pull)

    def logpdf(self, r: np.ndarray, sigma, further: np.ndarray | float = 0.0) -> float:
        """Log density of a residual.

        Parameters
        ----------
        r : numpy.ndarray
            (n,); not modified.
        sigma : float or tuple of float
            Noise of a channel of weight one in addition to that of the sky, mK; one for each of several spectra.
        further : numpy.ndarray or float
            Further variance (n,), if there are no marginalised terms.
        """
        from lstmfit.likelihoods._model_noise_kernel import with_terms, without_terms

        kept = self._kept
        if sigma != kept[0]:
            kept = self._at(sigma)
        _, constant, first = kept
        if constant is None:
            return -math.inf
        terms = self._terms
        if terms is None:
            logs, chi2 = without_terms(r, constant + further, self.whole, self.scale)
        else:
            prior = terms.directions, terms.width, terms.log_prior_volume, terms.pull, terms.constant
            logs, chi2 = with_terms(r, constant, self.whole, self.scale, *prior, first, LARGEST_DIFFERENCE)
        value = -0.5 * (len(r) * LN_2PI + logs + chi2) + self._log_jacobian
        return value if value == value else self._far(r, sigma)

    def _far(self, r, sigma):
        """`logpdf` where the compiled function gives NaN, because digits would be lost or r is not finite."""
        if not np.isfinite(r).all() or self._terms is None:
            # An infinite sky is infinitely noisy.
            return math.nan if np.isnan(r).any() else -math.inf
        variance = self.variance(r, sigma)
        if variance is None:
            return -math.inf
        variance += self._square(sigma)
        inverse = 1.0 / variance
        weighted, inverse_factor, change = self._terms.at(inverse)
        chi2 = self._terms.chi_square(float(np.dot(r * inverse, r)), r, inverse, weighted, inverse_factor)
        norm = -0.5 * (len(r) * LN_2PI + float(np.log(variance).sum())) + self._log_jacobian + change
        return norm - 0.5 * chi2

    def _square(self, sigma):
        return sigma * sigma if self._sizes is None else np.repeat(np.square(sigma), self._sizes)

    def _at(self, sigma):
        """Sigma, variances that do not depend on the sky, and the terms under the noise of the data; cached.

        The terms are their weighted form and inverse factor. The variances are None where there is no density.
        """
        kept = self._kept
        if sigma == kept[0]:
            return kept
        from lstmfit.likelihoods._spectrum_kernel import marginalised_at

        square, terms, first = self._square(sigma), self._terms, None
        of_data = square + self.extra
        if not (of_data > 0).all():
            return sigma, None, None
        if terms is not None:
            first = marginalised_at(terms.directions, 1.0 / of_data, terms.width, terms.log_prior_volume)[:2]
        # A single assignment, so that threads with different sigma do not mix.
        self._kept = kept = sigma, square + self.rest, first
        return kept
