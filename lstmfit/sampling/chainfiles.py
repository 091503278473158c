"""Write chain files that anesthetic and GetDist can read, for samplers that do not write their own."""

import math
from pathlib import Path

import numpy as np

from lstmfit.files import replacing

LOGZERO = -1e30
"""Birth contour that PolyChord writes for a point drawn from the whole prior."""
FORMAT = "%24.15E"


def write_nested(folder, root, dead: np.ndarray, live: np.ndarray) -> None:
    """Write ``ROOT_dead-birth.txt`` and ``ROOT_phys_live-birth.txt`` in PolyChord's format.

    Parameters
    ----------
    folder : str or pathlib.Path
        Output folder.
    root : str
        Prefix of the file names.
    dead, live : numpy.ndarray
        (n, n_values + 2): values, ln L, ln L of the birth contour. `live` contains the final live points. As in
        PolyChord's files they are also among the dead points; readers drop the duplicates.
    """
    for name, table in (("phys_live-birth", live), ("dead-birth", dead)):
        with replacing(Path(folder) / f"{root}_{name}.txt") as path:
            np.savetxt(path, table[np.argsort(table[:, -2], kind="stable")], fmt=FORMAT)


def nested_samples(table: np.ndarray):
    """Samples of anesthetic from dead points (n, n_values + 2): values, ln L, ln L of the birth contour."""
    import anesthetic

    return anesthetic.NestedSamples(data=table[:, :-2], logL=table[:, -2], logL_birth=table[:, -1])


def write_posterior(folder, root, table: np.ndarray, seed: int) -> tuple[float, float]:
    """Write ``ROOT.txt`` and ``ROOT_equal_weights.txt`` of a nested sampling run: weight, -2 ln L, values.

    Parameters
    ----------
    folder : str or pathlib.Path
        Output folder.
    root : str
        Prefix of the file names.
    table : numpy.ndarray
        (n, n_values + 2) dead points in ascending order of ln L.
    seed : int
        Seed for drawing the equally weighted samples.

    Returns
    -------
    logZ, logZ_err : float
        Log-evidence computed by anesthetic, and its error. The shrinkage ln t at a point has the variance 1 / n_live^2.
        With X the prior volume and Z(X) the evidence within it, d ln Z / d ln t = (Z(X) - L X) / Z. For a constant
        n_live the error is about sqrt(D_KL / n_live).
    """
    samples = nested_samples(table)
    weights = samples.get_weights()
    shares, n_live = weights / weights.sum(), samples.nlive.to_numpy()
    # L X / Z is the weight of the shell times n_live.
    pulls = (1.0 - np.cumsum(shares)) / n_live - shares
    logZ, logZ_err = float(samples.logZ()), math.sqrt(np.sum(pulls**2))
    values = samples.to_numpy()[:, : table.shape[1] - 2]
    rows = np.column_stack([weights / weights.max(), -2 * samples.logL.to_numpy(), values])
    write_weighted(folder, root, rows[rows[:, 0] > 0], seed)
    return logZ, logZ_err


def write_weighted(folder, root, rows: np.ndarray, seed: int) -> None:
    """Write weighted samples to ``ROOT.txt`` and equally weighted ones drawn from them to ``ROOT_equal_weights.txt``.

    Parameters
    ----------
    folder : str or pathlib.Path
        Output folder.
    root : str
        Prefix of the file names.
    rows : numpy.ndarray
        (n, 2 + n_values): weight (the largest is 1), -ln L (GetDist) or -2 ln L (PolyChord), values.
    seed : int
        Seed for drawing the equally weighted samples.
    """
    drawn = rows[np.random.default_rng(seed).random(len(rows)) < rows[:, 0]]
    drawn[:, 0] = 1.0
    for name, table in ((f"{root}_equal_weights.txt", drawn), (f"{root}.txt", rows)):
        with replacing(Path(folder) / name) as path:
            np.savetxt(path, table, fmt=FORMAT)
