"""Kullback-Leibler divergences between posteriors, from closed forms and from samples, in nats."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree

LEAST_FREEDOM = 1e-8
"""Minimum fraction of a column's variance not explained by the others; less is the rounding of a file's digits."""


def gaussian_divergence(mean_p, covariance_p, mean_q, covariance_q) -> float:
    """D_KL(P || Q) of two Gaussians.

    ``1/2 [ln(|C_q| / |C_p|) - d + tr(C_q^-1 C_p) + (mu_q - mu_p)^T C_q^-1 (mu_q - mu_p)]``, as in Bevins et al. (2025,
    arXiv:2503.13263) for the linear model.

    Parameters
    ----------
    mean_p, mean_q : array_like
        (d,) means.
    covariance_p, covariance_q : array_like
        (d, d) covariances.
    """
    shift = np.atleast_1d(np.asarray(mean_q, dtype=float) - mean_p)
    p, q = np.atleast_2d(covariance_p), np.atleast_2d(covariance_q)
    factor = cho_factor(q, lower=True)
    log_ratio = np.linalg.slogdet(q)[1] - np.linalg.slogdet(p)[1]
    trace, distance = np.trace(cho_solve(factor, p)), shift @ cho_solve(factor, shift)
    # Rounding could make the divergence of two equal Gaussians negative.
    return max(0.0, float(0.5 * (log_ratio - len(shift) + trace + distance)))


def nearest_neighbour_divergence(x: np.ndarray, y: np.ndarray, k: int = 5) -> float:
    """D_KL(P || Q) from equal-weight samples, using distances to the k-th nearest neighbours.

    ``1/n sum_i [d ln(nu_i / rho_i) + ln(m_i / n_i)]``, where rho_i is the distance of x_i to its k-th neighbour in x
    and nu_i that in y (Wang, Kulkarni & Verdu 2009, IEEE Trans. Inf. Theory 55, 2392, Eq. 5). Points at distance zero
    are excluded: x_i itself, its duplicates, and x_i in y if the two chains share points; n_i and m_i are the numbers
    of remaining points. Both samples are first scaled to unit covariance of y, which makes no difference in the limit
    but a large one for finite samples.

    Parameters
    ----------
    x : numpy.ndarray
        (n, d) samples of P.
    y : numpy.ndarray
        (m, d) samples of Q.
    k : int
        Number of the neighbour: a larger k gives less scatter and more bias.
    """
    d = x.shape[1]
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(y, rowvar=False)))
    x, y = (np.linalg.solve(factor, (s - y.mean(axis=0)).T).T for s in (x, y))
    rho, n = _neighbours(x, x, k)
    nu, m = _neighbours(x, y, k)
    return float(np.mean(d * np.log(nu / rho) + np.log(m / n)))


def _neighbours(x, y, k):
    """Distance of each x to the k-th neighbour in y at non-zero distance, and the number of such points."""
    tree = cKDTree(y)
    here = tree.query_ball_point(x, 0.0, return_length=True)
    # The farthest point, if duplicates leave fewer than k.
    which = np.minimum(here + k, len(y)) - 1
    distances = tree.query(x, np.arange(1, which.max() + 2))[0]
    return np.take_along_axis(distances, which[:, None], axis=1)[:, 0], len(y) - here


def independent_columns(covariance: np.ndarray) -> list[int]:
    """Columns that are not linear functions of earlier ones, given the (d, d) covariance of the samples."""
    width = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(width, width)
    kept = []
    for i in range(len(width)):
        pull = correlation[kept, i]
        if 1.0 - pull @ np.linalg.solve(correlation[np.ix_(kept, kept)], pull) > LEAST_FREEDOM:
            kept.append(i)
    return kept


def subset_size(n: int, inflation: float) -> int:
    """Size of the random subsets of n points whose scatter equals the error of an estimate from all of them.

    The mean of m of n points, drawn without replacement, has the variance s^2 (1/m - 1/n) about that of all, and the
    mean of all has the variance f s^2 / n. They are equal for m = n / (1 + f): for independent points, f = 1, a half
    (McCarthy 1969, half-samples).

    Parameters
    ----------
    n : int
        Number of points.
    inflation : float
        f, by which correlation increases the variance of a mean.
    """
    return int(n / (1.0 + inflation))


def with_error(
    estimator,
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    repeats: int = 40,
    inflation: tuple[float, float] = (1.0, 1.0),
):
    """An estimate from two samples, and its sampling error.

    The error is the scatter of the estimate over random subsets of both samples, of the sizes given by `subset_size`.

    Parameters
    ----------
    estimator : callable
        (x, y) -> float.
    x, y : numpy.ndarray
        (n, d) and (m, d) equal-weight samples.
    rng : numpy.random.Generator
        Random generator for the subsets.
    repeats : int
        Number of subsets.
    inflation : tuple of float
        Factors by which the variance of a mean of x, and of y, exceeds that of independent points.

    Returns
    -------
    value, error : float
        The estimate from the full samples, and the scatter of the repeats.
    """
    found = []
    for _ in range(repeats):
        a, b = (rng.choice(len(s), subset_size(len(s), f), replace=False) for s, f in zip((x, y), inflation))
        found.append(estimator(x[a], y[b]))
    return estimator(x, y), float(np.std(found, ddof=1))


def bound(rms: float, sigma: float, n: int) -> float:
    """Largest D_KL that an error of `rms` mK can cause under white noise: N/2 (rms / sigma)^2.

    Bevins et al. (2025, arXiv:2503.13263, Eq. limit-dkl); in nats, for a linear model and an error that does not
    depend on the parameters.
    """
    return 0.5 * n * (rms / sigma) ** 2


def bound_correlated(error: np.ndarray, covariance: np.ndarray) -> float:
    """Largest D_KL that an error vector can cause under correlated noise: 1/2 eps^T C^-1 eps.

    Projecting the error onto the tangent space of the model (Bevins et al. 2025) can only reduce it; for white noise
    this equals `bound`.

    Parameters
    ----------
    error : numpy.ndarray
        (n,) mK.
    covariance : numpy.ndarray
        (n, n) mK^2.
    """
    return float(0.5 * error @ cho_solve(cho_factor(covariance, lower=True), error))


def linear_gaussian(fisher: np.ndarray, pull: np.ndarray, prior_precision: np.ndarray | None = None):
    """Exact D_KL and parameter shift for a linear model with Gaussian noise and a constant emulator error.

    Let the model be M theta + m, the emulator M theta + m + eps and the noise covariance S. With F = M^T S^-1 M and
    b = M^T S^-1 eps, the posterior mean shifts by -(F + L)^-1 b, the covariance (F + L)^-1 is unchanged, and D_KL = 1/2
    b^T (F + L)^-1 b: half the squared shift in units of the posterior width. See Bevins et al. (2025), the exact form
    with E = 0; L, the precision of a Gaussian prior, is zero there.

    Parameters
    ----------
    fisher : numpy.ndarray
        F, (d, d).
    pull : numpy.ndarray
        b, (d,).
    prior_precision : numpy.ndarray, optional
        L, (d, d).

    Returns
    -------
    D_KL : float
        Nats.
    shift : numpy.ndarray
        (d,) emulated minus true mean, in units of each parameter's standard deviation.
    """
    precision = fisher if prior_precision is None else fisher + prior_precision
    factor = cho_factor(precision, lower=True)
    move = -cho_solve(factor, pull)
    width = np.sqrt(np.diag(cho_solve(factor, np.eye(len(pull)))))
    return float(-0.5 * pull @ move), move / width
