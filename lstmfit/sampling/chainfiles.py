"""Chain files as anesthetic and GetDist read them, for samplers that write none themselves."""

import math
from pathlib import Path

import numpy as np

from lstmfit.files import replacing

LOGZERO = -1e30
"""What PolyChord writes for the birth contour of a point drawn from the whole prior."""
FORMAT = "%24.15E"


def write_nested(folder, root, dead: np.ndarray, live: np.ndarray) -> None:
    """Write ``ROOT_dead-birth.txt`` and ``ROOT_phys_live-birth.txt`` as PolyChord does.

    Parameters
    ----------
    folder : str or pathlib.Path
        Output folder.
    root : str
        First part of the files' names.
    dead, live : numpy.ndarray
        (n, n_values + 2): values, ln L, ln L of the birth contour. The live points are those at the end, which are
        among the dead ones too, as in PolyChord's files; readers drop copies.
    """
    for name, table in (("phys_live-birth", live), ("dead-birth", dead)):
        with replacing(Path(folder) / f"{root}_{name}.txt") as path:
            np.savetxt(path, table[np.argsort(table[:, -2], kind="stable")], fmt=FORMAT)


def write_posterior(folder, root, table: np.ndarray, seed: int) -> tuple[float, float]:
    """Write ``ROOT.txt`` and ``ROOT_equal_weights.txt`` of a nested sampling run: weight, -2 ln L, values.

    Parameters
    ----------
    folder : str or pathlib.Path
        Output folder.
    root : str
        First part of the files' names.
    table : numpy.ndarray
        (n, n_values + 2) dead points, ascending in ln L.
    seed : int
        Seed of the draw that makes the equally weighted samples.

    Returns
    -------
    logZ, logZ_err : float
        Evidence by anesthetic, and its error sqrt(D_KL / n_live).
    """
    import anesthetic

    samples = anesthetic.NestedSamples(data=table[:, :-2], logL=table[:, -2], logL_birth=table[:, -1])
    n_live = float(samples.nlive.max())
    logZ, logZ_err = float(samples.logZ()), math.sqrt(max(0.0, float(samples.D_KL())) / n_live)
    weights = samples.get_weights()
    values = samples.to_numpy()[:, : table.shape[1] - 2]
    rows = np.column_stack([weights / weights.max(), -2 * samples.logL.to_numpy(), values])
    write_weighted(folder, root, rows[rows[:, 0] > 0], seed)
    return logZ, logZ_err


def write_weighted(folder, root, rows: np.ndarray, seed: int) -> None:
    """Write ``ROOT.txt``, weighted samples, and ``ROOT_equal_weights.txt``, a draw from them.

    Parameters
    ----------
    folder : str or pathlib.Path
        Output folder.
    root : str
        First part of the files' names.
    rows : numpy.ndarray
        (n, 2 + n_values): weight, the largest 1; -ln L (GetDist) or -2 ln L (PolyChord); values.
    seed : int
        Seed of the draw.
    """
    drawn = rows[np.random.default_rng(seed).random(len(rows)) < rows[:, 0]]
    drawn[:, 0] = 1.0
    for name, table in ((f"{root}_equal_weights.txt", drawn), (f"{root}.txt", rows)):
        with replacing(Path(folder) / name) as path:
            np.savetxt(path, table, fmt=FORMAT)
