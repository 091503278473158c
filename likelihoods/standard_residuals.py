"""Residuals of a spectrum in units of its noise."""

import numpy as np
from scipy.linalg import solve_triangular

from lstmfit.likelihoods.noise import Noise


def standardise(residuals: np.ndarray, spectrum, noise: Noise, covariance: np.ndarray | None) -> np.ndarray:
    """Residuals in units of the noise, in ascending order of frequency.

    Parameters
    ----------
    residuals : numpy.ndarray
        (n,) or (m, n) mK.
    spectrum : Spectrum
        ``frequency`` and ``weight`` (n,).
    noise : Noise
        Noise without free parameters.
    covariance : numpy.ndarray or None
        (n,) or (n, n) mK^2 in addition to the noise of sigma: E of the noise and the emulator error.

    Returns
    -------
    numpy.ndarray
        (n,) or (m, n), independent and standard normal if model and noise are correct. Student-t residuals are mapped
        to normal ones through their distribution functions; correlated residuals are whitened, starting at the lowest
        frequency.
    """
    order = np.argsort(np.asarray(spectrum.frequency, dtype=float), kind="stable")
    variance = (noise.sigma**2 / np.asarray(spectrum.weight, dtype=float))[order]
    residuals = np.asarray(residuals, dtype=float)[..., order]
    if covariance is None or covariance.ndim == 1:
        z = residuals / np.sqrt(variance + (0.0 if covariance is None else covariance[order]))
    else:
        factor = np.linalg.cholesky(covariance[np.ix_(order, order)] + np.diag(variance))
        z = solve_triangular(factor, residuals.T, lower=True).T
    return normal_scores(z, noise.dof) if noise.student else z


def normal_scores(x: np.ndarray, dof: float) -> np.ndarray:
    """Normal deviates with the cumulative probabilities of Student-t deviates."""
    from scipy.stats import norm, t

    # The smallest number keeps a residual in the far tail finite.
    return np.copysign(norm.isf(np.maximum(t.sf(np.abs(x), dof), np.finfo(float).tiny)), x)
