"""Formulae of foregrounds and systematics: bases of linear models, and functions of parameters, in mK."""

import numpy as np


def log_polynomial(frequency, terms: int, reference: float) -> np.ndarray:
    """Basis of the linear log polynomial ("LinLog").

    T(nu) = (nu / nu_c)^-2.5 sum_i a_i ln(nu / nu_c)^i, as used for EDGES (Bowman et al. 2018, Eq. 2 is its expansion;
    Hills et al. 2018), with coefficients in K.

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

    T(nu) = a_0 y^-2.5 + a_1 y^-2.5 ln y + a_2 y^-2.5 ln^2 y + a_3 y^-4.5 + a_4 y^-2, y = nu / nu_c: synchrotron
    emission with a spectral index and curvature, ionospheric absorption and emission to first order (Bowman et al.
    2018, Eq. 1; Hills et al. 2018, Eq. 8), with coefficients in K.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    terms : int
        Number of coefficients; always 5.
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n, 5) mK for one K of each coefficient.

    """
    y = np.asarray(frequency, dtype=float) / reference
    log = np.log(y)
    return 1000.0 * np.stack([y**-2.5, y**-2.5 * log, y**-2.5 * log**2, y**-4.5, y**-2.0], axis=1)


def loglog_polynomial(frequency, values, reference: float) -> np.ndarray:
    """Log-log polynomial: ln(T / K) = sum_i a_i ln(nu / nu_c)^i (Anstey et al. 2020, arXiv:2010.09644).

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        Any number of coefficients a_0, a_1, ...
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    log = np.log(np.asarray(frequency, dtype=float) / reference)
    return 1000.0 * np.exp(np.polynomial.polynomial.polyval(log, np.asarray(values)))


def log10_polynomial(frequency, values, band: tuple[float, float]) -> np.ndarray:
    """Polynomial in log-log space on a band: log10(T / K) = sum_i a_i N(log10 nu)^i (SARAS3, arXiv:2312.08828).

    N is linear and maps the band to -1..1.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        Any number of coefficients a_0, a_1, ...
    band : tuple of float
        Lowest and highest frequency in MHz.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    low, high = np.log10(band)
    x = 2.0 * (np.log10(np.asarray(frequency, dtype=float)) - low) / (high - low) - 1.0
    return 1000.0 * 10.0 ** np.polynomial.polynomial.polyval(x, np.asarray(values))


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
