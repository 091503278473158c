"""The compiled forward pass of a Kolmogorov-Arnold network of cubic splines. See `lstmfit.emulator.formats.kan`."""

import math

import numpy as np
from numba import njit

from lstmfit.kernels import cached_kernel

FAST = {"contract", "reassoc", "nsz", "arcp"}
DEGREE = 3
BLOCK, TILE = 32, 64
"""Signals and outputs that are computed together in a batch."""


@njit(inline="always")
def _span(x, knots, at, n_knots):
    """Index of the knot interval that holds x, -1 outside the grid."""
    if not (knots[at] <= x < knots[at + n_knots - 1]):
        return -1
    i = 0
    while x >= knots[at + i + 1]:
        i += 1
    return i


@njit(inline="always")
def _bases(x, span, knots, at, n_knots, values):
    """Cubic B-splines (4,) at x, by Cox and de Boor; values[r] is of the basis that begins at knot span - 3 + r.

    Knots before the first and after the last belong to bases that do not exist.
    """
    values[0] = 1.0
    for degree in range(1, DEGREE + 1):
        values[degree] = 0.0
        for r in range(degree, -1, -1):
            k = span - degree + r
            first, last = at + k, at + k + degree
            new = 0.0
            if r > 0 and k >= 0 and k + degree < n_knots:
                new += (x - knots[first]) / (knots[last] - knots[first]) * values[r - 1]
            if r < degree and k + 1 >= 0 and k + degree + 1 < n_knots:
                new += (knots[last + 1] - x) / (knots[last + 1] - knots[first + 1]) * values[r]
            values[r] = new


@njit(error_model="numpy")
def _features(x, x_at, n_in, knots, knots_at, n_knots, values, shares, first):
    """What each input adds to a layer: shares (n_in, 5) of silu and of four neighbouring bases, the first (n_in,)."""
    n_bases = n_knots - DEGREE - 1
    for i in range(n_in):
        value = x[x_at + i]
        shares[i, 0] = value / (1.0 + math.exp(-value))
        shares[i, 1:] = 0.0
        first[i] = 0
        at = knots_at + i * n_knots
        span = _span(value, knots, at, n_knots)
        if span < 0:
            continue
        _bases(value, span, knots, at, n_knots, values)
        # Near the ends of the grid fewer than four of the bases exist.
        first[i] = min(max(span - DEGREE, 0), n_bases - DEGREE - 1)
        for r in range(DEGREE + 1):
            k = span - DEGREE + r
            if 0 <= k < n_bases:
                shares[i, 1 + k - first[i]] = values[r]


@njit(fastmath=FAST, error_model="numpy")
def _add_up(shares, first, n_in, y, y_at, n_out, begin, end, n_bases, weights, w_at):
    """Outputs begin..end-1 of a layer: y = sum_i silu(x_i) W_i + sum_k B_k(x_i) S_ik.

    weights (n_in, 1 + n_bases, n_out): the first row of each input is for silu, the others are for the bases.
    """
    m = end - begin
    # Slices and a count from zero: with other indices the loops are not vectorised.
    part = y[y_at + begin : y_at + end]
    part[:] = 0.0
    for i in range(n_in):
        row = w_at + i * (1 + n_bases) * n_out + begin
        base = row + (1 + first[i]) * n_out
        w = weights[row : row + m]
        w_a = weights[base : base + m]
        w_b = weights[base + n_out : base + n_out + m]
        w_c = weights[base + 2 * n_out : base + 2 * n_out + m]
        w_d = weights[base + 3 * n_out : base + 3 * n_out + m]
        silu, a, b, c, d = shares[i, 0], shares[i, 1], shares[i, 2], shares[i, 3], shares[i, 4]
        # All five in one pass: the time goes into loading and storing the outputs.
        for j in range(m):
            part[j] += silu * w[j] + a * w_a[j] + b * w_b[j] + c * w_c[j] + d * w_d[j]


@njit(error_model="numpy")
def _scale_inputs(theta, work, inputs, n_params):
    """Scaled inputs of one signal; False where one of them is not finite."""
    for i in range(n_params):
        value = theta[i]
        if inputs[0, i] > 0.0:
            value = math.log10(value) if value > 0.0 else math.nan
        # The authors' own order of operations, to the last bit.
        work[i] = (value - inputs[1, i]) / inputs[2, i]
        if not math.isfinite(work[i]):
            return False
    return True


@njit(error_model="numpy")
def _hidden(work, sizes, n_knots, width, knots, weights, shares, first):
    """Run all layers but the last from the scaled inputs in work; leaves the features of the last one's inputs."""
    here, there, knots_at, w_at = 0, width, 0, 0
    values, n_bases = work[2 * width :], n_knots - DEGREE - 1
    for layer in range(len(sizes) - 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        _features(work, here, n_in, knots, knots_at, n_knots, values, shares, first)
        if layer == len(sizes) - 2:
            return w_at
        _add_up(shares, first, n_in, work, there, n_out, 0, n_out, n_bases, weights, w_at)
        knots_at += n_in * n_knots
        w_at += n_in * (1 + n_bases) * n_out
        here, there = there, here
    return w_at


@cached_kernel(nogil=True, error_model="numpy")
def single(theta, out, work, sizes, n_knots, width, inputs, knots, weights, scale, offset):
    """One signal (n_params,) into out (n_channels,) mK, redshift ascending."""
    if not _scale_inputs(theta, work, inputs, sizes[0]):
        out[:] = math.nan
        return
    shares, first = np.empty((width, DEGREE + 2)), np.empty(width, np.int64)
    n_in, n = sizes[-2], sizes[-1]
    w_at = _hidden(work, sizes, n_knots, width, knots, weights, shares, first)
    _add_up(shares, first, n_in, work, 0, n, 0, n, n_knots - DEGREE - 1, weights, w_at)
    for j in range(n):
        out[j] = work[n - 1 - j] * scale + offset


@cached_kernel(nogil=True, error_model="numpy")
def batch(theta, out, first, last, work, sizes, n_knots, width, inputs, knots, weights, scale, offset):
    """Signals `first` to `last` of theta (n, n_params) into out (n, n_channels).

    The last layer has most of the weights: a tile of its outputs is computed for a block of signals at a time, so that
    its weights stay in the cache.
    """
    n_in, n, n_bases = sizes[-2], sizes[-1], n_knots - DEGREE - 1
    shares, begins = np.empty((BLOCK, width, DEGREE + 2)), np.empty((BLOCK, width), np.int64)
    good = np.empty(BLOCK, np.bool_)
    w_at = 0
    for start in range(first, last, BLOCK):
        m = min(BLOCK, last - start)
        for i in range(m):
            good[i] = _scale_inputs(theta[start + i], work, inputs, sizes[0])
            if good[i]:
                w_at = _hidden(work, sizes, n_knots, width, knots, weights, shares[i], begins[i])
            else:
                out[start + i] = math.nan
        for begin in range(0, n, TILE):
            end = min(begin + TILE, n)
            for i in range(m):
                if not good[i]:
                    continue
                _add_up(shares[i], begins[i], n_in, work, 0, n, begin, end, n_bases, weights, w_at)
                for j in range(begin, end):
                    out[start + i, n - 1 - j] = work[j] * scale + offset
