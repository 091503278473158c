"""PolyChord asked to run: checks, and what is in the folder. The run itself is in `thread`."""

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
    """Run PolyChord in this process (or, with `comm`, in all processes of an MPI world).

    Parameters
    ----------
    problem : object
        ``loglikelihood``: theta (n_params,) physical -> float, or a tuple (float, sequence of n_derived floats) if
        there are derived parameters, which may be left out where the likelihood is zero; NaN counts as zero
        likelihood. ``prior_transform``: unit cube (n_params,) -> theta (n_params,). ``names``, ``derived_names``: in
        the order of theta and of the derived values. ``latex``: labels without dollar signs, of the parameters and
        then of the derived ones. Such as a `lstmfit.problem.Problem`.
    folder : str or pathlib.Path
        Where the files go; made if missing.
    root : str
        First part of the files' names.
    settings : PolyChordSettings
        What to do, resolved.
    posteriors : bool
        Write ``<root>.txt`` and ``<root>_equal_weights.txt``.
    resume : bool
        Continue from the resume file if there is one; a finished run returns its result at once. Otherwise start
        over.
    progress : callable, optional
        Called in the caller's thread about once a second.
    stop : callable, optional
        Asked ten times a second; True ends the run where it is, to be resumed later.
    comm : mpi4py.MPI.Comm, optional
        COMM_WORLD, for a run over several ranks; see `lstmfit.sampling.polychord.ranks.run_mpi`, which also deals with
        errors there.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        The settings do not fit the problem or the folder, the library is missing, the log-likelihood is +inf
        or is zero all over the prior.
    Exception
        Whatever `loglikelihood` or `prior_transform` raised.
    """
    parallel = comm is not None and comm.Get_size() > 1
    if not _running.acquire(blocking=False):
        raise InputError("PolyChord already runs in this process, and only one run fits in; start another process")
    try:
        folder = Path(folder)
        check_problem(problem, settings)
        if parallel:
            state = on_root(comm, lambda: _prepare(problem, folder, root, settings, resume, True))
        else:
            state = _prepare(problem, folder, root, settings, resume, False)
        if state.get("finished"):
            logger.info("%s is finished; nothing is left to do", folder / root)
            return Result.of(state)
        run = PolyChordThread(problem, folder, root, settings, state, comm if parallel else None, posteriors)
        with writing_into(folder / root, "and resume: what was finished is kept"):
            return run.execute(progress, stop)
    finally:
        _running.release()


_running = threading.Lock()


def check_problem(problem, settings: PolyChordSettings) -> None:
    """Compare lengths, and call both functions once, here, where an exception is an ordinary one.

    Raises
    ------
    InputError
        Nothing is sampled, names are repeated, or the functions return something else than `run_polychord` needs.
    """
    n, n_derived = len(problem.names), len(problem.derived_names)
    if not n:
        raise InputError("no parameter varies; PolyChord needs at least one")
    everything = (*problem.names, *problem.derived_names)
    if len(set(everything)) != len(everything):
        twice = sorted({name for name in everything if everything.count(name) > 1})
        raise InputError(f"parameter names must differ, but {listed(twice)} comes twice")
    if len(problem.latex) != len(everything):
        raise InputError(
            f"latex has {len(problem.latex)} labels, but {len(everything)} are needed: "
            f"{n} parameters and {n_derived} derived ones"
        )
    settings.check_grades(n)
    theta = np.asarray(problem.prior_transform(np.full(n, 0.5)), dtype=float)
    if theta.shape != (n,):
        raise InputError(f"the prior transform returned shape {theta.shape}, but ({n},) is needed")
    answer = problem.loglikelihood(theta.copy())
    value, derived = answer if type(answer) is tuple else (answer, None)
    try:
        value = float(value)
    except TypeError:
        raise InputError(f"the likelihood returned {answer!r}, but a number is needed") from None
    if value > LOGZERO and n_derived:
        if derived is None:
            raise InputError(f"the likelihood returned {answer!r}, but (lnL, {n_derived} derived values) is needed")
        if len(derived) != n_derived:
            raise InputError(f"the likelihood returned {len(derived)} derived values, but {n_derived} names are given")


def _prepare(problem, folder, root, settings, resume, parallel) -> dict:
    """Make the folder ready and say from where the run starts (on the root rank only)."""
    if not root or "/" in root:
        raise InputError(f"root is {root!r}, but a plain file name is needed")
    length = len(os.fsencode(folder)) + len(os.fsencode(root)) + len(LONGEST_SUFFIX)
    if length >= MAX_PATH_BYTES:
        raise InputError(
            f"the output path {folder}/{root} has {length} bytes with what PolyChord appends, more than the "
            f"{MAX_PATH_BYTES - 1} it can hold; give a shorter or a relative one"
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
                    f"{folder / root} was begun as {len(state['shares'])} runs side by side; resume it without mpirun, "
                    "or start over with --force"
                )
        last_section = load_library(parallel).last_section
        restore_resume_file(folder, root, last_section)
        if state and not state["n_dead"] and resume_file.is_file() and not is_whole(resume_file, last_section):
            # Cut short among the first live points: there is nothing yet to lose.
            resume_file.unlink()
        if resume and resume_file.is_file() and not state.get("finished"):
            header = read_resume_header(resume_file)
            for key, there, what in (
                ("n_dims", len(problem.names), "parameters"),
                ("n_derived", len(problem.derived_names), "derived parameters"),
            ):
                if header[key] != there:
                    raise InputError(
                        f"{resume_file} holds {header[key]} {what}, now there are {there}; "
                        "resume with the run file that it was begun with, or start over with --force"
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
