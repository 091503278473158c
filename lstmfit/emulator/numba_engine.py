"""The CPU engine: the whole call, physical parameters in and mK out, compiled by numba.

All weights are packed into two arrays, so a call passes a few arrays and allocates nothing. A single call spends most
of its time loading the matrices from the cache, so they are in half precision; the arithmetic is in float32. A batch
processes several signals at a time, so that each weight is loaded and converted once for all of them.
"""

import threading

import numba
import numpy as np

from lstmfit.emulator import _kernel
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.scaling import Scaling
from lstmfit.emulator.simd import LANES, converts_halves, padded, panels
from lstmfit.emulator.threads import share_out


class NumbaEngine:
    """Forward pass on the CPU: float32 arithmetic with weights in half precision or in float32.

    Parameters
    ----------
    architecture : Architecture
        Sizes of the network.
    scaling : Scaling
        Scaling of its inputs and outputs.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.
    half : bool
        Round the matrices, but not the biases, to IEEE half precision. Matrices that exceed its range, or a processor
        that does not convert it, remain at float32.

    Notes
    -----
    The engine is thread-safe: each thread has its own work space. Copies and pickles are packed again from the weights,
    and work in spawned and forked processes.
    """

    threads: int | None = None
    """Threads of a batch; None for `numba.config.NUMBA_NUM_THREADS`."""

    def __init__(
        self, architecture: Architecture, scaling: Scaling, weights: dict[str, np.ndarray], half: bool = False
    ):
        self._parts = architecture, scaling, weights, half
        a = self.architecture = architecture
        u, encoder = padded(a.units) if a.layers else 0, [padded(e) for e in a.encoder]
        width = max(a.layers * 6 * u, *encoder, 2 * encoder[-1] if a.blocks else 0)
        n_step, n_scalars = padded(a.outputs_per_step), padded(a.n_scalars)
        self._sizes = np.array(
            [a.n_params, u, a.layers, a.steps, a.patch, len(a.histories), a.n_channels, a.n_scalars, len(encoder),
             width, n_step, n_scalars, a.blocks, *encoder],
            dtype=np.int64,
        )
        span = scaling.high - scaling.low
        self._inputs = np.stack([scaling.log.astype(float), 2.0 / span, -2.0 * scaling.low / span - 1.0])
        self._biases, self._matrices = _pack(a, scaling, weights, half and converts_halves())
        self.name = "numba32" if self._matrices.dtype == np.float32 else "numba"
        self._stride = a.n_params + 2 * width + 2 * a.layers * u + 4 * u + max(n_step, n_scalars)
        self._n_out = len(a.histories) * a.n_channels + a.n_scalars
        self._local = threading.local()

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Weights as they are used: float32, with matrices rounded to half precision if they are stored in it."""
        weights = {name: np.asarray(array, np.float32) for name, array in self._parts[2].items()}
        if self.name == "numba32":
            return weights
        return {k: w if "bias" in k else w.astype(np.float16).astype(np.float32) for k, w in weights.items()}

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
        _kernel.single(theta, out, work, self._sizes, self._inputs, self._biases, self._matrices)
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
        rest = self._stride, self._sizes, self._inputs, self._biases, self._matrices

        def work(first, last):
            _kernel.batch(theta, out, first, last, *rest)

        threads = self.threads or numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        share_out(work, len(theta), LANES, threads)
        return out


def _pack(a, scaling, weights, half):
    """Biases with the output scaling, and matrices, in the order in which the kernel reads them.

    Every width is padded to whole vectors with zero weights, so padded units stay at h = c = 0.
    """
    w = {name: np.asarray(array, dtype=float) for name, array in weights.items()}
    u, biases, matrices = padded(a.units), [], []
    rows = a.n_params
    for i, units in enumerate(a.encoder):
        biases.append(_pad(w[f"encoder_{i}_bias"], padded(units)))
        matrices.append(_pad(w[f"encoder_{i}_kernel"], rows, padded(units)))
        rows = padded(units)
    for i in range(a.blocks):
        biases.append(_pad_units(w[f"block_{i}_bias"], 2, a.encoder[-1], rows))
        matrices.append(_pad(_pad_units(w[f"block_{i}_kernel"], 2, a.encoder[-1], rows), rows, 2 * rows))
    if a.layers:
        biases.append(_pad_units(w["drive_bias"], 6 * a.layers, a.units, u))
        drive = _pad_units(w["drive_kernel"], 6 * a.layers, a.units, u)
        matrices.append(_pad(drive, rows, drive.shape[1]))
        rows = u
    for layer in range(a.layers):
        biases.append(_pad_units(w[f"step_bias_{layer}"], 4, a.units, u))
        for name in (f"input_{layer}", f"recurrent_{layer}") if layer else (f"recurrent_{layer}",):
            matrices.append(_pad(_pad_units(w[name], 4, a.units, u), u, 4 * u))
    scale = np.repeat(scaling.scale, a.patch)
    offset = np.zeros((len(a.histories), a.steps * a.patch))
    offset[:, : a.n_channels] = scaling.offset[:, ::-1]
    offset = offset.reshape(len(a.histories), a.steps, a.patch).transpose(1, 0, 2).reshape(a.steps, -1)
    n_step = padded(a.outputs_per_step)
    biases += [_pad(w["output_bias"], a.steps, n_step), _pad(scale, n_step), _pad(offset, a.steps, n_step)]
    matrices.append(_pad(w["output_kernel"], rows, n_step))
    if a.n_scalars:
        n = padded(a.n_scalars)
        biases += [_pad(array, n) for array in (w["scalar_bias"], scaling.scalar_scale, scaling.scalar_offset)]
        matrices.append(_pad(w["scalar_kernel"], rows, n))
    packed = np.concatenate([panels(matrix) for matrix in matrices])
    half = half and np.abs(packed).max() <= np.finfo(np.float16).max
    packed = packed.astype(np.float16).view(np.uint16) if half else packed.astype(np.float32)
    return np.concatenate([np.asarray(x, np.float32).ravel() for x in biases]), _aligned(packed)


def _aligned(array):
    """Copy that starts at a cache line, so that no vector crosses one."""
    line = 64
    space = np.empty(array.nbytes + line, np.uint8)
    start = -space.ctypes.data % line
    copy = space[start : start + array.nbytes].view(array.dtype)
    copy[:] = array
    return copy


def _pad(array, *shape):
    return np.pad(array, [(0, want - got) for got, want in zip(array.shape, shape)])


def _pad_units(array, groups, units, wanted):
    """Pad each of `groups` groups of `units` columns to `wanted` columns."""
    split = array.reshape(*array.shape[:-1], groups, units)
    split = np.pad(split, [(0, 0)] * (split.ndim - 1) + [(0, wanted - units)])
    return split.reshape(*array.shape[:-1], groups * wanted)
