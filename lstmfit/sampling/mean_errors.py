"""Errors of posterior means that include the correlation of nested sampling points.

A sampler that makes a new point by a walk from a live point leaves the two correlated, and through their descendants
all points of a run. The mean of a run then scatters more than independent points would, whatever the number of live
points. One run cannot show this, because its points move together. Independent runs can: PolyChord's serial runs, which
are merged, differ by the true error of their means.
"""

import numpy as np

POOLED = 4
"""Degrees of freedom that the average over the parameters counts for, besides those of the parameter itself."""


def mean_inflation(x: np.ndarray, weights: np.ndarray, runs: np.ndarray, n_params: int) -> np.ndarray | None:
    """Factors by which the means of merged runs scatter more than those of as many independent points.

    With weights w that sum to one and z = (x - mean) / std, the mean of z is the sum over the runs of w z, and R / (R -
    1) times the sum of their squares is its variance, for R independent runs. The variance for independent points is
    sum w^2, one over Kish's effective sample size. Their ratio is known to sqrt(2 / (R - 1)) for one parameter, so it
    is averaged with that of all sampled parameters, whose points are moved by the same steps. Ranks take the place of
    x, so that the factors are the same in log10, and a long tail does not decide.

    Parameters
    ----------
    x : numpy.ndarray
        (n, n_columns) points: sampled parameters, then derived ones.
    weights : numpy.ndarray
        (n,) weights in the merged run.
    runs : numpy.ndarray
        (n,) number of the run that each point comes from.
    n_params : int
        Number of sampled parameters.

    Returns
    -------
    numpy.ndarray or None
        (n_columns,) factors, at least 1, for multiplying std / sqrt(effective sample size). None if there is only one
        run.
    """
    w = weights / weights.sum()
    found = np.unique(runs)
    dof = len(found) - 1
    if not dof:
        return None
    deviation = _ranks(x, w) - 0.5
    pulls = np.array([w[runs == run] @ deviation[runs == run] for run in found])
    variance = len(found) / dof * np.sum(pulls**2, axis=0)
    ratio = variance / (w @ deviation**2) / np.sum(w**2)
    shrunk = (dof * ratio + POOLED * ratio[:n_params].mean()) / (dof + POOLED)
    return np.sqrt(np.maximum(1.0, shrunk))


def _ranks(x, w):
    """Weighted cumulative distribution of each column at its points; their weighted mean is 1/2."""
    ranks = np.empty(x.shape)
    for column, values in enumerate(x.T):
        order = np.argsort(values, kind="stable")
        ranks[order, column] = np.cumsum(w[order]) - 0.5 * w[order]
    return ranks
