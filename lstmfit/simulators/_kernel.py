"""The parts of ECHO21 that take its time, compiled: Lyman-alpha integrals, right-hand sides, Radau.

The formulae are those of ECHO21 4.3.2 (MIT licence; S. Mittal et al. 2026, RASTI, doi 10.1093/rasti/rzag001)
and the integrator takes the same steps as SciPy's `Radau` (BSD licence), which ECHO21 uses: the tests hold
both to upstream. What differs is rearranged arithmetic, so results differ by rounding alone:

* the Lyman-alpha intensities are one weighted sum over f_coll at fixed multiples of 1+z, because the Hubble
  factor cancels;
* the integral over (0, inf) in the heating by injected photons and the Airy functions in that by continuum
  photons depend on one variable, xi, so the one is a fixed Gauss-Legendre sum and the other a power series.
"""

from typing import NamedTuple

import numba
import numpy as np

IONISATION, THERMAL = 0, 1
"""Which right-hand side `integrate` solves: Q_HII (one variable), or x_e and T_k (two)."""


class Coefficients(NamedTuple):
    """Everything that the right-hand sides need besides f_coll; SI units, Z is 1+z."""

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


_S6 = 6**0.5
_C = np.array([(4 - _S6) / 10, (4 + _S6) / 10, 1.0])
_E = np.array([-13 - 7 * _S6, -13 + 7 * _S6, -1.0]) / 3
_MU_REAL = 3 + 3 ** (2 / 3) - 3 ** (1 / 3)
_MU_COMPLEX = 3 + 0.5 * (3 ** (1 / 3) - 3 ** (2 / 3)) - 0.5j * (3 ** (5 / 6) + 3 ** (7 / 6))
_T = np.array(
    [
        [0.09443876248897524, -0.14125529502095421, 0.03002919410514742],
        [0.25021312296533332, 0.20412935229379994, -0.38294211275726192],
        [1.0, 1.0, 0.0],
    ]
)
_TI = np.array(
    [
        [4.17871859155190428, 0.32768282076106237, 0.52337644549944951],
        [-4.17871859155190428, -0.32768282076106237, 0.47662355450055044],
        [0.50287263494578682, -2.57192694985560522, 0.59603920482822492],
    ]
)
_P = np.array(
    [
        [13 / 3 + 7 * _S6 / 3, -23 / 3 - 22 * _S6 / 3, 10 / 3 + 5 * _S6],
        [13 / 3 - 7 * _S6 / 3, -23 / 3 + 22 * _S6 / 3, 10 / 3 - 5 * _S6],
        [1 / 3, -8 / 3, 10 / 3],
    ]
)
_NEWTON_MAXITER = 6
_EPS = np.finfo(float).eps


def _injected_quadrature(nodes=40, end=1.8):
    """Nodes s^2 and weights of int_0^inf exp(-b s^2 - s^6/3) erfc(s^3) ds; nothing is left beyond `end`."""
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


@numba.njit(cache=True, error_model="numpy")
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
    # The asymptotic series, coarse near xi = 3; gas is never so cold (xi < 1): it only keeps trials finite.
    total, term, cube = 0.0, 1.0, 96.0 * xi**3
    for k in range(1, 12):
        total += term
        following = -term * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (k * cube)
        if abs(following) > abs(term):
            break
        term = following
    return total / (np.pi * np.sqrt(xi))


@numba.njit(cache=True, error_model="numpy")
def injected_integral(b):
    """int_0^inf exp(-b s^2 - s^6/3) erfc(s^3) ds for moderate b >= 0."""
    total = 0.0
    for i in range(_INJECTED_S2.size):
        total += _INJECTED_W[i] * np.exp(-b * _INJECTED_S2[i])
    return total


@numba.njit(cache=True, error_model="numpy")
def collapse_fraction(z, spline, z_star):
    """Collapsed fraction at Z = z from cubic coefficients (4, n) on knots 1, 2, ..., n+1; 0 beyond z_star."""
    if not z <= z_star:
        return 0.0
    i = min(max(int(z - 1.0), 0), spline.shape[1] - 1)
    d = z - (1.0 + i)
    return max(((spline[0, i] * d + spline[1, i]) * d + spline[2, i]) * d + spline[3, i], 0.0)


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
def intensities_on(zs, spline, z_star, ratios, weights, n_continuum):
    """`intensities` for each of `zs`; shape (n, 2)."""
    out = np.empty((zs.size, 2))
    for i in range(zs.size):
        out[i] = intensities(zs[i], spline, z_star, ratios, weights, n_continuum)
    return out


