"""Designs: how the parameters of a set are drawn from the prior."""

from collections.abc import Sequence

import numpy as np

from lstmfit.parameters import Parameter

DESIGNS = ("sobol", "uniform")
"""Sobol: scrambled quasi-random points that cover the prior evenly. Uniform: independent draws from the prior."""


def draw(design: str, n: int, parameters: Sequence[Parameter], rng: np.random.Generator) -> np.ndarray:
    """Draw parameters from the prior, which is log-uniform for `log` parameters and uniform for the others.

    The first rows do not depend on `n`, so that a set can be enlarged.

    Parameters
    ----------
    design : str
        One of `DESIGNS`.
    n : int
        Number of points.
    parameters : sequence of Parameter
        The parameters with their ranges.
    rng : numpy.random.Generator
        Newly seeded random generator.

    Returns
    -------
    numpy.ndarray
        Physical values, shape (n, n_params).
    """
    if design == "sobol":
        from scipy.stats import qmc

        # The sequence is only balanced for powers of two; SciPy warns about other numbers.
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
        # Rounding in the power can exceed the range by one bit, which would fail a range check.
        theta[:, i] = np.clip(values, p.min, p.max)
    return theta
