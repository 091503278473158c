"""Merge finished PolyChord runs."""

from pathlib import Path

import numpy as np

from lstmfit.files import write_text
from lstmfit.sampling.chainfiles import write_posterior


def merge_parts(part_roots, root, seed) -> tuple[float, float, int]:
    """Merge finished PolyChord runs into one set of files in the format of a single PolyChord run.

    Parameters
    ----------
    part_roots : sequence of str or pathlib.Path
        Roots of the parts' files.
    root : str or pathlib.Path
        Root of the merged files.
    seed : int
        Seed for drawing the equally weighted samples.

    Returns
    -------
    logZ, logZ_err : float
        Log-evidence of the merged run and its error sqrt(D_KL / n_live).
    n_dead : int
        Number of points in the merged run.
    """
    dead, live = [], []
    for part in part_roots:
        rows = Path(f"{part}_dead-birth.txt").read_text(encoding="ascii").splitlines()
        dead += rows
        live += Path(f"{part}_phys_live-birth.txt").read_text(encoding="ascii").splitlines()
    # Lines are copied as text, so that PolyChord's digits are kept.
    table = np.loadtxt(dead, ndmin=2)
    order = np.argsort(table[:, -2], kind="stable")
    table = table[order]
    root = Path(root)
    # The live points of the last update are also among the dead points, as in PolyChord's own files; readers drop the
    # duplicates.
    write_text(root.with_name(f"{root.name}_phys_live-birth.txt"), "".join(f"{line}\n" for line in live))
    write_text(root.with_name(f"{root.name}_dead-birth.txt"), "".join(f"{dead[i]}\n" for i in order))
    return *write_posterior(root.parent, root.name, table, seed), len(table)
