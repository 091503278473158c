"""Fast evaluation of several spectra of one signal by one compiled call.

The spline of `lstmfit.likelihoods.compiled_spectrum` is solved once for all of them, and Python calls compiled code
once. The channels of the spectra follow one another in the arrays.
"""

from collections.abc import Sequence

import numpy as np

from lstmfit.likelihoods._spectrum_kernel import chi_squares_of_signal
from lstmfit.likelihoods.compiled_spectrum import spline_table
from lstmfit.likelihoods.gaussian import LARGEST_DIFFERENCE
from lstmfit.likelihoods.global_signal import GlobalSignal


class CompiledSpectra:
    """Ln L of several spectra, each with the same result as its own likelihood, to the rounding error.

    Parameters
    ----------
    likelihoods : sequence of GlobalSignal
        Those for which `can_join` is true, with signals on the same grid.
    """

    def __init__(self, likelihoods: Sequence[GlobalSignal]):
        self._likelihoods = tuple(likelihoods)
        frequencies = [likelihood.spectrum.frequency for likelihood in likelihoods]
        root = np.concatenate([likelihood.root for likelihood in likelihoods])
        self._table = spline_table(likelihoods[0].redshifts, np.concatenate(frequencies), root)
        self._starts = np.cumsum([0, *map(len, frequencies)])
        self._data = None
        if not any(likelihood.components for likelihood in likelihoods):
            self._data = np.concatenate([likelihood.data for likelihood in likelihoods])
        self._kept: tuple = (None, None, None)

    @staticmethod
    def can_join(likelihood) -> bool:
        """Whether a likelihood is that of a spectrum with a compiled ln L and nothing else."""
        return type(likelihood) is GlobalSignal and likelihood.compiled is not None

    def __call__(self, signal: np.ndarray, values: Sequence[np.ndarray]) -> list[float]:
        """Log likelihoods.

        Parameters
        ----------
        signal : numpy.ndarray
            (n_channels,) mK; not modified.
        values : sequence of numpy.ndarray
            Parameters of each likelihood.
        """
        pairs = list(zip(self._likelihoods, values))
        sigmas = [likelihood.sigma_of(own) for likelihood, own in pairs]
        kept = self._kept
        if sigmas != kept[0]:
            kept = self._at(sigmas)
        data = self._data
        if data is None:
            data = np.concatenate([likelihood.without_components(own) for likelihood, own in pairs])
        _, noise, norm = kept
        chi2 = chi_squares_of_signal(signal, data, self._starts, self._table, noise, LARGEST_DIFFERENCE)
        found = (norm - 0.5 * chi2).tolist()
        # NaN if digits would be lost, or if the signal is NaN.
        return [value if value == value else likelihood(signal, own) for value, (likelihood, own) in zip(found, pairs)]

    def _at(self, sigmas):
        """Noise of all spectra, and their log normalisations; a single object, so that threads do not mix."""
        found = [likelihood.compiled.noise_at(sigma) for likelihood, sigma in zip(self._likelihoods, sigmas)]
        n, s, k = self._starts[-1], len(found), max(likelihood.n_marginalised for likelihood in self._likelihoods)
        inverse, weighted = np.zeros(n), np.zeros(k * n)
        factor, pull, constant = np.zeros((s, k, k)), np.zeros((s, k)), np.zeros(s)
        for i, (noise, _) in enumerate(found):
            # Without noise, chi-square is zero and the normalisation minus infinity.
            if noise is not None:
                a, b = self._starts[i : i + 2]
                terms, rows = slice(len(noise[3])), weighted[k * a : k * b].reshape(k, b - a)
                inverse[a:b], rows[terms], factor[i, terms, terms], pull[i, terms], constant[i] = noise
        kept = sigmas, (inverse, weighted, factor, pull, constant), np.array([norm for _, norm in found])
        self._kept = kept
        return kept
