"""The parts of ECHO21 that take its time, compiled: Lyman-alpha integrals and right-hand sides.

The formulae are those of ECHO21 4.3.2 (MIT licence; S. Mittal et al. 2026, RASTI, doi 10.1093/rasti/rzag001), to which
the tests hold them. What differs is rearranged arithmetic, so results differ by rounding alone:

* the Lyman-alpha intensities are one weighted sum over f_coll at fixed multiples of 1+z, because the Hubble
  factor cancels;
* the integral over (0, inf) in the heating by injected photons and the Airy functions in that by continuum
  photons depend on one variable, xi, so the one is a fixed Gauss-Legendre sum and the other a power series.
"""

from typing import NamedTuple

import numpy as np

from lstmfit.kernels import cached_kernel

IONISATION, THERMAL = 0, 1
"""Which right-hand side `derivative` is: Q_HII (one variable), or x_e and T_k (two)."""


class Coefficients(NamedTuple):
    """Coefficients of the right-hand sides, except f_coll; SI units, Z is 1+z."""

    # Fixed by the cosmology and ECHO21's constants.
    hubble0: float  # H(Z) = hubble0 sqrt(om_r Z^4 + om_m Z^3 + om_l)
    om_r: float
    om_m: float
    om_l: float
    t_cmb: float  # K today
    n_h: float  # m^-3 today
    x_he: float
    z_star: float  # 1+z at which stars start
    recombination: float  # alpha_B (1 + x_He), m^3/s
    clumping: float
    clumping_slope: float
    k_rr: float  # lam_alpha^3 / 8 pi
    lam_h: float
    alpha_scale: float
    alpha_b: float
    alpha_c: float
    alpha_d: float
    beta_scale: float  # (2 pi m_e k_B / h^2)^1.5
    beta_kelvin: float  # B2 / k_B
    lya_kelvin: float  # E_alpha / k_B
    compton: float
    a_tau_scale: float  # a tau = scale Z^3 (1 - x_e) / (H sqrt(T_k))
    recoil: float
    doppler: float
    lya_heat: float
    # Set by theta.
    ionising: float  # dQ/dlna = ionising f_coll - ...
    x_heat: float  # kelvin per f_coll, before f_Xh / (1 + x_He + x_e)
    x_ion: float  # per f_coll, before 1/E_w + f_ion / 13.6
    x_energy: float  # 1/E_w in 1/eV


def _injected_quadrature(nodes=40, end=1.8):
    """Nodes s^2 and weights of int_0^inf exp(-b s^2 - s^6/3) erfc(s^3) ds; negligible beyond `end`."""
    from scipy.special import erfc

    x, w = np.polynomial.legendre.leggauss(nodes)
    s = 0.5 * end * (x + 1)
    return s**2, 0.5 * end * w * np.exp(-(s**6) / 3) * erfc(s**3)


def _airy_series(terms=90):
    """Taylor coefficients in x of Ai(x)^2 + Bi(x)^2, which solves w''' = 4 x w' + 2 w."""
    from scipy.special import airy

    ai, aip, bi, bip = airy(0.0)
    a = np.zeros(terms)
    a[:3] = ai**2 + bi**2, 2 * (ai * aip + bi * bip), aip**2 + bip**2
    for k in range(terms - 3):
        a[k + 3] = (4 * k + 2) * a[k] / ((k + 3) * (k + 2) * (k + 1))
    return a


_INJECTED_S2, _INJECTED_W = _injected_quadrature()
_AIRY = _airy_series()


@cached_kernel(error_model="numpy")
def airy_modulus(xi):
    """Ai(-xi)^2 + Bi(-xi)^2 for xi >= 0."""
    if xi < 3.0:
        total, power = 0.0, 1.0
        for coefficient in _AIRY:
            total += coefficient * power
            power *= -xi
            if abs(power) < 1e-300:
                break
        return total
    # The asymptotic series, inaccurate near xi = 3. Gas is never so cold (xi < 1); this only keeps trial steps finite.
    total, term, cube = 0.0, 1.0, 96.0 * xi**3
    for k in range(1, 12):
        total += term
        following = -term * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (k * cube)
        if abs(following) > abs(term):
            break
        term = following
    return total / (np.pi * np.sqrt(xi))


@cached_kernel(error_model="numpy")
def injected_integral(b):
    """int_0^inf exp(-b s^2 - s^6/3) erfc(s^3) ds for moderate b >= 0."""
    total = 0.0
    for i in range(_INJECTED_S2.size):
        total += _INJECTED_W[i] * np.exp(-b * _INJECTED_S2[i])
    return total


