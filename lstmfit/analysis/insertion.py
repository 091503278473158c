"""Did nested sampling draw its new points uniformly inside their contours? The test of Fowlie, Handley & Su.

A new point that is drawn from the prior inside a contour is a stranger to none of the live points there, so the rank
of its likelihood among theirs is uniform (Fowlie, Handley & Su 2020, MNRAS 497, 5256, arXiv:2006.03371). Steps that
are too few or too short leave it near the live point that it started from, and the ranks are not uniform.

Runs that were merged are tested as one. A merged run is a nested sampling run with the live points of all its parts:
the lowest one dies, and the point that takes its place is drawn inside its contour, whichever part it belongs to. So
the ranks among all of them are uniform and independent where those of each part are, and none of the files of the
parts is needed. Where points are born in batches (BlackJAX), those of a batch are ranked among each other too; such
ranks repel each other a little, which makes p a little too large.
"""

from bisect import bisect_left, bisect_right, insort

import numpy as np

SMALL = 0.001
"""Below it, chance is a poor explanation for a single run."""


def insertion_ranks(death: np.ndarray, birth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each new point among the points that are alive at its birth.

    Parameters
    ----------
    death, birth : numpy.ndarray
        (n,) ln L of each point and of the contour that it was born in; -inf where it is the whole prior.

    Returns
    -------
    ranks, n_live : numpy.ndarray
        (m,) integers, 0 to n_live - 1, of the m points that were born inside a contour, by ascending contour.
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
    """Chance of insertion ranks as far from uniform as those of a run, by the Kolmogorov-Smirnov test.

    Parameters
    ----------
    samples : anesthetic.Samples
        As `lstmfit.analysis.chains.read_samples` gives them.
    seed : int
        Of the uniform numbers that spread each rank over its step, since the number of live points changes along a
        run and the test wants one continuous distribution.

    Returns
    -------
    float or None
        None where births are not known, or no point was born inside a contour.
    """
    if "logL_birth" not in samples:
        return None
    from scipy.stats import kstest

    ranks, n_live = insertion_ranks(samples["logL"].to_numpy(), samples["logL_birth"].to_numpy())
    if not len(ranks):
        return None
    spread = np.random.default_rng(seed).uniform(size=len(ranks))
    return float(kstest((ranks + spread) / n_live, "uniform").pvalue)
