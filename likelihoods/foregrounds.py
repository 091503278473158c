"""Foregrounds, systematics and phenomenological signals, in mK.

A linear model is a basis: foreground = basis @ coefficients. It can be sampled, or marginalised analytically.
Every other model is a callable component with parameters by name.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lstmfit.errors import InputError, did_you_mean
from lstmfit.likelihoods.base import read_defaults
from lstmfit.schema import LARGEST, shown


def log_polynomial(frequency, terms: int, reference: float) -> np.ndarray:
    """Basis of the linear log polynomial ("LinLog").

    T(nu) = (nu / nu_c)^-2.5 sum_i a_i ln(nu / nu_c)^i, the form of EDGES' analyses (Bowman et al. 2018, Eq. 2 is its
    expansion; Hills et al. 2018), with coefficients in K.

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


def physical_linear(frequency, terms: int, reference: float) -> np.ndarray:
    """Basis of the five physically motivated terms.

    T(nu) = a_0 y^-2.5 + a_1 y^-2.5 ln y + a_2 y^-2.5 ln^2 y + a_3 y^-4.5 + a_4 y^-2, y = nu / nu_c: a synchrotron sky
    with its index and curvature, ionospheric absorption and emission to first order (Bowman et al. 2018, Eq. 1; Hills
    et al. 2018, Eq. 8), with coefficients in K.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    terms : int
        Number of coefficients: always 5.
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n, 5) mK for one K of each coefficient.

    Raises
    ------
    InputError
        Another number of terms.
    """
    if terms != 5:
        raise InputError(f"foreground: physical_linear has 5 terms, not {terms}; leave `terms` out")
    y = np.asarray(frequency, dtype=float) / reference
    log = np.log(y)
    return 1000.0 * np.stack([y**-2.5, y**-2.5 * log, y**-2.5 * log**2, y**-4.5, y**-2.0], axis=1)


LINEAR = {"log_polynomial": log_polynomial, "physical_linear": physical_linear}
"""Linear foreground models by the name that run files use."""


def loglog_polynomial(frequency, values, reference: float) -> np.ndarray:
    """Log-log polynomial: ln(T / K) = sum_i a_i ln(nu / nu_c)^i (Anstey et al. 2020, arXiv:2010.09644).

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        a_0, a_1, ...; any number of them.
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    log = np.log(np.asarray(frequency, dtype=float) / reference)
    return 1000.0 * np.exp(np.polynomial.polynomial.polyval(log, np.asarray(values)))


def hills(frequency, values, reference: float) -> np.ndarray:
    """Sky with ionospheric absorption and emission (Hills et al. 2018, Eq. 6).

    T(nu) = d0 y^(-2.5 + d1 + d2 ln y) exp(-tau_e y^-2) + T_e (1 - exp(-tau_e y^-2)), y = nu / nu_c.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        d0 [K], d1, d2, tau_e and T_e [K].
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    d0, d1, d2, tau_e, t_e = values
    log = np.log(np.asarray(frequency, dtype=float) / reference)
    through = np.exp(-tau_e * np.exp(-2.0 * log))
    return 1000.0 * (d0 * np.exp(log * (-2.5 + d1 + d2 * log)) * through + t_e * (1.0 - through))


def sinusoid(frequency, values, reference: float) -> np.ndarray:
    """Sinusoid damped by a power law (Hills et al. 2018; Sims & Pober 2020).

    T(nu) = (nu / nu_c)^b [A_sin sin(2 pi nu / P) + A_cos cos(2 pi nu / P)].

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        A_sin [mK], A_cos [mK], the period P [MHz] and the power b.
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    a_sin, a_cos, period, power = values
    nu = np.asarray(frequency, dtype=float)
    phase = 2.0 * np.pi * nu / period
    return (nu / reference) ** power * (a_sin * np.sin(phase) + a_cos * np.cos(phase))


def flattened_gaussian(frequency, values) -> np.ndarray:
    """Flattened Gaussian absorption (Bowman et al. 2018, Nature 555, 67, methods).

    T(nu) = -A (1 - exp(-tau e^B)) / (1 - e^-tau), B = 4 (nu - nu_0)^2 / w^2 ln[-ln((1 + e^-tau) / 2) / tau],
    so that w is the full width at half maximum for every flattening tau.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        A [mK], nu_0 [MHz], w [MHz] and tau.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    a, nu_0, w, tau = values
    half = np.log(-np.log1p(0.5 * np.expm1(-tau)) / tau)
    b = 4.0 * (np.asarray(frequency, dtype=float) - nu_0) ** 2 / w**2 * half
    return a * np.expm1(-tau * np.exp(b)) / -np.expm1(-tau)


@dataclass(frozen=True)
class Component:
    """A term of the model at the data's channels.

    Parameters
    ----------
    names : tuple of str
        Its parameters.
    evaluate : callable
        values (len(names),) -> (n,) mK.
    params : dict of str to dict
        Default prior, where there is one, and LaTeX label of each parameter.
    basis : numpy.ndarray, optional
        (n, len(names)) where it is linear: evaluate(values) = basis @ values.
    """

    names: tuple[str, ...]
    evaluate: Callable
    params: dict[str, dict]
    basis: np.ndarray | None = None


