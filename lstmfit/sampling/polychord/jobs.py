"""Serial PolyChord runs in parallel processes, merged into one run: uses all cores of one machine without MPI.

Merging is exact. A nested sampling run is a set of points, each drawn uniformly from within the likelihood contour of
an earlier one. The number of live points at any contour follows from the births and deaths, and may vary during the
run. Runs with the same prior and likelihood are independent, so their combined points and birth contours form a single
run whose number of live points at each contour is the sum over the parts. Evidence and weights depend only on that
number (Skilling 2006, Bayesian Analysis 1, 833; Higson et al. 2019, Statistics and Computing 29, 891; Handley 2019,
JOSS 4, 1414). The parts may end at different likelihoods: beyond its end, a part contributes no live points to the sum.

Points of one run are correlated, because a new point starts from a live one. Independent runs are not, so their means
show the true error of a mean (`lstmfit.sampling.mean_errors`). There are therefore several runs even on one core.
"""

import logging
import math
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
from lstmfit.sampling.polychord.libraries import load_library
from lstmfit.sampling.polychord.merge import merge_parts
from lstmfit.sampling.polychord.parts import Part, Watch, run_parts, seeds_of, terminating_is_an_exception
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.polychord.settings import PolyChordSettings
from lstmfit.sampling.polychord.thread import OWN_OUTPUT_VARIABLE
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.state import (
    PARTS,
    ROOT,
    check_parts,
    check_same_request,
    make_request,
    read_state,
    remove_parts,
    remove_stale,
    write_paramnames,
    write_state,
)
from lstmfit.workers import check_jobs

LEAST_RUNS = 8
"""Minimum number of serial runs, if there are enough live points; their differences show the error of a mean."""

logger = logging.getLogger(__name__)


def run_jobs(
    make_problem: Callable,
    settings: PolyChordSettings,
    folder,
    root: str = "chain",
    jobs: int | None = None,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Result:
    """Divide the live points among serial runs in child processes, and merge the runs.

    There are at least `LEAST_RUNS` of them, so on 1, 2, 4 or 8 cores the result is the same. The parts are in
    `<folder>/parts/<i>/`. The merged run, written when all parts have finished, is `<folder>/<root>_dead-birth.txt`,
    `_phys_live-birth.txt`, `.txt`, `_equal_weights.txt` and `.paramnames`. The same number of runs and the same seed
    give the same files.

    Parameters
    ----------
    make_problem : callable
        Called without arguments in each child; returns an object with `loglikelihood`, `prior_transform`,
        `names`, `derived_names` and `latex` (see `run_polychord`). It must be picklable: a function defined in a
        module, or a `functools.partial` of one.
    settings : PolyChordSettings
        Settings of the merged run: `n_live` is the total.
    folder : str or pathlib.Path
        Output folder.
    root : str
        Prefix of the names of the merged files.
    jobs : int, optional
        Number of processes; all cores by default. Fewer are used if a part would have too few live points. Processes
        that finish a part go on with the next one.
    resume : bool
        Resume the parts in the folder, `jobs` at a time; otherwise start over.
    progress : callable, optional
        Called in this process about once a second with the progress of all parts combined.
    stop : callable, optional
        Called several times a second; if it returns True, all parts are stopped and can be resumed later.

    Returns
    -------
    Result
        `logZ` and `logZ_err` are computed by anesthetic from the merged run.

    Raises
    ------
    InputError
        As `run_polychord`, also if raised in a child.
    RuntimeError
        A child failed with any other error. The traceback is in `<folder>/parts/<i>/log.txt`.
    SystemExit
        The process received SIGTERM; the children are stopped first, as with Ctrl-C. Even after `kill -9` the run can
        be resumed.
    """
    if os.environ.get(OWN_OUTPUT_VARIABLE):
        # The child had to import the script that defines make_problem, and that script starts the run again.
        raise InputError(
            "the run was started again by one of its own child processes; put the code that starts it under "
            "if __name__ == '__main__':"
        )
    folder = Path(folder)
    jobs = check_jobs(jobs)
    # Load it before any process starts, so that a missing library gives one error instead of one per child.
    library = load_library()
    versions = {"version": library.version, "library": library.path}
    try:
        payload = pickle.dumps(make_problem)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"make_problem cannot be sent to another process ({error}); give a function defined in a module or a "
            "functools.partial of one"
        ) from error
    if b"__main__" in payload and not hasattr(sys.modules["__main__"], "__file__"):
        raise InputError(
            "make_problem is defined in an interactive session or a notebook, where other processes cannot import it; "
            "move it to a module"
        )
    problem = make_problem()
    began = time.monotonic()
    plan = _plan(problem, settings, folder, root, jobs, resume)
    if plan.get("finished") and (folder / f"{root}_dead-birth.txt").is_file():
        logger.info("%s has already finished; there is nothing left to do", folder / root)
        return Result.of(plan)
    parts = _parts(plan, folder)
    spent = plan["wall_s"]
    watch = Watch(parts, settings, progress, lambda: spent + time.monotonic() - began)

    def write_plan():
        write_state(folder, root, plan | {"wall_s": watch.elapsed()})

    write_plan()
    try:
        with terminating_is_an_exception():
            finished = run_parts(parts, payload, settings, min(jobs, len(parts)), watch, stop)
    finally:
        write_plan()
    if not finished:
        return Result(**watch.totals(), finished=False, prior_fraction=None, **versions, ranks=min(jobs, len(parts)))
    if progress:
        progress(watch.combined())
    return _merge(plan | versions | {"ranks": min(jobs, len(parts))}, parts, watch, folder, root)


