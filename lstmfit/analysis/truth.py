"""Simulator outputs at points of a chain: computed once, stored with the chain and reused later."""

import json
import logging
import re
import time
from concurrent import futures
from pathlib import Path

import numpy as np

from lstmfit.errors import one_line
from lstmfit.files import replacing
from lstmfit.notebook import counted, default_progress
from lstmfit.outputs import OutputLayout
from lstmfit.simulators import SimulationError, load_once
from lstmfit.simulators.protocol import simulator_layout
from lstmfit.simulators.tasks import attempt
from lstmfit.workers import cores, death_as, process_pool

log = logging.getLogger(__name__)

FLUSH_S = 20.0
WORTH_IT_S = 15.0
"""Worker processes are started if more seconds of work remain, because each takes some seconds to import and compile.
"""


class TruthCache:
    """Outputs of a simulator at points, in one file that is written atomically.

    Parameters
    ----------
    path : path
        The file; created when the first points are simulated.
    simulator : str
        Name for `lstmfit.simulators.load`.

    Raises
    ------
    InputError
        As `lstmfit.simulators.load`.

    Attributes
    ----------
    layout : OutputLayout
        Position of each output in a row.
    """

    def __init__(self, path, simulator: str):
        self.path, self.simulator = Path(path), simulator
        self._model = load_once(simulator)
        self._meta = {
            "simulator": simulator,
            "version": str(self._model.version),
            "parameters": [p.name for p in self._model.parameters],
            "channels": len(self._model.redshifts),
        }
        self.layout = _layout(self._model)
        self._outcomes: dict[bytes, np.ndarray | str] = {}
        self._theta: dict[bytes, np.ndarray] = {}
        self._read()

    def __len__(self):
        return len(self._outcomes)

    def _read(self):
        if not self.path.is_file():
            return
        try:
            with np.load(self.path, allow_pickle=False) as file:
                meta, theta = json.loads(str(file["meta"])), file["theta"]
                outputs, messages = file["outputs"], file["message"]
            if meta == self._meta:
                _check_shapes(meta, self.layout.size, theta, outputs, messages)
        except Exception as error:
            # A damaged archive can make NumPy raise anything.
            log.warning("%s is damaged, so its points are simulated again (%s)", self.path, one_line(error))
            return
        if meta != self._meta:
            log.warning(
                "%s is from a different version of %s, so its points are simulated again", self.path, self.simulator
            )
            return
        for point, output, message in zip(theta, outputs, messages):
            self._put(point, str(message) or output)

    def _put(self, theta, outcome):
        key = np.asarray(theta, dtype=float).tobytes()
        self._theta[key], self._outcomes[key] = np.array(theta, dtype=float), outcome

    def _write(self):
        blank = np.zeros(self.layout.size, dtype=np.float32)
        failed = [isinstance(o, str) for o in self._outcomes.values()]
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                meta=json.dumps(self._meta),
                theta=np.array(list(self._theta.values())),
                outputs=np.array([blank if bad else o for bad, o in zip(failed, self._outcomes.values())]),
                message=np.array([o if bad else "" for bad, o in zip(failed, self._outcomes.values())]),
            )

    def simulate(self, theta: np.ndarray, jobs: int | None = None, progress=None):
        """Outputs at points; those that are missing or failed earlier are simulated.

        An interruption loses at most 20 seconds of work.

        Parameters
        ----------
        theta : numpy.ndarray
            (n, n_params) physical.
        jobs : int, optional
            Number of processes; all cores by default. Few or fast points are simulated in this process.
        progress : callable, optional
            Called with (finished, n). In a notebook a bar is shown by default.

        Returns
        -------
        outputs : numpy.ndarray
            (n, n_out) signal in mK, neutral fraction and tau, arranged as in `layout`; NaN where the simulator failed.
        messages : list of str
            Error message of each failed point; empty for the others.
        """
        keys = [np.asarray(t, dtype=float).tobytes() for t in theta]
        # Failed points are tried again: the simulator may have been fixed, or the machine may have more memory.
        known = {key for key, outcome in self._outcomes.items() if not isinstance(outcome, str)}
        todo = list({key: t for key, t in zip(keys, theta) if key not in known}.values())
        done = len(theta) - len(todo)
        last, dirty = time.monotonic(), False
        try:
            with default_progress(progress, counted("simulations")) as tell:
                for point, outcome in _outcomes(self.simulator, todo, jobs):
                    self._put(point, outcome)
                    done, dirty = done + 1, True
                    if tell is not None:
                        tell(done, len(theta))
                    if time.monotonic() - last > FLUSH_S:
                        self._write()
                        last, dirty = time.monotonic(), False
        finally:
            if dirty:
                self._write()
        outputs = np.full((len(theta), self.layout.size), np.nan)
        messages = []
        for i, key in enumerate(keys):
            outcome = self._outcomes[key]
            messages.append(outcome if isinstance(outcome, str) else "")
            if not isinstance(outcome, str):
                outputs[i] = outcome
        return outputs, messages


def _check_shapes(meta, width, theta, outputs, messages):
    n = len(messages)
    expected = {"theta": (n, len(meta["parameters"])), "outputs": (n, width), "message": (n,)}
    for name, array in (("theta", theta), ("outputs", outputs), ("message", messages)):
        if array.shape != expected[name]:
            raise ValueError(f"{name} has shape {array.shape}, expected {expected[name]}")
        if array.dtype.kind not in ("U" if name == "message" else "f"):
            raise ValueError(f"{name} has dtype {array.dtype}")
    good = messages == ""
    if not (np.isfinite(theta).all() and np.isfinite(outputs[good]).all()):
        raise ValueError("values that are not finite")


def cache_path(folder, simulator: str) -> Path:
    """File of a run's simulated points; it is named like the chain, so that it is removed with it."""
    return Path(folder) / f"chain_truth_{re.sub(r'[^A-Za-z0-9.]+', '_', simulator)}.npz"


def _layout(model) -> OutputLayout:
    """Layout of a simulator's outputs; where it fails every row is a message, and the signal stands for them."""
    try:
        return simulator_layout(model)
    except SimulationError:
        return OutputLayout.of(len(model.redshifts), ("signal",))


def _run(simulator, points):
    """Outputs of each point (n_out,), or the error message."""
    layout = _layout(load_once(simulator))
    outcomes = attempt(simulator, points)
    return [o if isinstance(o, str) else layout.pack(o, np.float32) for o in outcomes]


def _outcomes(simulator, todo, jobs):
    """Yield (point, outcome), simulated in this process if that is fast and in several processes if not."""
    jobs = jobs or cores()
    begun, i = time.monotonic(), 0
    # The first call may compile, so it is not timed.
    while i < len(todo):
        yield todo[i], _run(simulator, [todo[i]])[0]
        i += 1
        if i == 1:
            begun = time.monotonic()
        elif jobs > 1 and (time.monotonic() - begun) / (i - 1) * (len(todo) - i) > WORTH_IT_S and i >= 3:
            break
    if i == len(todo):
        return
    per_point = (time.monotonic() - begun) / (i - 1)
    size = int(np.clip(2.0 / per_point, 1, 64))
    tasks = [todo[j : j + size] for j in range(i, len(todo), size)]
    with death_as(SimulationError, "a simulating process"), process_pool(jobs) as pool:
        running = {pool.submit(_run, simulator, task): task for task in tasks}
        try:
            for future in futures.as_completed(running):
                yield from zip(running[future], future.result())
        finally:
            for future in running:
                future.cancel()
