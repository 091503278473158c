"""Joint likelihood of spectra that share spectral indices of regions, which are marginalised by Laplace's method."""

import math

import numpy as np

from lstmfit.likelihoods.global_signal import GlobalSignal
from lstmfit.likelihoods.joint_spectra import JointSpectra
from lstmfit.likelihoods.marginalised_regions import MarginalisedRegions


class JointRegions(JointSpectra):
    """Likelihood of spectra that share marginalised spectral indices of regions.

    Parameters
    ----------
    members, coefficients
        As for `JointSpectra`.

    Raises
    ------
    InputError
        As `MarginalisedRegions`.
    """

    def __init__(self, members: dict[str, GlobalSignal], coefficients: dict[str, tuple[str, ...]]):
        super().__init__(members, coefficients)
        self._limits = np.empty((2, self.n_marginalised))
        for name, member in members.items():
            self._limits[:, self.coefficients_of[name]] = member.marginalised.limits
        densities = [member.density for member in members.values()]
        # The mode does not depend on the scale of a free sigma.
        fixed = [member.noise.sigma for member in members.values()]
        sigmas = [1.0 if sigma is None else sigma for sigma in fixed]
        self._regions = MarginalisedRegions(
            [density.weights for density in densities], [density.log_frequency for density in densities],
            [density.root for density in densities], list(self.coefficients_of.values()), self._limits,
            np.concatenate([member.data for member in members.values()]), self._noise_at(sigmas)[0], None in fixed,
        )  # fmt: skip
        self._kept: tuple = (None, None, 0.0)

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """As `JointSpectra.__call__`."""
        sigmas, kept = self._sigmas(values), self._kept
        if sigmas != kept[0]:
            kept = self._at(sigmas)
        _, inverse, norm = kept
        if norm == -math.inf:
            return norm
        return norm + self._regions.log_integral(self._residual_of_members(signal, values), inverse)

    def _at(self, sigmas):
        inverse, norm = self._noise_at(sigmas)
        # A single object, so that threads do not mix.
        kept = sigmas, self._regions.known(inverse), norm
        self._kept = kept
        return kept

    def _noise_at(self, sigmas):
        """Inverse variances (n,) and log normalisation."""
        found = [member.density.inverse_at(sigma) for member, sigma in zip(self.members.values(), sigmas)]
        return np.concatenate([inverse for inverse, _ in found]), sum(norm for _, norm in found)

    def coefficients(self, signal, values, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """As `JointSpectra.coefficients`."""
        _, inverse, _ = self._at(self._sigmas(values))
        return self._by_member(self._regions.coefficients(self._residual_of_members(signal, values), inverse, rng))

    def quadratic_at(self, signal, values):
        """As `GlobalSignal.quadratic_at`."""
        _, inverse, _ = self._at(self._sigmas(values))
        value = self._regions.linearised(self._residual_of_members(signal, values), inverse)
        return lambda signal, values: value(self._residual_of_members(signal, values))

    def error(self, signal, values, n: int, rng: np.random.Generator) -> tuple[float, float]:
        """Error of ln L by Laplace's method, and efficiency, as `MarginalisedRegions.error`."""
        _, inverse, _ = self._at(self._sigmas(values))
        return self._regions.error(self._residual_of_members(signal, values), inverse, n, rng)

    def _by_member(self, indices):
        return {name: indices[at] for name, at in self.coefficients_of.items()}

    def _drawn_from_prior(self, rng):
        return self._by_member(self._limits.mean(axis=0) if rng is None else rng.uniform(*self._limits))