@cached_kernel(error_model="numpy")
def collapse_fraction(z, spline, z_star):
    """Collapsed fraction at Z = z from cubic coefficients (4, n) on knots 1, 2, ..., n+1; 0 beyond z_star."""
    if not z <= z_star:
        return 0.0
    i = min(max(int(z - 1.0), 0), spline.shape[1] - 1)
    d = z - (1.0 + i)
    return max(((spline[0, i] * d + spline[1, i]) * d + spline[2, i]) * d + spline[3, i], 0.0)


@cached_kernel(error_model="numpy")
def intensities(z, spline, z_star, ratios, weights, n_continuum):
    """Lyman-alpha intensities at Z = z due to continuum and injected photons, m^-2 s^-1 Hz^-1 sr^-1.

    `ratios` and `weights` have shape (n,), continuum first (`n_continuum` of them).
    """
    continuum = injected = 0.0
    if z <= z_star:
        for i in range(ratios.size):
            part = weights[i] * collapse_fraction(z * ratios[i], spline, z_star)
            if i < n_continuum:
                continuum += part
            else:
                injected += part
    return z**3 * continuum, z**3 * injected


@cached_kernel(error_model="numpy")
def intensities_on(zs, spline, z_star, ratios, weights, n_continuum):
    """`intensities` for each of `zs`; shape (n, 2)."""
    out = np.empty((zs.size, 2))
    for i in range(zs.size):
        out[i] = intensities(zs[i], spline, z_star, ratios, weights, n_continuum)
    return out


@cached_kernel(error_model="numpy")
def derivative(kind, t, y, out, c, spline, ratios, weights, n_continuum):
    """dy/dln(a) at ln(a) = t, into `out`."""
    z = np.exp(-t)
    hubble = c.hubble0 * np.sqrt(c.om_r * z**4 + c.om_m * z**3 + c.om_l)
    f_coll = collapse_fraction(z, spline, c.z_star)
    n_h = c.n_h * z**3
    if kind == IONISATION:
        if y[0] < 0.999:
            recombinations = c.recombination * c.clumping * z**c.clumping_slope * n_h * y[0] / hubble
            out[0] = c.ionising * f_coll - recombinations
        else:
            out[0] = 0.0
        return
    x_e, t_k = y[0], y[1]
    t_cmb = c.t_cmb * z
    bulk = 1.0 + c.x_he + x_e
    if x_e < 0.99:
        scaled = t_cmb / 10000.0
        beta = c.alpha_scale * scaled**c.alpha_b / (1.0 + c.alpha_c * scaled**c.alpha_d)
        beta *= c.beta_scale * t_cmb**1.5 * np.exp(-c.beta_kelvin / t_cmb)
        scaled = t_k / 10000.0
        alpha = c.alpha_scale * scaled**c.alpha_b / (1.0 + c.alpha_c * scaled**c.alpha_d)
        krr = c.k_rr / hubble * n_h * (1.0 - x_e)
        peebles = (1.0 + krr * c.lam_h) / (1.0 + krr * (c.lam_h + beta))
        recombining = peebles * (x_e**2 * n_h * alpha - beta * (1.0 - x_e) * np.exp(-c.lya_kelvin / t_cmb)) / hubble
        f_ion = 0.3908 * (1.0 - x_e**0.4092) ** 1.7592
        dxe = recombining - c.x_ion * f_coll * (c.x_energy + f_ion / 13.6)
    else:
        dxe = 0.0

    compton = c.compton * t_cmb**4 * x_e * (t_cmb - t_k) / (hubble * bulk)
    x_rays = c.x_heat * f_coll * (1.0 - (1.0 - x_e**0.2663) ** 1.3163) / bulk

    root = np.sqrt(t_k)
    eta = c.recoil / root
    a_tau = c.a_tau_scale * z**3 * (1.0 - x_e) / (hubble * root)
    cube = a_tau * eta**3 / np.pi
    scatter = np.exp(-1.69 * (4.0 / 3.0 * np.sqrt(cube)) ** 0.667)
    xi = (4.0 * cube) ** (1.0 / 3.0)
    width = (2.0 * a_tau / np.pi) ** (1.0 / 3.0)
    i_continuum = eta * (2.0 * np.pi**4 * a_tau**2) ** (1.0 / 3.0) * airy_modulus(xi)
    i_injected = 2.0 * eta * np.sqrt(0.5 * a_tau * width) * injected_integral(2.0 * eta * width)
    i_injected -= scatter * (1.0 - scatter) / (2.0 * eta)
    j_continuum, j_injected = intensities(z, spline, c.z_star, ratios, weights, n_continuum)
    lya = c.lya_heat * root / (bulk * n_h) * (j_continuum * i_continuum + j_injected * i_injected)

    out[0] = -dxe
    out[1] = -(2.0 * t_k - t_k * dxe / bulk - (compton + x_rays + lya))
