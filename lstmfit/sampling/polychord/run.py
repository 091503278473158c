"""Start or resume PolyChord: checks of the problem and of the folder. The run itself is in `thread`."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError, listed
from lstmfit.files import writing_into
from lstmfit.mpi import on_root
from lstmfit.sampling.polychord.libraries import LOGZERO, MAX_PATH_BYTES, load_library
from lstmfit.sampling.polychord.resume_file import is_whole, read_resume_header, restore_resume_file
from lstmfit.sampling.polychord.settings import PolyChordSettings
from lstmfit.sampling.polychord.thread import PolyChordThread
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.state import (
    check_same_request,
    make_request,
    read_state,
    remove_stale,
    write_paramnames,
    write_state,
)

LONGEST_SUFFIX = "/clusters/_phys_live_10000.txt_temp"

logger = logging.getLogger(__name__)


def run_polychord(
    problem,
    folder,
    root: str,
    settings: PolyChordSettings,
    *,
    posteriors: bool = True,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    comm=None,
) -> Result:
    """Run PolyChord in this process or, with `comm`, in all processes of an MPI world.

    Parameters
    ----------
    problem : object
        A `lstmfit.problem.Problem`, or any object with these attributes. ``loglikelihood``: theta (n_params,) physical
        -> float, or a tuple (float, sequence of n_derived floats) if there are derived parameters. The latter may be
        omitted where the likelihood is zero; NaN counts as zero likelihood. ``prior_transform``: unit cube (n_params,)
        -> theta (n_params,). ``names``, ``derived_names``: names in the order of theta and of the derived values.
        ``latex``: labels without dollar signs, first of the parameters, then of the derived ones.
    folder : str or pathlib.Path
        Output folder; created if missing.
    root : str
        Prefix of the file names.
    settings : PolyChordSettings
        Resolved settings of the run.
    posteriors : bool
        Write ``<root>.txt`` and ``<root>_equal_weights.txt``.
    resume : bool
        Resume from the resume file if there is one; a finished run returns its result immediately. Otherwise start
        over.
    progress : callable, optional
        Called in the caller's thread about once a second.
    stop : callable, optional
        Called ten times a second; if it returns True, the run is stopped and can be resumed later.
    comm : mpi4py.MPI.Comm, optional
        COMM_WORLD, for a run over several ranks; see `lstmfit.sampling.polychord.ranks.run_mpi`, which also handles
        errors on the ranks.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        The settings do not match the problem or the folder, the library is missing, or the likelihood is infinite
        somewhere or zero everywhere in the prior.
    Exception
        Any exception raised by `loglikelihood` or `prior_transform`.
    """
    parallel = comm is not None and comm.Get_size() > 1
    if not _running.acquire(blocking=False):
        raise InputError("PolyChord is already running in this process; start the second run in another process")
    try:
        folder = Path(folder)
        check_problem(problem, settings)
        if parallel:
            state = on_root(comm, lambda: _prepare(problem, folder, root, settings, resume, True))
        else:
            state = _prepare(problem, folder, root, settings, resume, False)
        if state.get("finished"):
            logger.info("%s has already finished; there is nothing left to do", folder / root)
            return Result.of(state)
        run = PolyChordThread(problem, folder, root, settings, state, comm if parallel else None, posteriors)
        with writing_into(folder / root, "and resume; finished work is kept"):
            return run.execute(progress, stop)
    finally:
        _running.release()


_running = threading.Lock()


def check_problem(problem, settings: PolyChordSettings) -> None:
    """Check names and lengths, and call both functions once outside PolyChord, where exceptions are simple.

    Raises
    ------
    InputError
        Nothing is sampled, names are repeated, or a function does not return what `run_polychord` needs.
    """
    n, n_derived = len(problem.names), len(problem.derived_names)
    if not n:
        raise InputError("no parameter is sampled; PolyChord needs at least one, so give one a prior")
    everything = (*problem.names, *problem.derived_names)
    if len(set(everything)) != len(everything):
        twice = sorted({name for name in everything if everything.count(name) > 1})
        raise InputError(f"parameter names must be unique, but {listed(twice)} is repeated")
    if len(problem.latex) != len(everything):
        raise InputError(
            f"latex has {len(problem.latex)} labels, but {len(everything)} are needed, "
            f"for {n} parameters and {n_derived} derived ones"
        )
    settings.check_grades(n)
    theta = np.asarray(problem.prior_transform(np.full(n, 0.5)), dtype=float)
    if theta.shape != (n,):
        raise InputError(f"the prior transform returned shape {theta.shape}, but must return ({n},)")
    answer = problem.loglikelihood(theta.copy())
    value, derived = answer if type(answer) is tuple else (answer, None)
    try:
        value = float(value)
    except TypeError:
        raise InputError(f"the likelihood returned {answer!r}, but must return a number") from None
    if value > LOGZERO and n_derived:
        if derived is None:
            raise InputError(f"the likelihood returned {answer!r}, but must return (lnL, {n_derived} derived values)")
        if len(derived) != n_derived:
            raise InputError(
                f"the likelihood returned {len(derived)} derived values, but there are {n_derived} derived names"
            )


def _prepare(problem, folder, root, settings, resume, parallel) -> dict:
    """Prepare the folder and return the state to start from; on the root rank only."""
    if not root or "/" in root:
        raise InputError(f"root is {root!r}, but it must be a plain file name")
    length = len(os.fsencode(folder)) + len(os.fsencode(root)) + len(LONGEST_SUFFIX)
    if length >= MAX_PATH_BYTES:
        raise InputError(
            f"the output path {folder}/{root} has {length} bytes with PolyChord's suffixes, more than the "
            f"{MAX_PATH_BYTES - 1} that it supports; give a shorter or a relative path"
        )
    request = make_request(problem, settings)
    fresh = request | {"n_like": 0, "n_nan": 0, "n_dead": 0, "wall_s": 0.0, "prior_fraction": None}
    try:
        (folder / "clusters").mkdir(parents=True, exist_ok=True)
        resume_file = folder / f"{root}.resume"
        state = read_state(folder, root) if resume else {}
        if state:
            check_same_request(state, request, folder / root)
            if not (folder / f"{root}_dead-birth.txt").is_file():
                state["finished"] = False
            if "shares" in state and not state.get("finished"):
                raise InputError(
                    f"{folder / root} was started as {len(state['shares'])} parallel runs without mpirun; resume it "
                    "without mpirun, or start over with --force"
                )
        last_section = load_library(parallel).last_section
        restore_resume_file(folder, root, last_section)
        if state and not state["n_dead"] and resume_file.is_file() and not is_whole(resume_file, last_section):
            # Truncated while the first live points were drawn, so nothing is lost.
            resume_file.unlink()
        if resume and resume_file.is_file() and not state.get("finished"):
            header = read_resume_header(resume_file)
            for key, there, what in (
                ("n_dims", len(problem.names), "parameters"),
                ("n_derived", len(problem.derived_names), "derived parameters"),
            ):
                if header[key] != there:
                    raise InputError(
                        f"{resume_file} has {header[key]} {what}, but now there are {there}; "
                        "resume with the original run file, or start over with --force"
                    )
            state = fresh | {"n_like": header["n_like"]} | state | {"resumed_from": header["n_dead"]}
        elif not state:
            state = fresh
            remove_stale(folder, root)
        write_paramnames(folder, root, problem)
        write_state(folder, root, state)
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); give another output folder") from error
    return state