NONLINEAR = {
    "loglog_polynomial": loglog_polynomial,
    "hills": hills,
}
"""Foreground models that are not linear in their parameters, by the name that run files use."""

SYSTEMATICS = {"sinusoid": sinusoid}
"""Systematics by the name that run files use."""

NAMES = {
    "hills": ("d0", "d1", "d2", "tau_e", "T_e"),
    "sinusoid": ("A_sin", "A_cos", "period", "damping"),
    "flattened_gaussian": ("A", "nu_0", "w", "tau"),
}
"""Parameters of the models that have a fixed number of them; the others have a0, a1, ..."""


def _evaluate(function, frequency, reference, values):
    return function(frequency, values, reference)


def _known(model, models, what):
    if model not in models:
        raise InputError(f"{what} model {model!r} is unknown; {did_you_mean(model, models)}")


def middle(frequency) -> float:
    """Middle of the band in MHz: the default reference frequency."""
    return 0.5 * float(np.min(frequency) + np.max(frequency))


def _reference(frequency, reference) -> float:
    """The reference frequency; one in Hz or GHz would overflow or cancel in the powers of frequency."""
    if reference is None:
        return middle(frequency)
    if not 1e-3 * np.min(frequency) <= reference <= 1e3 * np.max(frequency):
        raise InputError(
            f"reference is {reference:g} MHz, but the data span {np.min(frequency):.4g} to {np.max(frequency):.4g}; "
            "give a frequency in MHz near them"
        )
    return reference


def foreground(
    model: str, frequency, terms: int | None = None, reference: float | None = None, mean=0.0, scale=1e4
) -> Component:
    """A foreground by name.

    Parameters
    ----------
    model : str
        A name in `LINEAR` or `NONLINEAR`.
    frequency : numpy.ndarray
        (n,) MHz.
    terms : int, optional
        Number of coefficients where the model leaves it open; 5 by default.
    reference : float, optional
        Reference frequency in MHz; the middle of the band by default.
    mean, scale : float or sequence of float
        Default Gaussian prior of the coefficients of a linear model, in K: one for all or one for each.

    Raises
    ------
    InputError
        Unknown model, a number of terms that it does not have, or not fewer terms than channels.
    """
    _known(model, (*LINEAR, *NONLINEAR), "foreground")
    reference = _reference(frequency, reference)
    names = NAMES.get(model)
    if names is not None and terms not in (None, len(names)):
        raise InputError(f"foreground: {model} has {len(names)} parameters, not {terms}; leave `terms` out")
    terms = (5 if names is None else len(names)) if terms is None else terms
    if not 1 <= terms < len(frequency):
        raise InputError(
            f"foreground: {terms} terms for {len(frequency)} channels; use at least 1 and fewer than channels"
        )
    names = tuple(f"a{i}" for i in range(terms)) if names is None else names
    if model in LINEAR:
        basis = LINEAR[model](frequency, terms, reference)
        mean, scale = (_one_each(what, value, terms) for what, value in (("mean", mean), ("scale", scale)))
        params = {
            name: {"prior": {"dist": "norm", "loc": m, "scale": s}, "latex": f"a_{{{i}}}\\ [\\mathrm{{K}}]"}
            for i, (name, m, s) in enumerate(zip(names, mean, scale))
        }
        return Component(names, functools.partial(np.matmul, basis), params, basis)
    function, known = NONLINEAR[model], read_defaults("foregrounds")[model]
    if model == "loglog_polynomial":
        params = {name: known["a"] | {"latex": f"a_{{{name[1:]}}}"} for name in names}
    else:
        params = {name: known[name] for name in names}
    return Component(names, functools.partial(_evaluate, function, frequency, reference), params)


def _one_each(what, value, terms):
    values = [float(v) for v in np.atleast_1d(value)]
    if not all(abs(v) <= LARGEST for v in values):
        raise InputError(f"foreground: {what} is {shown(value)}; give finite numbers in K")
    if len(values) not in (1, terms):
        raise InputError(f"foreground: {what} has {len(values)} numbers for {terms} terms; give one, or one for each")
    return values * terms if len(values) == 1 else values


def systematics(model: str, frequency, reference: float | None = None) -> Component:
    """A systematic error by name.

    Parameters
    ----------
    model : str
        A name in `SYSTEMATICS`.
    frequency : numpy.ndarray
        (n,) MHz.
    reference : float, optional
        Reference frequency in MHz; the middle of the band by default.

    Raises
    ------
    InputError
        Unknown model.
    """
    _known(model, SYSTEMATICS, "systematics")
    function, reference = SYSTEMATICS[model], _reference(frequency, reference)
    params = read_defaults("foregrounds")[model]
    return Component(NAMES[model], functools.partial(_evaluate, function, frequency, reference), params)
