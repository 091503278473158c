"""Where in the prior a set is simulated."""

from collections.abc import Sequence

import numpy as np

from lstmfit.parameters import Parameter

DESIGNS = ("sobol", "uniform")
"""Sobol: scrambled quasi-random, covers the prior evenly. Uniform: independent draws from the prior."""


def draw(design: str, n: int, parameters: Sequence[Parameter], rng: np.random.Generator) -> np.ndarray:
    """Draw parameters from the prior: uniform, or log-uniform where a parameter is `log`.

    The first rows do not depend on `n`, so that a set can grow.

    Parameters
    ----------
    design : str
        One of `DESIGNS`.
    n : int
        How many.
    parameters : sequence of Parameter
        Ranges.
    rng : numpy.random.Generator
        Source of randomness, freshly seeded.

    Returns
    -------
    numpy.ndarray
        Physical values, shape (n, n_params).
    """
    if design == "sobol":
        from scipy.stats import qmc

        # Whole powers of two are what the sequence is balanced for; SciPy warns about anything else.
        unit = qmc.Sobol(len(parameters), seed=rng).random_base2(max(n - 1, 1).bit_length())[:n]
    else:
        unit = rng.random((n, len(parameters)))
    theta = np.empty_like(unit)
    for i, p in enumerate(parameters):
        if p.log:
            low, high = np.log10(p.min), np.log10(p.max)
            values = 10 ** (low + (high - low) * unit[:, i])
        else:
            values = p.min + (p.max - p.min) * unit[:, i]
        # Rounding in the power can leave the range by one bit, which a range check would notice.
        theta[:, i] = np.clip(values, p.min, p.max)
    return theta
