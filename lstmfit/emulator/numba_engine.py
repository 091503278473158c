"""The CPU engine: the whole call, physical parameters in and mK out, compiled by numba.

Everything the kernel needs lies in one float32 array, so that a call passes five arrays and allocates nothing.
The time goes into streaming the recurrent weights from the cache; a batch takes eight signals at a time so that each
weight that is read serves eight.
"""

import math
import threading

import numpy as np
from numba import njit, prange

from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.scaling import Scaling
from lstmfit.emulator.simd import LANES, add, lstm_cell, multiply_many, multiply_one, padded, panels, tanh

FAST = {"contract", "reassoc", "nsz", "arcp"}


class NumbaEngine:
    """Forward pass on the CPU in float32.

    Parameters
    ----------
    architecture : Architecture
        Sizes.
    scaling : Scaling
        Scaling on both sides.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.

    Notes
    -----
    Calls are safe from several threads: each has its own work space.
    """

    name = "numba"

    def __init__(self, architecture: Architecture, scaling: Scaling, weights: dict[str, np.ndarray]):
        a = self.architecture = architecture
        u, encoder = padded(a.units), [padded(e) for e in a.encoder]
        width = max(a.layers * 6 * u, *encoder, 0)
        n_step, n_scalars = padded(a.outputs_per_step), padded(len(a.scalars))
        self._sizes = np.array(
            [a.n_params, u, a.layers, a.steps, a.patch, len(a.histories), a.n_channels, len(a.scalars), len(encoder),
             width, n_step, n_scalars, *encoder],
            dtype=np.int64,
        )
        span = scaling.high - scaling.low
        self._inputs = np.stack([scaling.log.astype(float), 2.0 / span, -2.0 * scaling.low / span - 1.0])
        self._packed = _pack(a, scaling, weights)
        self._stride = a.n_params + 2 * width + 2 * a.layers * u + 4 * u + max(n_step, n_scalars)
        self._n_out = len(a.histories) * a.n_channels + len(a.scalars)
        self._local = threading.local()

    def single(self, theta: np.ndarray) -> np.ndarray:
        """All outputs of one parameter set.

        Parameters
        ----------
        theta : numpy.ndarray
            (n_params,) float64, physical.

        Returns
        -------
        numpy.ndarray
            (n_histories * n_channels + n_scalars,) float32: the histories one after the other, redshift ascending,
            then the scalars. The array belongs to the engine and is overwritten by this thread's next call.
        """
        local = self._local
        try:
            work, out = local.work, local.out
        except AttributeError:
            work = local.work = np.zeros(self._stride, np.float32)
            out = local.out = np.empty(self._n_out, np.float32)
        _single(theta, out, work, self._sizes, self._inputs, self._packed)
        return out

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """All outputs of many parameter sets, on all threads that numba may use.

        Parameters
        ----------
        theta : numpy.ndarray
            (n, n_params) float64, physical.

        Returns
        -------
        numpy.ndarray
            (n, n_histories * n_channels + n_scalars) float32, laid out as in `single`.
        """
        out = np.empty((len(theta), self._n_out), np.float32)
        _batch(np.ascontiguousarray(theta), out, self._stride, self._sizes, self._inputs, self._packed)
        return out


