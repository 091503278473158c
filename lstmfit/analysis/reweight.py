"""Importance weights and their reliability: Pareto smoothing, effective sample sizes, choice of points."""

import numpy as np
from scipy.special import logsumexp

from lstmfit.errors import InputError

K_HAT_LIMIT = 0.7
"""Above this k-hat, importance sampling is not reliable for any sample size (Vehtari et al. 2024, JMLR 25, 72)."""

LEAST_SIZE = 10.0
"""Results with a smaller effective sample size are not trusted, whatever k-hat: standard deviations are then known to
1 / sqrt(2 n) = 22 % at best, and a single point may dominate."""
NEGLIGIBLE = 1e-9
FEWEST = 5
"""Minimum number of points in the tail for fitting its shape, as in ArviZ and the R package loo."""


def k_hat_limit(n: int) -> float:
    """Largest reliable k-hat for `n` draws: min(1 - 1 / log10 n, 0.7) (Vehtari et al. 2024, Eq. 13)."""
    return min(1.0 - 1.0 / np.log10(n), K_HAT_LIMIT) if n > 10 else 0.0


def fit_generalised_pareto(x: np.ndarray) -> tuple[float, float]:
    """Fit a generalised Pareto distribution to exceedances.

    This is the estimator of Zhang & Stephens (2009, Technometrics 51, 316) with the weak prior of Vehtari et al.
    (2024), which pulls the shape towards 0.5 with the weight of ten draws.

    Parameters
    ----------
    x : numpy.ndarray
        (n,) positive exceedances over the threshold, in ascending order.

    Returns
    -------
    k, sigma : float
        Shape (positive for a heavy tail) and scale, in the unit of x; infinity and NaN if `x` spans so many decades
        that they overflow.
    """
    n, prior = len(x), 3.0
    m = 30 + int(np.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    # A tail that spans more than 300 decades overflows; its shape then exceeds any limit.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        b = 1.0 / x[-1] + (1.0 - np.sqrt(m / (np.arange(m) + 0.5))) / (prior * quartile)
        shape = np.mean(np.log1p(-b[:, None] * x), axis=1)
        likelihood = n * (np.log(-b / shape) - shape - 1.0)
        weights = np.exp(likelihood - logsumexp(likelihood))
        b_mean = float(np.sum(b * weights))
        k = float(np.mean(np.log1p(-b_mean * x)))
        sigma = -k / b_mean if b_mean else np.nan
    if not (np.isfinite(k) and np.isfinite(sigma) and sigma > 0):
        return np.inf, np.nan
    return (n * k + 10.0 * 0.5) / (n + 10.0), sigma


def pareto_smooth(log_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed importance sampling (Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25, 72).

    The largest min(n/5, 3 sqrt n) ratios are replaced by the expected order statistics of a generalised Pareto
    distribution fitted to them, truncated at the largest raw ratio. Shape and weights equal those of ``arviz.psislw``
    if there are at least five points in the tail.

    Parameters
    ----------
    log_ratios : numpy.ndarray
        (n,) logarithms of the ratios, up to a constant; -inf for a ratio of zero. Not modified.

    Returns
    -------
    log_weights : numpy.ndarray
        (n,) smoothed log weights, with the same constant as `log_ratios`.
    k_hat : float
        Shape of the tail; the weights are reliable below `k_hat_limit`. 0 if the ratios are equal within rounding, or
        if the whole tail equals its threshold (truncated weights). Infinite if the shape cannot be determined: fewer
        than 25 ratios, fewer than five in the tail above its threshold, or a tail of only a few points because all
        others are negligible.

    Raises
    ------
    InputError
        A ratio is NaN or +inf.
    """
    out = np.array(log_ratios, dtype=float)
    bad = int(np.sum(np.isnan(out) | (out == np.inf)))
    if bad:
        raise InputError(f"{bad} of {len(out)} log ratios are NaN or +inf; expected finite numbers, or -inf for zero")
    n = len(out)
    top = out.max(initial=-np.inf)
    if not np.isfinite(top):
        return out, np.inf
    finite = np.isfinite(out)
    if finite.all() and np.ptp(out) <= _rounding(out):
        return out, 0.0
    n_tail = int(np.ceil(min(0.2 * n, 3.0 * np.sqrt(n))))
    if n_tail < FEWEST:
        return out, np.inf
    order = np.argsort(out, kind="stable")
    # Ratios that underflow to zero are negligible, so the tail starts above them.
    threshold = max(out[order[-n_tail - 1]] - top, np.log(np.finfo(float).tiny))
    tail = order[-n_tail:]
    if out[tail[-1]] - top == threshold:
        return out, 0.0
    tail = tail[out[tail] - top > threshold]
    if len(tail) < FEWEST:
        return out, np.inf
    # A difference of two exponentials would lose precision for nearly equal ratios.
    excess = np.exp(threshold) * np.expm1(out[tail] - top - threshold)
    k, sigma = fit_generalised_pareto(excess)
    if not (np.isfinite(k) and np.isfinite(sigma)):
        return out, np.inf
    p = (np.arange(len(tail)) + 0.5) / len(tail)
    with np.errstate(over="ignore"):
        quantiles = sigma * np.expm1(-k * np.log1p(-p)) / k if abs(k) > 1e-12 else -sigma * np.log1p(-p)
    out[tail] = np.minimum(np.log(quantiles + np.exp(threshold)), 0.0) + top
    return out, float(k)


def _rounding(log_ratios):
    """Rounding error of differences of two log-likelihoods of this size."""
    return 8.0 * np.finfo(float).eps * max(1.0, float(np.abs(log_ratios).max()))


def effective_size(weights: np.ndarray) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2, of weights (n,) of any normalisation."""
    weights = np.asarray(weights, dtype=float)
    # Squares of weights below 1e-162 would underflow; scaling by a power of two is exact.
    weights = np.ldexp(weights, -np.frexp(weights.max())[1])
    return float(weights.sum() ** 2 / np.sum(weights**2))


def choose_points(weights: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose `n` different points of a weighted chain that represent its posterior.

    Sequential Poisson sampling (Ohlsson 1998, J. Off. Stat. 14, 149): each point gets a uniform random number u, and
    the points with the n smallest u / w are chosen. So for the same seed a larger choice contains a smaller one. Heavy
    points are always chosen and keep a larger weight; the others are chosen with probability proportional to w and get
    equal weights. Up to about sum w / max w points, all weights are equal.

    Parameters
    ----------
    weights : numpy.ndarray
        (n_all,) posterior weights, not negative.
    n : int
        Number of points. If fewer have a weight above 1e-9 of the largest, all of those are returned.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    rows : numpy.ndarray
        (n,) rows in ascending order.
    base : numpy.ndarray
        (n,) weights that sum to one.
    """
    weights = np.asarray(weights, dtype=float)
    u = rng.uniform(size=len(weights))
    # The early points of a nested sampling run have negligible weight.
    positive = np.flatnonzero(weights > NEGLIGIBLE * weights.max())
    if n >= len(positive):
        return positive, weights[positive] / weights[positive].sum()
    w = weights[positive]
    order = np.argsort(u[positive] / w)
    rows = order[:n]
    # Find c such that sum min(1, c w) = n; points with c w >= 1 are chosen with certainty.
    certain = np.zeros(len(w), dtype=bool)
    while True:
        c = (n - certain.sum()) / w[~certain].sum()
        more = ~certain & (c * w >= 1.0)
        if not more.any():
            break
        certain |= more
    base = w[rows] / np.where(certain, 1.0, c * w)[rows]
    ascending = np.argsort(rows)
    return positive[rows[ascending]], base[ascending] / base.sum()


def weighted_quantiles(x: np.ndarray, weights: np.ndarray, q) -> list[float]:
    """Quantiles q of weighted numbers (n,), with half of each weight assigned to either side of its number."""
    order = np.argsort(x)
    cumulative = np.cumsum(weights[order])
    cumulative = (cumulative - 0.5 * weights[order]) / cumulative[-1]
    return [float(v) for v in np.interp(q, cumulative, x[order])]