@numba.njit(cache=True, error_model="numpy")
def _derivative(kind, t, y, out, c, spline, ratios, weights, n_continuum):
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


@numba.njit(cache=True, error_model="numpy")
def _rms(x, scale):
    total = 0.0
    for i in range(x.size):
        total += (x[i] / scale[i]) ** 2
    return np.sqrt(total) / x.size**0.5


@numba.njit(cache=True, error_model="numpy")
def _linear_solve(a, b, out):
    """Solve a x = b into `out` for one or two unknowns, with partial pivoting."""
    if b.size == 1:
        out[0] = b[0] / a[0, 0]
        return
    if abs(a[0, 0]) >= abs(a[1, 0]):
        p, q = 0, 1
    else:
        p, q = 1, 0
    factor = a[q, 0] / a[p, 0]
    out[1] = (b[q] - factor * b[p]) / (a[q, 1] - factor * a[p, 1])
    out[0] = (b[p] - a[p, 1] * out[1]) / a[p, 0]


@numba.njit(cache=True, error_model="numpy")
def _jacobian(kind, t, y, f, atol, factor, jac, c, spline, ratios, weights, n_continuum):
    """Forward-difference Jacobian with SciPy's rule for the increments; changes `jac` and `factor`."""
    n = y.size
    f_new = np.empty(n)
    shifted = np.empty(n)
    for j in range(n):
        sign = 1.0 if f[j] >= 0 else -1.0
        y_scale = sign * max(atol, abs(y[j]))
        h = (y[j] + factor[j] * y_scale) - y[j]
        while h == 0.0:
            factor[j] *= 10.0
            h = (y[j] + factor[j] * y_scale) - y[j]
        shifted[:] = y
        shifted[j] = y[j] + h
        _derivative(kind, t, shifted, f_new, c, spline, ratios, weights, n_continuum)
        diff = f_new - f
        i = np.argmax(np.abs(diff))
        max_diff = abs(diff[i])
        scale = max(abs(f[i]), abs(f_new[i]))
        if max_diff < _EPS**0.875 * scale:
            new_factor = 10.0 * factor[j]
            h_new = (y[j] + new_factor * y_scale) - y[j]
            shifted[j] = y[j] + h_new
            _derivative(kind, t, shifted, f_new, c, spline, ratios, weights, n_continuum)
            diff_new = f_new - f
            i = np.argmax(np.abs(diff_new))
            max_diff_new = abs(diff_new[i])
            scale_new = max(abs(f[i]), abs(f_new[i]))
            if max_diff * scale_new < max_diff_new * scale:
                factor[j] = new_factor
                h = h_new
                diff[:] = diff_new
                scale = scale_new
                max_diff = max_diff_new
        jac[:, j] = diff / h
        if max_diff < _EPS**0.75 * scale:
            factor[j] *= 10.0
        if max_diff > _EPS**0.25 * scale:
            factor[j] *= 0.1
        factor[j] = max(factor[j], 1e3 * _EPS)


@numba.njit(cache=True, error_model="numpy")
def _step_factor(h_abs, h_abs_old, error_norm, error_norm_old):
    """Step-size factor of Hairer & Wanner IV.8; a NaN stands for an old value that does not exist."""
    if np.isnan(error_norm_old) or np.isnan(h_abs_old) or error_norm == 0.0:
        multiplier = 1.0
    else:
        multiplier = h_abs / h_abs_old * (error_norm_old / error_norm) ** 0.25
    return min(1.0, multiplier) * error_norm**-0.25


