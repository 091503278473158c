"""The CPU engine: the whole call, physical parameters in and mK out, compiled by numba.

All weights are packed into one float32 array, so a call passes a few arrays and allocates nothing. Most of the time is
spent loading the recurrent weights from the cache. A batch therefore processes several signals at a time, so that each
weight is loaded once for all of them.
"""

import threading

import numba
import numpy as np

from lstmfit.emulator import _kernel
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.scaling import Scaling
from lstmfit.emulator.simd import LANES, padded, panels
from lstmfit.emulator.threads import share_out


class NumbaEngine:
    """Forward pass on the CPU in float32.

    Parameters
    ----------
    architecture : Architecture
        Sizes of the network.
    scaling : Scaling
        Scaling of its inputs and outputs.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.

    Notes
    -----
    The engine is thread-safe: each thread has its own work space. Copies and pickles are packed again from the weights,
    and work in spawned and forked processes.
    """

    name = "numba"
    threads: int | None = None
    """Threads of a batch; None for `numba.config.NUMBA_NUM_THREADS`."""

    def __init__(self, architecture: Architecture, scaling: Scaling, weights: dict[str, np.ndarray]):
        self._parts = architecture, scaling, weights
        a = self.architecture = architecture
        u, encoder = padded(a.units), [padded(e) for e in a.encoder]
        width = max(a.layers * 6 * u, *encoder, 0)
        n_step, n_scalars = padded(a.outputs_per_step), padded(a.n_scalars)
        self._sizes = np.array(
            [a.n_params, u, a.layers, a.steps, a.patch, len(a.histories), a.n_channels, a.n_scalars, len(encoder),
             width, n_step, n_scalars, *encoder],
            dtype=np.int64,
        )
        span = scaling.high - scaling.low
        self._inputs = np.stack([scaling.log.astype(float), 2.0 / span, -2.0 * scaling.low / span - 1.0])
        self._packed = _pack(a, scaling, weights)
        self._stride = a.n_params + 2 * width + 2 * a.layers * u + 4 * u + max(n_step, n_scalars)
        self._n_out = len(a.histories) * a.n_channels + a.n_scalars
        self._local = threading.local()

    def __reduce__(self):
        return type(self), self._parts

    def single(self, theta: np.ndarray) -> np.ndarray:
        """All outputs of one parameter set.

        Parameters
        ----------
        theta : numpy.ndarray
            (n_params,) float64, physical.

        Returns
        -------
        numpy.ndarray
            (n_histories * n_channels + n_scalars,) float32: the histories one after the other, in ascending redshift,
            then the scalars. The array belongs to the engine and is overwritten by the next call from this thread.
        """
        local = self._local
        try:
            work, out = local.work, local.out
        except AttributeError:
            work = local.work = np.zeros(self._stride, np.float32)
            out = local.out = np.empty(self._n_out, np.float32)
        _kernel.single(theta, out, work, self._sizes, self._inputs, self._packed)
        return out

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """All outputs of many parameter sets, on several threads (see `threads`).

        Parameters
        ----------
        theta : numpy.ndarray
            (n, n_params) float64, physical.

        Returns
        -------
        numpy.ndarray
            (n, n_histories * n_channels + n_scalars) float32, with the layout of `single`.
        """
        out = np.empty((len(theta), self._n_out), np.float32)
        theta = np.ascontiguousarray(theta)
        rest = self._stride, self._sizes, self._inputs, self._packed

        def work(first, last):
            _kernel.batch(theta, out, first, last, *rest)

        threads = self.threads or numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        share_out(work, len(theta), LANES, threads)
        return out


def _pack(a, scaling, weights):
    """Weights in the order in which the kernel reads them, with the output scaling folded into the last layer.

    Every width is padded to whole vectors with zero weights, so padded units stay at h = c = 0.
    """
    w = {name: np.asarray(array, dtype=float) for name, array in weights.items()}
    u, parts = padded(a.units), []

    def dense(kernel, bias):
        parts.extend([bias, panels(kernel)])

    rows = a.n_params
    for i, units in enumerate(a.encoder):
        dense(_pad(w[f"encoder_{i}_kernel"], rows, padded(units)), _pad(w[f"encoder_{i}_bias"], padded(units)))
        rows = padded(units)
    drive = _pad_units(w["drive_kernel"], 6 * a.layers, a.units, u)
    dense(_pad(drive, rows, drive.shape[1]), _pad_units(w["drive_bias"], 6 * a.layers, a.units, u))
    for layer in range(a.layers):
        parts.append(_pad_units(w[f"step_bias_{layer}"], 4, a.units, u))
        for name in (f"input_{layer}", f"recurrent_{layer}") if layer else (f"recurrent_{layer}",):
            parts.append(panels(_pad(_pad_units(w[name], 4, a.units, u), u, 4 * u)))
    scale = np.repeat(scaling.scale, a.patch)
    offset = np.zeros((len(a.histories), a.steps * a.patch))
    offset[:, : a.n_channels] = scaling.offset[:, ::-1]
    offset = offset.reshape(len(a.histories), a.steps, a.patch).transpose(1, 0, 2).reshape(a.steps, -1)
    n_step = padded(a.outputs_per_step)
    parts.append(panels(_pad(w["output_kernel"] * scale, u, n_step)))
    parts.append(_pad(w["output_bias"] * scale + offset, a.steps, n_step))
    if a.n_scalars:
        n = padded(a.n_scalars)
        bias = w["scalar_bias"] * scaling.scalar_scale + scaling.scalar_offset
        dense(_pad(w["scalar_kernel"] * scaling.scalar_scale, u, n), _pad(bias, n))
    return np.concatenate([np.asarray(x, np.float32).ravel() for x in parts])


def _pad(array, *shape):
    return np.pad(array, [(0, want - got) for got, want in zip(array.shape, shape)])


def _pad_units(array, groups, units, wanted):
    """Pad each of `groups` groups of `units` columns to `wanted` columns."""
    split = array.reshape(*array.shape[:-1], groups, units)
    split = np.pad(split, [(0, 0)] * (split.ndim - 1) + [(0, wanted - units)])
    return split.reshape(*array.shape[:-1], groups * wanted)
