"""What commands share that make many fits in one folder: their worker processes, and the count of finished fits."""

import contextlib

from lstmfit.files import writing_into
from lstmfit.notebook import counted, default_progress
from lstmfit.simulators import SimulationError
from lstmfit.workers import cores, death_as, results_of, worker_pool


@contextlib.contextmanager
def fit_workers(folder, jobs: int | None):
    """Open a pool of workers for fits that are written into one folder.

    Parameters
    ----------
    folder : pathlib.Path
        Named if it cannot be written.
    jobs : int or None
        Number of processes; all cores by default. Ignored under MPI.

    Yields
    ------
    concurrent.futures.Executor or None
        None on MPI ranks other than the first.

    Raises
    ------
    InputError
        The folder cannot be written.
    SimulationError
        A worker process died.
    """
    with (
        writing_into(folder, "and repeat the command; finished work is kept"),
        death_as(SimulationError, "a worker process"),
        # A pool even for one job, because PolyChord keeps state in its process.
        worker_pool(jobs or cores()) as (pool, _),
    ):
        yield pool


def finish(pool, function, tasks, n: int, progress) -> None:
    """Run the tasks that are left of `n`.

    Parameters
    ----------
    pool : concurrent.futures.Executor
        As from `fit_workers`.
    function : callable
        Picklable function of one task.
    tasks : sequence of object
        The tasks that are not finished.
    n : int
        Number of tasks, with those that are finished.
    progress : callable or None
        Called with (finished, n). In a notebook a bar is shown by default.
    """
    done = n - len(tasks)
    with default_progress(progress, counted("fits")) as tell:
        if done and tell is not None:
            tell(done, n)
        for _ in results_of(pool, function, tasks):
            done += 1
            if tell is not None:
                tell(done, n)