def run_here(problem, settings: PolyChordSettings, folder, root: str = "chain", *, resume: bool = False) -> Result:
    """Do the same runs as `run_jobs` one after the other in this process, and merge them.

    Parameters
    ----------
    problem : object
        See `run_polychord`.
    settings, folder, root, resume
        See `run_jobs`.

    Returns
    -------
    Result
        As of `run_jobs`.

    Raises
    ------
    InputError
        As `run_polychord`.
    """
    folder = Path(folder)
    if resume and (state := read_state(folder, root)) and "shares" not in state:
        # Started by lstmfit 0.1, as one run.
        return run_polychord(problem, folder, root, settings, resume=True)
    began = time.monotonic()
    plan = _plan(problem, settings, folder, root, 1, resume)
    if plan.get("finished") and (folder / f"{root}_dead-birth.txt").is_file():
        return Result.of(plan)
    parts = _parts(plan, folder)
    spent = plan["wall_s"]
    watch = Watch(parts, settings, None, lambda: spent + time.monotonic() - began)
    library = load_library()
    try:
        write_state(folder, root, plan)
        for part, seed in zip(parts, seeds_of(settings, parts)):
            own = settings.share(part.n_live, seed)
            part.finish(run_polychord(problem, part.folder, ROOT, own, posteriors=False, resume=True))
    finally:
        write_state(folder, root, plan | {"wall_s": watch.elapsed()})
    facts = {"version": library.version, "library": library.path, "ranks": 1}
    return _merge(plan | facts, parts, watch, folder, root)


def share_live_points(n_live: int, jobs: int, n_params: int) -> list[int]:
    """Divide live points among runs: at least `LEAST_RUNS`, but such that each can learn the shape of the posterior.

    Parameters
    ----------
    n_live : int
        Total number of live points.
    jobs : int
        Number of processes, of which the number of runs is a multiple.
    n_params : int
        Number of parameters; each run gets at least 3 live points per parameter, and 4 in all. Smaller runs lose parts
        of a posterior that is much narrower than the prior (docs/results/observation.md).

    Returns
    -------
    list of int
        Live points of each run, summing to `n_live`; there are fewer runs if `n_live` is small.
    """
    least = max(4, 3 * n_params)
    most = max(1, n_live // least)
    runs = min(jobs * math.ceil(LEAST_RUNS / jobs), most)
    if runs > jobs:
        runs -= runs % jobs
    elif runs < jobs:
        logger.info(
            "%d live points are enough for %d run%s of at least %d, so %d of %d jobs are used; mpirun can use more",
            n_live, runs, "s" * (runs > 1), least, runs, jobs,
        )  # fmt: skip
    return [n_live // runs + (i < n_live % runs) for i in range(runs)]


def _plan(problem, settings, folder, root, jobs, resume) -> dict:
    """State of the merged run: that in the folder, or a new one."""
    check_parts(folder)
    request = make_request(problem, settings)
    plan = read_state(folder, root) if resume else {}
    if plan and "shares" not in plan:
        raise InputError(
            f"{folder / root} was started under mpirun; resume it under mpirun, or start over with --force"
        )
    if plan:
        check_same_request(plan, request, folder / root)
        return plan
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)
        remove_stale(folder, root)
        write_paramnames(folder, root, problem)
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); give another output folder") from error
    shares = share_live_points(settings.n_live, jobs, len(request["names"]))
    return request | {"shares": shares, "wall_s": 0.0}


def _parts(plan, folder) -> list[Part]:
    return [Part(i, folder / PARTS / str(i), n) for i, n in enumerate(plan["shares"])]


def _merge(plan, parts, watch, folder, root) -> Result:
    """Merge finished parts and write the state of the finished run."""
    roots = [part.folder / ROOT for part in parts]
    merged = merge_parts(roots, folder / root, plan["settings"]["seed"], plan["names"], plan["derived_names"])
    state = plan | watch.totals() | merged | {"wall_s": watch.elapsed()}
    state |= {"finished": True, "prior_fraction": _prior_fraction(parts)}
    write_state(folder, root, state)
    if state["n_nan"]:
        logger.warning("the log-likelihood was NaN in %d of %d calls", state["n_nan"], state["n_like"])
    return Result.of(state)


def _prior_fraction(parts) -> float | None:
    fractions = [part.result.prior_fraction for part in parts]
    if None in fractions:
        return None
    n_live = np.array([part.n_live for part in parts])
    return float(n_live.sum() / (n_live / fractions).sum())
