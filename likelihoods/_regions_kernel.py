"""Compiled sky of regions with a spectral index each.

Nearly all of its cost are the exponentials, one per region and channel. `math.exp` is a call per number; here they are
written so that the compiler uses vector instructions.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lstmfit.kernels import cached_kernel

DOUBLE, INT = ir.DoubleType(), ir.IntType(64)
ROUND = 1.5 * 2.0**52
"""Adding it to a number leaves the nearest integer in the lowest bits."""
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
"""Their sum is ln 2; the product of the first with an exponent is exact."""


@intrinsic
def _power_of_two(typingctx, shifted):
    """2^k, where k is an integer that is given as k + `ROUND`."""

    def codegen(context, builder, signature, args):
        exponent = builder.add(builder.bitcast(args[0], INT), INT(1023))
        return builder.bitcast(builder.shl(exponent, INT(52)), DOUBLE)

    return types.float64(types.float64), codegen


@cached_kernel(fastmath={"contract"})
def exp(x):
    """Exponential function with a relative error below 1e-15 for |x| < 700; x beyond that is set to the limit."""
    x = min(max(x, -700.0), 700.0)
    shifted = x * LOG2_E + ROUND
    k = shifted - ROUND
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    # Taylor series to r^13, where |r| < 0.35.
    p = 1 / 479001600 + r * (1 / 6227020800)
    p = 1 / 39916800 + r * p
    p = 1 / 3628800 + r * p
    p = 1 / 362880 + r * p
    p = 1 / 40320 + r * p
    p = 1 / 5040 + r * p
    p = 1 / 720 + r * p
    p = 1 / 120 + r * p
    p = 1 / 24 + r * p
    p = 1 / 6 + r * p
    p = 0.5 + r * p
    return (1.0 + r * (1.0 + r * p)) * _power_of_two(shifted)


@cached_kernel(fastmath={"contract"})
def _sum_of_power_laws(weights, log_frequency, constant, betas):
    out = np.full(log_frequency.size, constant)
    for i in range(betas.size):
        for j in range(out.size):
            out[j] += weights[i, j] * exp(-betas[i] * log_frequency[j])
    return out


def sky_of_regions(weights, log_frequency, constant, betas) -> np.ndarray:
    """Constant plus the sum over regions i of weights_i(nu) (nu / nu_c)^-beta_i.

    Parameters
    ----------
    weights : numpy.ndarray
        (n_regions, n) C-contiguous.
    log_frequency : numpy.ndarray
        (n,) ln(nu / nu_c).
    constant : float
        In the unit of the weights.
    betas : numpy.ndarray
        (n_regions,) spectral indices.

    Returns
    -------
    numpy.ndarray
        (n,) in the unit of the weights.
    """
    return _sum_of_power_laws(weights, log_frequency, constant, np.ascontiguousarray(betas, dtype=np.float64))
