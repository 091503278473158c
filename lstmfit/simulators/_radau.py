"""SciPy's `Radau` (BSD licence), used by ECHO21, compiled for its right-hand sides; takes the same steps (tested)."""

import numpy as np

from lstmfit.kernels import cached_kernel
from lstmfit.simulators._kernel import derivative

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


@cached_kernel(error_model="numpy")
def _rms(x, scale):
    total = 0.0
    for i in range(x.size):
        total += (x[i] / scale[i]) ** 2
    return np.sqrt(total) / x.size**0.5


@cached_kernel(error_model="numpy")
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


@cached_kernel(error_model="numpy")
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
        derivative(kind, t, shifted, f_new, c, spline, ratios, weights, n_continuum)
        diff = f_new - f
        i = np.argmax(np.abs(diff))
        max_diff = abs(diff[i])
        scale = max(abs(f[i]), abs(f_new[i]))
        if max_diff < _EPS**0.875 * scale:
            new_factor = 10.0 * factor[j]
            h_new = (y[j] + new_factor * y_scale) - y[j]
            shifted[j] = y[j] + h_new
            derivative(kind, t, shifted, f_new, c, spline, ratios, weights, n_continuum)
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


@cached_kernel(error_model="numpy")
def _step_factor(h_abs, h_abs_old, error_norm, error_norm_old):
    """Step-size factor of Hairer & Wanner IV.8; NaN means that there is no previous value."""
    if np.isnan(error_norm_old) or np.isnan(h_abs_old) or error_norm == 0.0:
        multiplier = 1.0
    else:
        multiplier = h_abs / h_abs_old * (error_norm_old / error_norm) ** 0.25
    return min(1.0, multiplier) * error_norm**-0.25


@cached_kernel(error_model="numpy")
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
    derivative(kind, t, y, f, c, spline, ratios, weights, n_continuum)

    # First step.
    interval = t_bound - t0
    scale = atol + np.abs(y) * rtol
    d0, d1 = _rms(y, scale), _rms(f, scale)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h0 = min(h0, interval)
    f_new = np.empty(n)
    derivative(kind, t0 + h0, y + h0 * f, f_new, c, spline, ratios, weights, n_continuum)
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
                        derivative(kind, t + h * _C[i], y + z[i], stages[i], c, spline, ratios, weights, n_continuum)
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
                derivative(kind, t, y + error, f_new, c, spline, ratios, weights, n_continuum)
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
        derivative(kind, t_new, y_new, f, c, spline, ratios, weights, n_continuum)
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
