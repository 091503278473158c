"""Merge finished PolyChord runs."""

from pathlib import Path

import numpy as np

from lstmfit.files import write_text
from lstmfit.sampling.chainfiles import nested_samples, write_posterior
from lstmfit.sampling.mean_errors import mean_inflation


def merge_parts(part_roots, root, seed: int, names, derived_names) -> dict:
    """Merge finished PolyChord runs into one set of files in the format of a single PolyChord run.

    Parameters
    ----------
    part_roots : sequence of str or pathlib.Path
        Roots of the parts' files.
    root : str or pathlib.Path
        Root of the merged files.
    seed : int
        Seed for drawing the equally weighted samples.
    names, derived_names : sequence of str
        Names of the columns: sampled parameters, then derived ones.

    Returns
    -------
    dict
        ``logZ``, ``logZ_err``: log-evidence of the merged run and its error; ``n_dead``: number of
        its points; ``mean_inflation``: by name, see `lstmfit.sampling.mean_errors.mean_inflation`, None for one part.
    """
    dead, live, runs = [], [], []
    for i, part in enumerate(part_roots):
        rows = Path(f"{part}_dead-birth.txt").read_text(encoding="ascii").splitlines()
        dead += rows
        runs += [i] * len(rows)
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
    logZ, logZ_err = write_posterior(root.parent, root.name, table, seed)
    # The run of a point as one more column, because anesthetic may drop points.
    samples = nested_samples(np.column_stack([np.array(runs)[order], table]))
    values, weights = samples.to_numpy(), samples.get_weights()
    columns = [*names, *derived_names]
    inflation = mean_inflation(values[:, 1 : 1 + len(columns)], weights, values[:, 0], len(names))
    by_name = None if inflation is None else dict(zip(columns, inflation.tolist()))
    return {"logZ": logZ, "logZ_err": logZ_err, "n_dead": len(table), "mean_inflation": by_name}
