"""Engine for published networks: a compiled kernel with a work space per thread."""

import importlib
import threading

import numba
import numpy as np

from lstmfit.emulator.threads import share_out

BLOCK = 16
"""Number of signals of a batch that a thread processes at a time."""


class CompiledEngine:
    """Forward pass on the CPU with the kernels of a module.

    Parameters
    ----------
    module : str
        Module with the compiled ``single(theta, out, work, *rest)`` and
        ``batch(theta, out, first, last, work, *rest)``.
    n_out : int
        Number of outputs, float64.
    work_size, work_type
        Size and type of the work space of a thread.
    rest : tuple
        Other arguments of the kernels: sizes, weights, scaling.

    Notes
    -----
    The engine is thread-safe: each thread has its own work space. It can be pickled and copied.
    """

    name = "numba"
    threads: int | None = None
    """Threads of a batch; None for `numba.config.NUMBA_NUM_THREADS`."""

    def __init__(self, module: str, n_out: int, work_size: int, work_type, rest: tuple):
        self._parts = module, n_out, work_size, work_type, rest
        self._kernel, self._rest, self._n_out = importlib.import_module(module), rest, n_out
        self._local = threading.local()

    def __reduce__(self):
        return type(self), self._parts

    def _work(self) -> np.ndarray:
        return np.empty(self._parts[2], self._parts[3])

    def single(self, theta: np.ndarray) -> np.ndarray:
        """Outputs (n_out,) float64 of theta (n_params,), overwritten by the next call from this thread."""
        local = self._local
        try:
            work, out = local.work, local.out
        except AttributeError:
            work, out = local.work, local.out = self._work(), np.empty(self._n_out)
        self._kernel.single(theta, out, work, *self._rest)
        return out

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """Outputs (n, n_out) float64 of theta (n, n_params), on several threads (see `threads`)."""
        theta, out = np.ascontiguousarray(theta), np.empty((len(theta), self._n_out))

        def run(first, last):
            self._kernel.batch(theta, out, first, last, self._work(), *self._rest)

        share_out(run, len(theta), BLOCK, self.threads or numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        return out
