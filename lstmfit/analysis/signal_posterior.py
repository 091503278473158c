"""Posterior of the signal, and the data without their foregrounds: what the plots of a fit show."""

from dataclasses import dataclass

import numpy as np

from lstmfit.analysis.chains import Run, equal_weight

N_CURVES = 1000
"""Number of posterior draws for the bands of the signal."""
N_FOREGROUNDS = 200
"""Number of these draws whose foregrounds are averaged."""


@dataclass(frozen=True)
class SignalPosterior:
    """Posterior draws of the signal.

    Parameters
    ----------
    theta : numpy.ndarray
        (n, n_sampled) sampled parameters, equally weighted.
    curves : numpy.ndarray
        (n, n_channels) their signals in mK at ``problem.signal.redshifts``.
    """

    theta: np.ndarray
    curves: np.ndarray

    def band(self, percent: float, relative_to=0.0) -> tuple[np.ndarray, np.ndarray]:
        """Limits (n_channels,) of the central `percent` of the signals in each channel, minus `relative_to`."""
        low, high = np.percentile(self.curves - relative_to, (50 - percent / 2, 50 + percent / 2), axis=0)
        return low, high

    @property
    def median(self) -> np.ndarray:
        """Median (n_channels,) of the signals in each channel."""
        return np.median(self.curves, axis=0)


def draw_signals(run: Run, rng: np.random.Generator) -> SignalPosterior:
    """Draw `N_CURVES` signals from the posterior of a run."""
    theta = equal_weight(run, N_CURVES, rng)
    return SignalPosterior(theta, np.array([run.problem.signal_at(t) for t in theta]))


def without_foreground(run: Run, name: str, draws: SignalPosterior, rng: np.random.Generator):
    """A spectrum minus the mean of its foregrounds at posterior points, given their signals.

    Parameters
    ----------
    run : Run
        The run.
    name : str
        Name of the likelihood of the spectrum in ``run.problem.spectra``.
    draws : SignalPosterior
        Result of `draw_signals`.
    rng : numpy.random.Generator
        Generator for the coefficients of marginalised foregrounds.

    Returns
    -------
    temperature : numpy.ndarray
        (n,) mK at the channels of the spectrum.
    foreground : bool
        Whether there is a foreground.
    """
    likelihood = run.problem.spectra[name]
    pairs = zip(draws.curves[:N_FOREGROUNDS], draws.theta[:N_FOREGROUNDS])
    foregrounds = np.array([likelihood.foreground(c, run.problem.values(t, name), rng) for c, t in pairs])
    return likelihood.spectrum.temperature - foregrounds.mean(axis=0), bool(foregrounds.any())
