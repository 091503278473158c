"""Compiled forward pass of a dense network with redshift as an input. See `lstmfit.emulator.formats.globalemu`."""

import math

import numpy as np
from numba import njit

from lstmfit.emulator.simd import LANES, multiply_many, tanh
from lstmfit.kernels import cached_kernel

FAST = {"contract", "reassoc", "nsz", "arcp"}
LINEAR, TANH, RELU, SIGMOID, ELU, SOFTPLUS = range(6)


@njit(inline="always", error_model="numpy")
def _activate_one(x, activation):
    if activation == RELU:
        return max(x, np.float32(0.0))
    if activation == SIGMOID:
        return np.float32(1.0) / (np.float32(1.0) + math.exp(-x))
    if activation == ELU:
        return x if x > np.float32(0.0) else math.expm1(x)
    if activation == SOFTPLUS:
        return max(x, np.float32(0.0)) + math.log1p(math.exp(-abs(x)))
    return math.tanh(x) if activation == TANH else x


@njit(fastmath=FAST, error_model="numpy")
def _activate(work, at, n, activation):
    """Apply an activation to work[at : at + n], n whole vectors."""
    if activation == TANH:
        tanh(work, at, n)
    elif activation != LINEAR:
        for j in range(at, at + n):
            work[j] = _activate_one(work[j], activation)


@njit(fastmath=FAST, error_model="numpy")
def _forward(theta, out, work, sizes, activations, inputs, w, z, scale, baseline):
    """Compute one signal: theta (n_params,) physical, to out (n_channels,).

    sizes (1 + n_hidden,): number of parameters, then the widths of the hidden layers, padded to whole vectors. `LANES`
    redshifts are processed together, so that each weight is loaded once for all of them. work: scaled inputs, the
    contribution of the parameters to the first layer, then two buffers for each lane.
    """
    p, n_hidden, n = sizes[0], len(sizes) - 1, len(out)
    width = sizes[1:].max()
    first = sizes[1]
    base, here, there = p, p + width, p + width + LANES * width
    for i in range(p):
        value = theta[i]
        if inputs[0, i] > 0.0:
            value = math.log10(value) if value > 0.0 else math.nan
        value = (value - inputs[1, i]) / inputs[2, i]
        if not math.isfinite(value):
            out[:] = math.nan
            return
        work[i] = value
    # The bias and the contribution of the parameters to the first layer are the same at every redshift.
    for j in range(first):
        total = w[j]
        for i in range(p):
            total += work[i] * w[(1 + i) * first + j]
        work[base + j] = total
    slope, start_w = (1 + p) * first, (2 + p) * first
    for start in range(0, n, LANES):
        for lane in range(LANES):
            z_lane = z[min(start + lane, n - 1)]
            for j in range(first):
                work[here + lane * width + j] = work[base + j] + z_lane * w[slope + j]
            _activate(work, here + lane * width, first, activations[0])
        at = start_w
        for layer in range(1, n_hidden):
            n_in, n_out = sizes[layer], sizes[layer + 1]
            for lane in range(LANES):
                for j in range(n_out):
                    work[there + lane * width + j] = w[at + j]
            at += n_out
            multiply_many(work, there, width, work, here, width, w, at, n_in, n_out)
            at += n_in * n_out
            for lane in range(LANES):
                _activate(work, there + lane * width, n_out, activations[layer])
            here, there = there, here
        last = sizes[n_hidden]
        for lane in range(min(LANES, n - start)):
            total = w[at]
            for j in range(last):
                total += work[here + lane * width + j] * w[at + 1 + j]
            out[start + lane] = _activate_one(total, activations[n_hidden]) * scale + baseline[start + lane]


@cached_kernel(nogil=True, error_model="numpy")
def single(theta, out, work, sizes, activations, inputs, w, z, scale, baseline):
    """Compute the signal of theta (n_params,), to out (n_channels,)."""
    _forward(theta, out, work, sizes, activations, inputs, w, z, scale, baseline)


@cached_kernel(nogil=True, error_model="numpy")
def batch(theta, out, first, last, work, sizes, activations, inputs, w, z, scale, baseline):
    """Compute the signals first..last-1 of theta (n, n_params), to out (n, n_channels)."""
    for i in range(first, last):
        _forward(theta[i], out[i], work, sizes, activations, inputs, w, z, scale, baseline)
