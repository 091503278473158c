"""The compiled forward pass of a Kolmogorov-Arnold network of cubic splines. See `lstmfit.emulator.formats.kan`."""

import math

from numba import njit

from lstmfit.kernels import cached_kernel

FAST = {"contract", "reassoc", "nsz", "arcp"}
DEGREE = 3


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


@njit(fastmath=FAST, error_model="numpy")
def _layer(x, x_at, y, y_at, n_in, n_out, knots, knots_at, n_knots, weights, w_at, values):
    """Y = sum_i silu(x_i) W_i + sum_k B_k(x_i) S_ik, rows of W and S lying together by input.

    knots (n_in, n_knots); weights (n_in, 1 + n_bases, n_out), the first row of each input for silu.
    """
    n_bases = n_knots - DEGREE - 1
    for j in range(n_out):
        y[y_at + j] = 0.0
    for i in range(n_in):
        value = x[x_at + i]
        row = w_at + i * (1 + n_bases) * n_out
        silu = value / (1.0 + math.exp(-value))
        at = knots_at + i * n_knots
        span = _span(value, knots, at, n_knots)
        if span < DEGREE or span >= n_bases:
            # Outside the inner knots: fewer than four bases, or none.
            for j in range(n_out):
                y[y_at + j] += silu * weights[row + j]
            if span >= 0:
                _bases(value, span, knots, at, n_knots, values)
                for r in range(DEGREE + 1):
                    k = span - DEGREE + r
                    if 0 <= k < n_bases:
                        for j in range(n_out):
                            y[y_at + j] += values[r] * weights[row + (1 + k) * n_out + j]
            continue
        _bases(value, span, knots, at, n_knots, values)
        b0, b1, b2, b3 = values[0], values[1], values[2], values[3]
        # One pass over the outputs: the time goes into loading and storing them.
        first = row + (1 + span - DEGREE) * n_out
        second, third, fourth = first + n_out, first + 2 * n_out, first + 3 * n_out
        for j in range(n_out):
            y[y_at + j] += (
                silu * weights[row + j]
                + b0 * weights[first + j]
                + b1 * weights[second + j]
                + b2 * weights[third + j]
                + b3 * weights[fourth + j]
            )


@njit(error_model="numpy")
def _forward(theta, out, work, sizes, n_knots, width, inputs, knots, weights, scale, offset):
    """One signal: theta (n_params,) physical into out (n_channels,) mK, redshift ascending."""
    for i in range(sizes[0]):
        value = theta[i]
        if inputs[0, i] > 0.0:
            value = math.log10(value) if value > 0.0 else math.nan
        # The authors' own order of operations, to the last bit.
        work[i] = (value - inputs[1, i]) / inputs[2, i]
        if not math.isfinite(work[i]):
            out[:] = math.nan
            return
    here, there, knots_at, w_at = 0, width, 0, 0
    values = work[2 * width :]
    for layer in range(len(sizes) - 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        _layer(work, here, work, there, n_in, n_out, knots, knots_at, n_knots, weights, w_at, values)
        knots_at += n_in * n_knots
        w_at += n_in * (n_knots - DEGREE) * n_out
        here, there = there, here
    n = sizes[-1]
    for j in range(n):
        out[j] = work[here + n - 1 - j] * scale + offset


@cached_kernel(nogil=True, error_model="numpy")
def single(theta, out, work, sizes, n_knots, width, inputs, knots, weights, scale, offset):
    """One signal (n_params,) into out (n_channels,)."""
    _forward(theta, out, work, sizes, n_knots, width, inputs, knots, weights, scale, offset)


@cached_kernel(nogil=True, error_model="numpy")
def batch(theta, out, first, last, work, sizes, n_knots, width, inputs, knots, weights, scale, offset):
    """Signals `first` to `last` of theta (n, n_params) into out (n, n_channels)."""
    for i in range(first, last):
        _forward(theta[i], out[i], work, sizes, n_knots, width, inputs, knots, weights, scale, offset)