@numba.njit(cache=True, error_model="numpy")
def integrate(kind, y0, t0, t_bound, t_eval, rtol, atol, c, spline, ratios, weights, n_continuum):
    """Radau IIA of order 5, step for step as `scipy.integrate.solve_ivp(method="Radau")`.

    It stops after the last of `t_eval`: what comes later cannot change what came before.

    Parameters
    ----------
    kind : int
        `IONISATION` or `THERMAL`.
    y0 : numpy.ndarray
        State at `t0`, shape (1,) or (2,).
    t0, t_bound : float
        ln(a) at the start and the end.
    t_eval : numpy.ndarray
        ln(a) ascending where the solution is wanted, shape (m,).
    rtol, atol : float
        Tolerances.
    c : Coefficients
        Coefficients of the equations.
    spline, ratios, weights, n_continuum
        See `collapse_fraction` and `intensities`.

    Returns
    -------
    numpy.ndarray
        Shape (n, m); NaN after a point where the steps became too small.
    """
    n = y0.size
    result = np.full((n, t_eval.size), np.nan)
    done = 0
    identity = np.identity(n)
    t = t0
    y = y0.copy()
    f = np.empty(n)
    _derivative(kind, t, y, f, c, spline, ratios, weights, n_continuum)

    # First step.
    interval = t_bound - t0
    scale = atol + np.abs(y) * rtol
    d0, d1 = _rms(y, scale), _rms(f, scale)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h0 = min(h0, interval)
    f_new = np.empty(n)
    _derivative(kind, t0 + h0, y + h0 * f, f_new, c, spline, ratios, weights, n_continuum)
    d2 = _rms(f_new - f, scale) / h0
    h1 = max(1e-6, h0 * 1e-3) if d1 <= 1e-15 and d2 <= 1e-15 else (0.01 / max(d1, d2)) ** 0.25
    next_h = min(100.0 * h0, h1, interval)

    h_abs_old = error_norm_old = np.nan
    newton_tol = max(10.0 * _EPS / rtol, min(0.03, rtol**0.5))
    factors = np.full(n, _EPS**0.5)
    jac = np.empty((n, n))
    _jacobian(kind, t, y, f, atol, factors, jac, c, spline, ratios, weights, n_continuum)
    current_jac = True
    lu_ready = False
    a_real = np.empty((n, n))
    a_complex = np.empty((n, n), dtype=np.complex128)
    have_dense = False
    dense = np.zeros((n, 3))
    dense_t, dense_h = 0.0, 1.0
    dense_y = y.copy()

    z = np.zeros((3, n))
    w = np.empty((3, n))
    d_w = np.empty((3, n))
    stages = np.empty((3, n))
    f_real, dw_real = np.empty(n), np.empty(n)
    f_complex, dw_complex = np.empty(n, dtype=np.complex128), np.empty(n, dtype=np.complex128)
    error = np.empty(n)

    while done < t_eval.size:
        min_step = 10.0 * (np.nextafter(t, np.inf) - t)
        if next_h < min_step:
            next_h = min_step
            h_abs_old = error_norm_old = np.nan
        h_abs = next_h
        previous_h = next_h
        rejected = False
        while True:
            if not h_abs >= min_step:
                return result
            t_new = min(t + h_abs, t_bound)
            h = t_new - t
            h_abs = h

            start = np.zeros((3, n))
            if have_dense:
                for i in range(3):
                    x = (t + h * _C[i] - dense_t) / dense_h
                    for j in range(n):
                        start[i, j] = (
                            dense[j, 0] * x + dense[j, 1] * x * x + dense[j, 2] * x * x * x + dense_y[j] - y[j]
                        )
            scale = atol + np.abs(y) * rtol

            converged = False
            iterations = 0
            rate = np.nan
            while True:
                if not lu_ready:
                    a_real[:] = _MU_REAL / h * identity - jac
                    a_complex[:] = _MU_COMPLEX / h * identity - jac
                    lu_ready = True
                # The simplified Newton iteration.
                z[:] = start
                for i in range(3):
                    for j in range(n):
                        w[i, j] = _TI[i, 0] * z[0, j] + _TI[i, 1] * z[1, j] + _TI[i, 2] * z[2, j]
                norm_old = rate = np.nan
                for k in range(_NEWTON_MAXITER):
                    iterations = k + 1
                    finite = True
                    for i in range(3):
                        _derivative(kind, t + h * _C[i], y + z[i], stages[i], c, spline, ratios, weights, n_continuum)
                        for j in range(n):
                            finite = finite and np.isfinite(stages[i, j])
                    if not finite:
                        break
                    for j in range(n):
                        f_real[j] = _TI[0, 0] * stages[0, j] + _TI[0, 1] * stages[1, j] + _TI[0, 2] * stages[2, j]
                        f_real[j] -= _MU_REAL / h * w[0, j]
                        real = _TI[1, 0] * stages[0, j] + _TI[1, 1] * stages[1, j] + _TI[1, 2] * stages[2, j]
                        imag = _TI[2, 0] * stages[0, j] + _TI[2, 1] * stages[1, j] + _TI[2, 2] * stages[2, j]
                        f_complex[j] = real + 1j * imag - _MU_COMPLEX / h * (w[1, j] + 1j * w[2, j])
                    _linear_solve(a_real, f_real, dw_real)
                    _linear_solve(a_complex, f_complex, dw_complex)
                    total = 0.0
                    for j in range(n):
                        d_w[0, j] = dw_real[j]
                        d_w[1, j] = dw_complex[j].real
                        d_w[2, j] = dw_complex[j].imag
                        for i in range(3):
                            total += (d_w[i, j] / scale[j]) ** 2
                    norm = np.sqrt(total) / (3 * n) ** 0.5
                    has_rate = not np.isnan(norm_old)
                    if has_rate:
                        rate = norm / norm_old
                        if rate >= 1.0 or rate ** (_NEWTON_MAXITER - k) / (1.0 - rate) * norm > newton_tol:
                            break
                    for i in range(3):
                        for j in range(n):
                            w[i, j] += d_w[i, j]
                    for i in range(3):
                        for j in range(n):
                            z[i, j] = _T[i, 0] * w[0, j] + _T[i, 1] * w[1, j] + _T[i, 2] * w[2, j]
                    if norm == 0.0 or (has_rate and rate / (1.0 - rate) * norm < newton_tol):
                        converged = True
                        break
                    norm_old = norm
                if converged or current_jac:
                    break
                _jacobian(kind, t, y, f, atol, factors, jac, c, spline, ratios, weights, n_continuum)
                current_jac = True
                lu_ready = False
            if not converged:
                h_abs *= 0.5
                lu_ready = False
                continue

            y_new = y + z[2]
            z_error = (_E[0] * z[0] + _E[1] * z[1] + _E[2] * z[2]) / h
            _linear_solve(a_real, f + z_error, error)
            scale = atol + np.maximum(np.abs(y), np.abs(y_new)) * rtol
            error_norm = _rms(error, scale)
            safety = 0.9 * (2 * _NEWTON_MAXITER + 1) / (2 * _NEWTON_MAXITER + iterations)
            if rejected and error_norm > 1.0:
                _derivative(kind, t, y + error, f_new, c, spline, ratios, weights, n_continuum)
                _linear_solve(a_real, f_new + z_error, error)
                error_norm = _rms(error, scale)
            if error_norm > 1.0:
                h_abs *= max(0.2, safety * _step_factor(h_abs, h_abs_old, error_norm, error_norm_old))
                lu_ready = False
                rejected = True
            else:
                break

        recompute = iterations > 2 and rate > 1e-3
        factor = min(10.0, safety * _step_factor(h_abs, h_abs_old, error_norm, error_norm_old))
        if not recompute and factor < 1.2:
            factor = 1.0
        else:
            lu_ready = False
        _derivative(kind, t_new, y_new, f, c, spline, ratios, weights, n_continuum)
        if recompute:
            _jacobian(kind, t_new, y_new, f, atol, factors, jac, c, spline, ratios, weights, n_continuum)
        current_jac = recompute
        h_abs_old = previous_h
        error_norm_old = error_norm
        next_h = h_abs * factor

        for j in range(n):
            for i in range(3):
                dense[j, i] = z[0, j] * _P[0, i] + z[1, j] * _P[1, i] + z[2, j] * _P[2, i]
        dense_t, dense_h = t, h
        dense_y[:] = y
        have_dense = True
        t = t_new
        y = y_new
        while done < t_eval.size and t_eval[done] <= t:
            x = (t_eval[done] - dense_t) / dense_h
            for j in range(n):
                result[j, done] = dense[j, 0] * x + dense[j, 1] * x * x + dense[j, 2] * x * x * x + dense_y[j]
            done += 1
        if t >= t_bound:
            break
    return result
