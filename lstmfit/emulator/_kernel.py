"""The compiled forward pass: physical parameters in, physical outputs out. See `lstmfit.emulator.numba_engine`."""

import math

import numpy as np
from numba import njit

from lstmfit.emulator.simd import LANES, add, gated_block, lstm_cell, multiply_many, multiply_one, tanh
from lstmfit.kernels import cached_kernel

FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(inline="always")
def _multiply(work, acc_at, h_at, stride, w, w_at, n, m, lanes):
    if lanes == 1:
        multiply_one(work, acc_at, work, h_at, w, w_at, n, m)
    else:
        multiply_many(work, acc_at, stride, work, h_at, stride, w, w_at, n, m)


@njit(fastmath=FAST, error_model="numpy")
def _forward(out, work, stride, sizes, b, w, lanes):
    """Run the network for `lanes` signals.

    out (lanes, n_out). work (lanes * stride,): each lane contains, in this order, the scaled inputs, two encoder
    buffers, h and c of every layer, the gates and the patch, all padded to whole vectors. b and w: biases and matrices.
    """
    p, u, layers, steps, patch = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
    n_hist, n_chan, n_scalar, n_enc = sizes[5], sizes[6], sizes[7], sizes[8]
    width, n_step, n_scalar_pad, n_blocks = sizes[9], sizes[10], sizes[11], sizes[12]
    n_drive = layers * 6 * u
    source, n = 0, p
    here, there = p, p + width
    b_at, w_at = 0, 0
    for e in range(n_enc + n_blocks + (layers > 0)):
        block = n_enc <= e < n_enc + n_blocks
        m = sizes[13 + e] if e < n_enc else 2 * n if block else n_drive
        for lane in range(lanes):
            for j in range(m):
                work[lane * stride + there + j] = b[b_at + j]
        _multiply(work, there, source, stride, w, w_at, n, m, lanes)
        b_at += m
        w_at += n * m
        if block:
            for lane in range(lanes):
                gated_block(work, lane * stride + source, work, lane * stride + there, n)
        else:
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
    step_bias, recurrent = b_at, w_at
    output_bias, output = step_bias + layers * steps * 4 * u, recurrent + max(2 * layers - 1, 0) * square
    top, n_top = (hs + (layers - 1) * u, u) if layers > 0 else (source, n)
    scale, offset = output_bias + steps * n_step, output_bias + (steps + 1) * n_step
    for step in range(steps):
        w_at = recurrent
        for layer in range(layers):
            bias = step_bias + (layer * steps + step) * 4 * u
            for lane in range(lanes):
                o = lane * stride
                add(work, o + gates, work, o + drive + layer * 6 * u, b, bias, 4 * u)
            if layer > 0:
                _multiply(work, gates, hs + (layer - 1) * u, stride, w, w_at, u, 4 * u, lanes)
                w_at += square
            _multiply(work, gates, hs + layer * u, stride, w, w_at, u, 4 * u, lanes)
            w_at += square
            for lane in range(lanes):
                o = lane * stride
                lstm_cell(work, o + gates, work, o + cs + layer * u, work, o + hs + layer * u, u)
        for lane in range(lanes):
            for j in range(n_step):
                work[lane * stride + patch_at + j] = b[output_bias + step * n_step + j]
        _multiply(work, patch_at, top, stride, w, output, n_top, n_step, lanes)
        # The recurrence runs from high redshift to low; the output is in ascending redshift.
        for lane in range(lanes):
            for i in range(n_hist):
                last = (i + 1) * n_chan - 1 - step * patch
                for j in range(min(patch, n_chan - step * patch)):
                    k = i * patch + j
                    value = work[lane * stride + patch_at + k] * b[scale + k]
                    out[lane, last - j] = value + b[offset + step * n_step + k]
    if n_scalar > 0:
        b_at = offset + steps * n_step
        for lane in range(lanes):
            for j in range(n_scalar_pad):
                work[lane * stride + gates + j] = b[b_at + j]
        _multiply(work, gates, top, stride, w, output + n_top * n_step, n_top, n_scalar_pad, lanes)
        for lane in range(lanes):
            for j in range(n_scalar):
                value = work[lane * stride + gates + j] * b[b_at + n_scalar_pad + j]
                out[lane, n_hist * n_chan + j] = value + b[b_at + 2 * n_scalar_pad + j]


@njit(inline="always")
def _scale_inputs(theta, x, inputs):
    """Scale the inputs of one signal; return False if a value is NaN or a log parameter is not positive."""
    for i in range(theta.shape[0]):
        value = theta[i]
        if inputs[0, i] > 0.0:
            value = math.log10(value) if value > 0.0 else math.nan
        value = value * inputs[1, i] + inputs[2, i]
        if not math.isfinite(value):
            return False
        x[i] = value
    return True


@cached_kernel(nogil=True, error_model="numpy")
def single(theta, out, work, sizes, inputs, b, w):
    """Write all outputs of one parameter set (n_params,) to out (n_out,)."""
    if _scale_inputs(theta, work, inputs):
        _forward(out.reshape((1, out.shape[0])), work, work.shape[0], sizes, b, w, 1)
    else:
        out[:] = np.nan


@cached_kernel(nogil=True, error_model="numpy")
def batch(theta, out, first, last, stride, sizes, inputs, b, w):
    """Compute all outputs of the parameter sets first..last-1 of theta (n, n_params), `LANES` at a time."""
    result = np.empty((LANES, out.shape[1]), np.float32)
    work = np.zeros(LANES * stride, np.float32)
    good = np.zeros(LANES, np.bool_)
    for start in range(first, last, LANES):
        for lane in range(LANES):
            good[lane] = False
            x = work[lane * stride : (lane + 1) * stride]
            if start + lane < last:
                good[lane] = _scale_inputs(theta[start + lane], x, inputs)
            if not good[lane]:
                x[: theta.shape[1]] = 0.0
        _forward(result, work, stride, sizes, b, w, LANES)
        for lane in range(LANES):
            if start + lane < last:
                if good[lane]:
                    out[start + lane] = result[lane]
                else:
                    out[start + lane] = np.nan
