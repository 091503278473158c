"""Simulations in tasks of about half a second, in this process or in a pool."""

import functools
import time
from concurrent import futures

import numpy as np

from lstmfit.simulators import load_once
from lstmfit.simulators.protocol import layout_of, outputs_of
from lstmfit.simulators.rows import Rows

_TASK_SECONDS = 0.5
_TASK_ROWS = 64


def outcomes_of(todo, rows: Rows, simulator: str, pool, workers: int):
    """Yield (rows of a task, their outcomes) as tasks finish; each takes about half a second."""
    start = 0
    size = 1

    def next_task():
        nonlocal start
        task = todo[start : start + size]
        start += len(task)
        return task, np.array([rows.theta[split][row] for split, row in task])

    if pool is None:
        while start < len(todo):
            task, theta = next_task()
            outcomes, seconds = _run(simulator, theta)
            size = _better_size(size, seconds / len(task))
            yield task, outcomes
        return

    running = {}
    try:
        while start < len(todo) or running:
            while start < len(todo) and len(running) < 2 * workers:
                task, theta = next_task()
                running[pool.submit(_run, simulator, theta)] = task
            done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                outcomes, seconds = future.result()
                size = _better_size(size, seconds / len(task))
                yield task, outcomes
    finally:
        for future in running:
            future.cancel()


def _better_size(size: int, seconds_per_row: float) -> int:
    """Number of rows of the next task, at most doubled, since the first rows of a process include compilation."""
    return int(np.clip(_TASK_SECONDS / max(seconds_per_row, 1e-9), 1, min(2 * size, _TASK_ROWS)))


def _run(simulator: str, thetas: np.ndarray):
    started = time.perf_counter()
    return attempt(simulator, thetas), time.perf_counter() - started


def attempt(simulator: str, thetas) -> list:
    """Simulate a few points in this process.

    Parameters
    ----------
    simulator : str
        A name for `lstmfit.simulators.load`.
    thetas : sequence of numpy.ndarray
        (n_params,) each, physical.

    Returns
    -------
    list
        For each point, the outputs by name (see `lstmfit.simulators.protocol.outputs_of`), or the message of a failure.
    """
    model = load_once(simulator)
    results = _results(model, thetas)
    outcomes: list = []
    for result in results:
        try:
            outputs = result() if callable(result) else result
            outputs = outputs_of(outputs)
            layout_of(outputs, model.redshifts, getattr(model, "axes", None))
            outcomes.append(outputs)
        except Exception as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    return outcomes


def _results(model, thetas):
    """Results of the points, or calls that compute them; the points of a failed batch are simulated one by one."""
    calls = [functools.partial(model, np.array(theta)) for theta in thetas]
    if not hasattr(model, "batch") or len(calls) == 1:
        return calls
    try:
        results = list(model.batch(np.array(thetas)))
    except Exception:
        return calls
    return results if len(results) == len(calls) else calls