def _pack(a, scaling, weights):
    """Weights in the order in which the kernel reads them, the outputs' scaling folded into the last layer.

    Every width is padded to whole vectors with zero weights: a padded unit stays at h = c = 0.
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
    if a.scalars:
        n = padded(len(a.scalars))
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


@njit(inline="always")
def _multiply(work, acc_at, h_at, stride, w, w_at, n, m, lanes):
    if lanes == 1:
        multiply_one(work, acc_at, work, h_at, w, w_at, n, m)
    else:
        multiply_many(work, acc_at, stride, work, h_at, stride, w, w_at, n, m)


@njit(fastmath=FAST, error_model="numpy")
def _forward(out, work, stride, sizes, w, lanes):
    """Run the network for `lanes` signals.

    out (lanes, n_out). work (lanes * stride,): each lane holds, one after the other, the scaled inputs, two encoder
    buffers, h and c of every layer, the gates and the patch; all padded to whole vectors.
    """
    p, u, layers, steps, patch = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    n_hist, n_chan, n_scalar, n_enc = sizes[5], sizes[6], sizes[7], sizes[8]
    width, n_step, n_scalar_pad = sizes[9], sizes[10], sizes[11]
    n_drive = layers * 6 * u
    source, n = 0, p
    here, there = p, p + width
    at = 0
    for e in range(n_enc + 1):
        m = sizes[12 + e] if e < n_enc else n_drive
        for lane in range(lanes):
            for j in range(m):
                work[lane * stride + there + j] = w[at + j]
        at += m
        _multiply(work, there, source, stride, w, at, n, m, lanes)
        at += n * m
        if e < n_enc:
            for lane in range(lanes):
                tanh(work, lane * stride + there, m)
        source, n = there, m
        here, there = there, here
    drive = source
    hs = p + 2 * width
    cs = hs + layers * u
    gates = cs + layers * u
    patch_at = gates + 4 * u
    for lane in range(lanes):
        for layer in range(layers):
            for j in range(u):
                work[lane * stride + hs + layer * u + j] = work[lane * stride + drive + layer * 6 * u + 4 * u + j]
                work[lane * stride + cs + layer * u + j] = work[lane * stride + drive + layer * 6 * u + 5 * u + j]
    square = 4 * u * u
    recurrent = at
    output = recurrent + layers * (square + steps * 4 * u) + (layers - 1) * square
    bias_at = output + u * n_step
    for step in range(steps):
        at = recurrent
        for layer in range(layers):
            bias = at + step * 4 * u
            at += steps * 4 * u
            for lane in range(lanes):
                o = lane * stride
                add(work, o + gates, work, o + drive + layer * 6 * u, w, bias, 4 * u)
            if layer > 0:
                _multiply(work, gates, hs + (layer - 1) * u, stride, w, at, u, 4 * u, lanes)
                at += square
            _multiply(work, gates, hs + layer * u, stride, w, at, u, 4 * u, lanes)
            at += square
            for lane in range(lanes):
                o = lane * stride
                lstm_cell(work, o + gates, work, o + cs + layer * u, work, o + hs + layer * u, u)
        for lane in range(lanes):
            for j in range(n_step):
                work[lane * stride + patch_at + j] = w[bias_at + step * n_step + j]
        top = hs + (layers - 1) * u
        _multiply(work, patch_at, top, stride, w, output, u, n_step, lanes)
        # The recurrence runs from high redshift to low; what comes out ascends.
        for lane in range(lanes):
            for i in range(n_hist):
                last = (i + 1) * n_chan - 1 - step * patch
                for j in range(min(patch, n_chan - step * patch)):
                    out[lane, last - j] = work[lane * stride + patch_at + i * patch + j]
    if n_scalar > 0:
        at = bias_at + steps * n_step
        for lane in range(lanes):
            for j in range(n_scalar_pad):
                work[lane * stride + gates + j] = w[at + j]
        _multiply(work, gates, hs + (layers - 1) * u, stride, w, at + n_scalar_pad, u, n_scalar_pad, lanes)
        for lane in range(lanes):
            for j in range(n_scalar):
                out[lane, n_hist * n_chan + j] = work[lane * stride + gates + j]


@njit(inline="always")
def _scale_inputs(theta, x, inputs):
    """Scaled inputs of one signal; False where a value is NaN or a log parameter is not positive."""
    for i in range(theta.shape[0]):
        value = theta[i]
        if inputs[0, i] > 0.0:
            value = math.log10(value) if value > 0.0 else math.nan
        value = value * inputs[1, i] + inputs[2, i]
        if not math.isfinite(value):
            return False
        x[i] = value
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _single(theta, out, work, sizes, inputs, w):
    if _scale_inputs(theta, work, inputs):
        _forward(out.reshape((1, out.shape[0])), work, work.shape[0], sizes, w, 1)
    else:
        out[:] = np.nan


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _batch(theta, out, stride, sizes, inputs, w):
    n = theta.shape[0]
    for group in prange((n + LANES - 1) // LANES):
        first = group * LANES
        result = np.empty((LANES, out.shape[1]), np.float32)
        work = np.zeros(LANES * stride, np.float32)
        good = np.zeros(LANES, np.bool_)
        for lane in range(LANES):
            if first + lane < n:
                x = work[lane * stride : (lane + 1) * stride]
                good[lane] = _scale_inputs(theta[first + lane], x, inputs)
                if not good[lane]:
                    x[: theta.shape[1]] = 0.0
        _forward(result, work, stride, sizes, w, LANES)
        for lane in range(LANES):
            if first + lane < n:
                if good[lane]:
                    out[first + lane] = result[lane]
                else:
                    out[first + lane] = np.nan
