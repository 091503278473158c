"""Insertion-index test of nested sampling, which checks that new points are drawn uniformly inside their contours.

A new point drawn from the prior inside a contour is distributed like the live points there, so the rank of its
likelihood among theirs is uniform (Fowlie, Handley & Su 2020, MNRAS 497, 5256, arXiv:2006.03371). If steps are too few
or too short, the point stays near the live point that it started from, and the ranks are not uniform.

Merged runs are tested as one. A merged run is a nested sampling run with the live points of all its parts: the lowest
one dies, and its replacement is drawn inside its contour, in whichever part. So the ranks among all live points are
uniform and independent if those of each part are, and the files of the parts are not needed. If points are born in
batches (BlackJAX), those of a batch are also ranked among each other; these ranks are slightly anticorrelated, which
makes p slightly too large.
"""

from bisect import bisect_left, bisect_right, insort

import numpy as np

SMALL = 0.001
"""A p-value below this is unlikely to be due to chance in a single run."""


def insertion_ranks(death: np.ndarray, birth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each new point among the live points at its birth.

    Parameters
    ----------
    death, birth : numpy.ndarray
        (n,) ln L of each point, and of the contour inside which it was born; -inf for the whole prior.

    Returns
    -------
    ranks, n_live : numpy.ndarray
        (m,) ranks, 0 to n_live - 1, and numbers of live points for the m points born inside a contour, in ascending
        order of the contour.
    """
    order = np.argsort(birth, kind="stable")
    live: list[float] = []
    ranks, sizes, i = [], [], 0
    while i < len(order):
        contour = birth[order[i]]
        del live[: bisect_right(live, contour)]
        first = i
        while i < len(order) and birth[order[i]] == contour:
            insort(live, death[order[i]])
            i += 1
        if np.isfinite(contour):
            ranks += [bisect_left(live, death[j]) for j in order[first:i]]
            sizes += [len(live)] * (i - first)
    return np.array(ranks, dtype=int), np.array(sizes, dtype=int)


def insertion_p(samples, seed: int = 0) -> float | None:
    """Kolmogorov-Smirnov p-value of the insertion ranks of a run being uniform.

    Parameters
    ----------
    samples : anesthetic.Samples
        Samples as returned by `lstmfit.analysis.chains.read_samples`.
    seed : int
        Seed of the uniform random numbers added to the ranks. They make the distribution continuous, as the test
        requires, although the number of live points changes during a run.

    Returns
    -------
    float or None
        None if birth contours are not known, or if no point was born inside a contour.
    """
    if "logL_birth" not in samples:
        return None
    from scipy.stats import kstest

    ranks, n_live = insertion_ranks(samples["logL"].to_numpy(), samples["logL_birth"].to_numpy())
    if not len(ranks):
        return None
    spread = np.random.default_rng(seed).uniform(size=len(ranks))
    return float(kstest((ranks + spread) / n_live, "uniform").pvalue)
