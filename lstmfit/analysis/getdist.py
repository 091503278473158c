"""Write a run's chain in GetDist's format, in addition to the sampler's own files.

PolyChord's ``chain.txt`` contains -2 ln L where GetDist expects -ln L. The sampler's files are left unchanged, so
GetDist reads separate ones: ``getdist.loadMCSamples("DIR/chain_getdist")``.
"""

from pathlib import Path

import numpy as np

from lstmfit.analysis.chains import Run
from lstmfit.files import replacing, write_text

ROOT = "chain_getdist"


def write_getdist(run: Run) -> Path:
    """Write ``chain_getdist.txt``, ``.paramnames`` and ``.ranges`` into the run folder.

    Columns are weight (the largest is 1), -ln L, and the parameters of ``chain.paramnames`` in physical units. The
    ranges are those of the priors.

    Parameters
    ----------
    run : Run
        A finished run.

    Returns
    -------
    pathlib.Path
        Root of the files.
    """
    problem, samples = run.problem, run.samples
    names = [*problem.names, *(name for name in problem.derived_names if name in samples)]
    latex = dict(zip((*problem.names, *problem.derived_names), problem.latex))
    weights = samples.get_weights()
    rows = weights > 0
    table = np.column_stack([weights / weights.max(), -samples["logL"].to_numpy(), samples[names].to_numpy()])[rows]
    root = run.folder / ROOT
    stars = ["" if name in problem.names else "*" for name in names]
    lines = [f"{name}{star}\t{latex[name]}\n" for name, star in zip(names, stars)]
    write_text(root.with_name(f"{ROOT}.paramnames"), "".join(lines))
    ends = [(name, *problem.prior.distributions[name].support) for name in problem.names]
    ranges = [f"{name} {_end(low)} {_end(high)}\n" for name, low, high in ends]
    write_text(root.with_name(f"{ROOT}.ranges"), "".join(ranges))
    with replacing(root.with_name(f"{ROOT}.txt")) as temporary:
        np.savetxt(temporary, table, fmt="%.15e")
    return root


def _end(value) -> str:
    return f"{value:.15g}" if np.isfinite(value) else "N"
