"""Tests of whether the whitened residuals of a fit are noise: autocorrelation, runs of one sign, the largest outlier.

Residuals of a fit are not white even if the model is correct, because the fit removes what the model can imitate. If
the model is linear with a Gaussian prior and H is the covariance of its whitened predictions over the posterior, the
residuals z at the posterior mean have the covariance 1 - H. So the distribution of each statistic under the null
hypothesis is that of z ~ N(0, 1 - H): its mean and variance are simulated, and its tail is that of a normal or a gamma
distribution with these moments, so that small probabilities are meaningful too.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr
from scipy.stats import gamma, norm

MOST_LAGS = 10
"""Number of lags of the Ljung-Box statistic (Ljung & Box 1978, Biometrika 65, 297)."""
FEWEST = 8
"""Smallest number of channels for which the tests are made."""
N_SIMULATED = 1000
"""Number of simulated sets of residuals."""
NEGLIGIBLE = 1e-3
"""Fractions of H below this are ignored."""
LEAST_VARIANCE = 0.05
"""Lower limit of the variance of a residual, for channels that the fit follows almost exactly."""


@dataclass(frozen=True)
class FittedDirections:
    """The covariance H of the whitened predictions of a fit, by its eigenvectors.

    Parameters
    ----------
    vectors : numpy.ndarray
        (n, k) orthonormal columns.
    fractions : numpy.ndarray
        (k,) eigenvalues from 0 to 1: one for a direction that is fitted freely.
    """

    vectors: np.ndarray
    fractions: np.ndarray

    @classmethod
    def of(cls, residuals: np.ndarray) -> "FittedDirections":
        """From whitened residuals (m, n) at m posterior draws, whose covariance over the draws is H."""
        m = len(residuals)
        deviations = (residuals - residuals.mean(axis=0)) / np.sqrt(max(m - 1, 1))
        # By the (m, m) product, because there can be many more channels than draws.
        values, left = np.linalg.eigh(deviations @ deviations.T)
        kept = values > max(NEGLIGIBLE, 1e-12 * values[-1])
        return cls(deviations.T @ left[:, kept] / np.sqrt(values[kept]), np.minimum(values[kept], 1.0))

    @property
    def variances(self) -> np.ndarray:
        """(n,) variance of each residual."""
        return 1.0 - self.vectors**2 @ self.fractions

    def draw(self, m: int, rng: np.random.Generator) -> np.ndarray:
        """Residuals (m, n) of a fit of a correct model."""
        white = rng.standard_normal((m, len(self.vectors)))
        return white - (white @ self.vectors * (1.0 - np.sqrt(1.0 - self.fractions))) @ self.vectors.T


def autocorrelation(z: np.ndarray, most: int) -> np.ndarray:
    """Correlation (..., most) of residuals (..., n) at lags 1 to `most`, for a mean of zero."""
    total = (z**2).sum(axis=-1)
    n = z.shape[-1]
    return np.stack([(z[..., : n - lag] * z[..., lag:]).sum(axis=-1) / total for lag in range(1, most + 1)], axis=-1)


def ljung_box(z: np.ndarray, lags: int) -> np.ndarray:
    """Ljung-Box statistic n (n + 2) sum_l rho_l^2 / (n - l) over lags 1 to `lags`, of residuals (..., n)."""
    n = z.shape[-1]
    return n * (n + 2) * (autocorrelation(z, lags) ** 2 / (n - np.arange(1, lags + 1))).sum(axis=-1)


def count_runs(z: np.ndarray) -> np.ndarray:
    """Number of runs of one sign in residuals (..., n)."""
    positive = z >= 0
    return 1 + (positive[..., 1:] != positive[..., :-1]).sum(axis=-1)


def noise_tests(z: np.ndarray, fitted: FittedDirections, rng: np.random.Generator) -> dict | None:
    """Tests of the autocorrelation and of the number of runs.

    Parameters
    ----------
    z : numpy.ndarray
        (n,) whitened residuals of the best point, in ascending order of frequency.
    fitted : FittedDirections
        The directions that were fitted.
    rng : numpy.random.Generator
        Random generator of the simulated residuals.

    Returns
    -------
    dict or None
        ``autocorrelation``: ``lag_1``, the correlation of neighbouring channels; ``channels``, the number of channels
        over which residuals are correlated, one if neighbours are not; ``ljung_box`` over ``lags`` lags and its
        ``p_value``. ``runs``: their number ``n``, the ``expected`` one, and the two-sided ``p_value`` (Wald &
        Wolfowitz 1940, Ann. Math. Stat. 11, 147). None if there are fewer than 8 channels, or no residuals.
    """
    n = len(z)
    if n < FEWEST or not np.isfinite(z).all() or not z.any():
        return None
    lags = min(MOST_LAGS, n // 4)
    null = fitted.draw(N_SIMULATED, rng)
    statistics, found = ljung_box(null, lags), float(ljung_box(z, lags))
    mean, variance = statistics.mean(), statistics.var()
    rho = autocorrelation(z, n // 2)
    uncorrelated = np.flatnonzero(rho < 2.0 / np.sqrt(n))
    runs, counts = int(count_runs(z)), count_runs(null)
    # Half a run towards the expected number, because the number of runs is discrete.
    distance = max(abs(runs - counts.mean()) - 0.5, 0.0) / counts.std()
    return {
        "autocorrelation": {
            "lag_1": float(rho[0]),
            "channels": int(uncorrelated[0] + 1 if len(uncorrelated) else n // 2),
            "ljung_box": found,
            "lags": lags,
            "p_value": float(gamma.sf(found, mean**2 / variance, scale=variance / mean)),
        },
        "runs": {"n": runs, "expected": float(counts.mean()), "p_value": float(2.0 * norm.sf(distance))},
    }


def largest_outlier(z: np.ndarray, fitted: FittedDirections) -> tuple[int, float, float]:
    """Channel with the largest residual.

    Parameters
    ----------
    z, fitted
        As for `noise_tests`.

    Returns
    -------
    int, float, float
        Number of the channel, its residual in standard deviations of a residual, and the probability that any of the n
        channels deviates as far.
    """
    deviations = z / np.sqrt(np.maximum(fitted.variances, LEAST_VARIANCE))
    worst = int(np.argmax(np.abs(deviations)))
    one = 2.0 * np.exp(log_ndtr(-abs(deviations[worst])))
    return worst, float(deviations[worst]), float(-np.expm1(len(z) * np.log1p(-min(one, 1.0 - 1e-16))))
