"""Run independent tasks on the processes of one machine or on MPI ranks."""

import contextlib
import multiprocessing
import numbers
import os
import threading
from concurrent import futures

from lstmfit.errors import InputError
from lstmfit.mpi import abort, status_of, world
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
"""Set to 1 in parallel processes, whose threads would compete for the cores."""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_jobs(jobs) -> int:
    """Validated number of processes; the number of cores if `jobs` is None.

    Raises
    ------
    InputError
        `jobs` is not a positive integer.
    """
    if jobs is None:
        return cores()
    if isinstance(jobs, bool) or not isinstance(jobs, numbers.Integral) or jobs < 1:
        raise InputError(f"jobs is {shown(jobs)}, but a whole number of at least 1 is needed")
    return int(jobs)


@contextlib.contextmanager
def worker_pool(jobs: int):
    """Open a pool of processes or, under mpirun, of the MPI ranks, the first of which distributes the tasks.

    Parameters
    ----------
    jobs : int
        Number of processes; ignored under MPI.

    Yields
    ------
    pool : concurrent.futures.Executor or None
        None on MPI ranks other than the first, which work until the first rank leaves the context.
    n_workers : int
        Number of tasks that run at a time.

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
        try:
            yield pool, comm.Get_size() - 1
        except SystemExit as error:
            # As for processes: the other ranks are in the middle of their tasks.
            abort(comm, status_of(error))


def results_of(pool, function, tasks):
    """Yield the results of `function` for each task, in the order in which they finish; cancel the rest if one fails.

    Parameters
    ----------
    pool : concurrent.futures.Executor
        As from `worker_pool`.
    function : callable
        Picklable function of one task.
    tasks : sequence of object
        The tasks.
    """
    running = [pool.submit(function, task) for task in tasks]
    try:
        for future in futures.as_completed(running):
            yield future.result()
    finally:
        for future in running:
            future.cancel()


@contextlib.contextmanager
def process_pool(jobs: int):
    """Open a pool of single-threaded processes on this machine, which end when this process ends."""
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    with (
        _worker_environment(),
        futures.ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool,
    ):
        try:
            yield pool
        except (SystemExit, KeyboardInterrupt):
            # A time limit or a signal: leaving the context would wait for the tasks to finish.
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextlib.contextmanager
def _worker_environment():
    """Let processes started within the context use one thread each and import nothing from the current folder.

    There is one process per core. `multiprocessing` starts Python with ``-c``, which would otherwise search the current
    folder for modules first, and run a ``multiprocessing.py`` there.
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
    """Convert the death of a worker process to an error that says what to do.

    Parameters
    ----------
    error_type : type
        Type of the error to raise.
    what : str
        Name of the process, the subject of the message.
    """
    try:
        yield
    except futures.process.BrokenProcessPool as error:
        raise error_type(
            f"{what} died (out of memory, killed, or started from a script without "
            'if __name__ == "__main__":); repeat the command to continue, finished work is kept'
        ) from error


def _end_with_parent() -> None:
    """End this process with its parent; after kill -9 of the parent, it would otherwise wait for tasks forever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
