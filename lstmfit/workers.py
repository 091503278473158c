"""Many independent tasks over the processes of a machine or over the ranks of mpirun, handed out one by one."""

import contextlib
import multiprocessing
import numbers
import os
import threading
from concurrent import futures

from lstmfit.errors import InputError
from lstmfit.mpi import world
from lstmfit.schema import shown

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
"""Set to 1 for whatever runs as one process of several: threads would only get into each other's way."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_jobs(jobs) -> int:
    """Number of processes: all cores where it is None.

    Raises
    ------
    InputError
        It is not a whole number of at least 1.
    """
    if jobs is None:
        return cores()
    if isinstance(jobs, bool) or not isinstance(jobs, numbers.Integral) or jobs < 1:
        raise InputError(f"jobs is {shown(jobs)}, but a whole number of at least 1 is needed")
    return int(jobs)


@contextlib.contextmanager
def worker_pool(jobs: int):
    """Open a pool of processes; under mpirun of its ranks, the first of which hands out the tasks.

    Parameters
    ----------
    jobs : int
        Processes. Without meaning under MPI.

    Yields
    ------
    pool : concurrent.futures.Executor or None
        None on MPI ranks other than the first, which work until the first one leaves.
    n_workers : int
        How many tasks run at a time.

    Raises
    ------
    InputError
        As `lstmfit.mpi.world`.
    """
    comm = world()
    if comm is None:
        with process_pool(jobs) as pool:
            yield pool, jobs
        return
    from mpi4py.futures import MPICommExecutor

    with _worker_environment(), MPICommExecutor(comm, root=0) as pool:
        yield pool, comm.Get_size() - 1


@contextlib.contextmanager
def process_pool(jobs: int):
    """Open a pool of processes of this machine, of one thread each, that end when this process ends."""
    context = multiprocessing.get_context("spawn")
    with (
        _worker_environment(),
        futures.ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool,
    ):
        yield pool


@contextlib.contextmanager
def _worker_environment():
    """Let the processes started meanwhile use one thread each, and import nothing from the current folder.

    There is one process for each core. `multiprocessing` starts Python with ``-c``, which would otherwise look for
    modules in the current folder first: a ``multiprocessing.py`` there would be run.
    """
    wanted = dict.fromkeys((*THREAD_VARIABLES, "PYTHONSAFEPATH"), "1")
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def death_as(error_type, what: str):
    """Turn the end of a worker process into an error that says what to do.

    Parameters
    ----------
    error_type : type
        Of the error to raise.
    what : str
        Which process died, as the subject of the message.
    """
    try:
        yield
    except futures.process.BrokenProcessPool as error:
        raise error_type(
            f"{what} died (out of memory, killed, or a script of yours without "
            'if __name__ == "__main__":); what was finished is kept: run the same again'
        ) from error


def _end_with_parent() -> None:
    """Watch for the parent's end: after kill -9 a worker would otherwise wait for tasks for ever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
