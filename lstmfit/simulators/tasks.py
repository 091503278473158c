"""Simulations in tasks of about half a second, here or in a pool."""

import time
from concurrent import futures

import numpy as np

from lstmfit.simulators import SimulationError, load_once
from lstmfit.simulators.rows import Rows

_TASK_SECONDS = 0.5
_TASK_ROWS = 64


def outcomes_of(todo, rows: Rows, simulator: str, pool, workers: int):
    """Yield (rows of a task, their outcomes) as they are finished; tasks take about half a second each."""
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
    """Rows of the next task: no more than double, since the first rows of a process include compilation."""
    return int(np.clip(_TASK_SECONDS / max(seconds_per_row, 1e-9), 1, min(2 * size, _TASK_ROWS)))


def _run(simulator: str, thetas: np.ndarray):
    started = time.perf_counter()
    return attempt(simulator, thetas), time.perf_counter() - started


def attempt(simulator: str, thetas) -> list:
    """Simulate a few points, in whatever process; a failure is an outcome too.

    Parameters
    ----------
    simulator : str
        A name for `lstmfit.simulators.load`.
    thetas : sequence of numpy.ndarray
        (n_params,) each, physical.

    Returns
    -------
    list
        Of each point (signal in mK, neutral fraction, tau), both (n_channels,) float32, or why there is none (str).
    """
    model = load_once(simulator)
    shape = np.shape(model.redshifts)
    outcomes = []
    for theta in thetas:
        try:
            history = model(np.array(theta))
            signal = np.asarray(history.signal, dtype=np.float32)
            x_HI = np.asarray(history.x_HI, dtype=np.float32)
            tau = float(history.tau)
            if signal.shape != shape or x_HI.shape != shape:
                raise SimulationError(f"shapes {signal.shape} and {x_HI.shape} where the redshifts have {shape}")
            if not (np.isfinite(signal).all() and np.isfinite(x_HI).all() and np.isfinite(tau)):
                raise SimulationError("the result is not finite")
            outcomes.append((signal, x_HI, tau))
        except Exception as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    return outcomes
