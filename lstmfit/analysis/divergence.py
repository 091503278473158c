"""Kullback-Leibler divergences between posteriors, from closed forms and from samples, in nats."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree

LEAST_FREEDOM = 1e-8
"""Part of a column's variance that the others must leave: less is rounding of a file's digits."""


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
    # Rounding could take two equal ones below zero.
    return max(0.0, float(0.5 * (log_ratio - len(shift) + trace + distance)))


def nearest_neighbour_divergence(x: np.ndarray, y: np.ndarray, k: int = 5) -> float:
    """D_KL(P || Q) from equal-weight samples, by distances to the k-th nearest neighbours.

    ``1/n sum_i [d ln(nu_i / rho_i) + ln(m_i / n_i)]`` with rho_i the distance of x_i to its k-th neighbour in x and
    nu_i that in y (Wang, Kulkarni & Verdu 2009, IEEE Trans. Inf. Theory 55, 2392, Eq. 5). Points at distance zero are
    no neighbours: x_i itself, its repetitions, and itself in y where two chains share points; n_i and m_i are how many
    are left. Both samples are brought to unit covariance of y first, which changes nothing in the limit and much for
    finite samples.

    Parameters
    ----------
    x : numpy.ndarray
        (n, d) samples of P.
    y : numpy.ndarray
        (m, d) samples of Q.
    k : int
        Which neighbour: a larger one gives less scatter and more bias.
    """
    d = x.shape[1]
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(y, rowvar=False)))
    x, y = (np.linalg.solve(factor, (s - y.mean(axis=0)).T).T for s in (x, y))
    rho, n = _neighbours(x, x, k)
    nu, m = _neighbours(x, y, k)
    return float(np.mean(d * np.log(nu / rho) + np.log(m / n)))


def _neighbours(x, y, k):
    """Distance of each x to the k-th of the points of y elsewhere, and how many are elsewhere."""
    tree = cKDTree(y)
    here = tree.query_ball_point(x, 0.0, return_length=True)
    # The furthest where repetitions leave fewer than k.
    which = np.minimum(here + k, len(y)) - 1
    distances = tree.query(x, np.arange(1, which.max() + 2))[0]
    return np.take_along_axis(distances, which[:, None], axis=1)[:, 0], len(y) - here


def independent_columns(covariance: np.ndarray) -> list[int]:
    """Columns that are not linear functions of those before them, of samples with this (d, d) covariance."""
    width = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(width, width)
    kept = []
    for i in range(len(width)):
        pull = correlation[kept, i]
        if 1.0 - pull @ np.linalg.solve(correlation[np.ix_(kept, kept)], pull) > LEAST_FREEDOM:
            kept.append(i)
    return kept


def with_error(estimator, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, repeats: int = 40):
    """An estimate from two samples with the error that the samples' size causes.

    Each repeat takes a random half of both. The scatter of half-samples drawn without replacement equals the error of
    the whole (McCarthy 1969, balanced half-samples).

    Parameters
    ----------
    estimator : callable
        (x, y) -> float.
    x, y : numpy.ndarray
        (n, d) and (m, d) equal-weight samples.
    rng : numpy.random.Generator
        For the halves.
    repeats : int
        Halves drawn.

    Returns
    -------
    value, error : float
        From the whole samples; from the scatter of the repeats.
    """
    halves = []
    for _ in range(repeats):
        a, b = (rng.choice(len(s), len(s) // 2, replace=False) for s in (x, y))
        halves.append(estimator(x[a], y[b]))
    return estimator(x, y), float(np.std(halves, ddof=1))


def bound(rms: float, sigma: float, n: int) -> float:
    """Largest D_KL that an error of `rms` mK can cause under white noise: N/2 (rms / sigma)^2.

    Bevins et al. (2025, arXiv:2503.13263, Eq. limit-dkl); in nats, for a linear model and an error that does not
    depend on the parameters.
    """
    return 0.5 * n * (rms / sigma) ** 2


def bound_correlated(error: np.ndarray, covariance: np.ndarray) -> float:
    """Largest D_KL that an error vector can cause under correlated noise: 1/2 eps^T C^-1 eps.

    The projection on the model's tangent space (Bevins et al. 2025) can only make it smaller; for white noise this is
    `bound`.

    Parameters
    ----------
    error : numpy.ndarray
        (n,) mK.
    covariance : numpy.ndarray
        (n, n) mK^2.
    """
    return float(0.5 * error @ cho_solve(cho_factor(covariance, lower=True), error))


def linear_gaussian(fisher: np.ndarray, pull: np.ndarray, prior_precision: np.ndarray | None = None):
    """Exact D_KL and parameter shift for a linear model, Gaussian noise and a constant error.

    With the model M theta + m, its emulator M theta + m + eps and noise S: F = M^T S^-1 M, b = M^T S^-1 eps, the mean
    of the posterior moves by -(F + L)^-1 b, its covariance (F + L)^-1 does not, and D_KL = 1/2 b^T (F + L)^-1 b: half
    the squared shift in units of the posterior's width (Bevins et al. 2025, the exact form with E = 0; L, the precision
    of a Gaussian prior, is zero there).

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
