"""Foreground models, in mK.

A linear model is a basis: foreground = basis @ coefficients. It can be sampled, or marginalised analytically.
"""

import difflib

import numpy as np

from lstmfit.errors import InputError


def log_polynomial(frequency, terms: int, reference: float) -> np.ndarray:
    """Basis of the linear log polynomial ("LinLog").

    T(nu) = (nu / nu_c)^-2.5 sum_i a_i ln(nu / nu_c)^i, the form of EDGES' analyses (Hills et al. 2018; Bowman et al.
    2018, Eq. 2 is its expansion), with coefficients in K.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    terms : int
        Number of coefficients.
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n, terms) mK for one K of each coefficient.
    """
    x = np.asarray(frequency, dtype=float) / reference
    return 1000.0 * x[:, None] ** -2.5 * np.log(x)[:, None] ** np.arange(terms)


LINEAR = {"log_polynomial": log_polynomial}
"""Linear foreground models by the name that run files use."""


def linear_basis(model: str, frequency, terms: int, reference: float | None = None) -> np.ndarray:
    """Basis of a linear foreground model.

    Parameters
    ----------
    model : str
        A name in `LINEAR`.
    frequency : numpy.ndarray
        (n,) MHz.
    terms : int
        Number of coefficients.
    reference : float, optional
        Reference frequency in MHz; the middle of the band by default.

    Raises
    ------
    InputError
        Unknown model, or more terms than channels.
    """
    if model not in LINEAR:
        close = difflib.get_close_matches(model, LINEAR, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(LINEAR)}"
        raise InputError(f"foreground model {model!r} is unknown; {hint}")
    if not 1 <= terms < len(frequency):
        raise InputError(
            f"foreground: {terms} terms for {len(frequency)} channels; use at least 1 and fewer than channels"
        )
    reference = 0.5 * (frequency.min() + frequency.max()) if reference is None else reference
    return LINEAR[model](frequency, terms, reference)
