"""Forecast of the emulation bias before a fit, from known errors of the emulator: bounds and a linear estimate."""

import numpy as np

from lstmfit.analysis.divergence import bound, linear_gaussian
from lstmfit.emulator.emulator import Emulator
from lstmfit.problem import Problem

N_NEAREST = 100
"""Number of test signals, nearest to the fiducial parameters, for the linear estimate."""
SEEN = 0.1
"""An emulator is accurate enough for the data if the bias is below this, in sigma."""


def noise_metric(problem: Problem, theta: np.ndarray):
    """Inner product a^T C^-1 b of two errors of the signal, derived from the likelihoods of the spectra.

    A Gaussian likelihood is quadratic in the signal, so its second difference is exact for any covariance C: with
    correlated noise, an emulator error or a marginalised linear foreground. For Student-t noise it is the local
    curvature. Variances that depend on the parameters, such as an error that is a fraction of the signal, are those at
    theta, and marginalised regions are linear about their best indices there.

    Parameters
    ----------
    problem : Problem
        The problem.
    theta : numpy.ndarray
        (n,) sampled parameters, which fix the parameters of the likelihood.

    Returns
    -------
    callable
        (a, b) -> float, for errors (n_channels,) in mK on the redshift grid of the signal.
    """
    parts = [(part, np.array(problem.values(theta, name))) for name, part in problem.spectral_likelihoods.items()]
    base = problem.signal_at(theta)
    if not np.isfinite(base).all():
        # A computed parameter is out of range here; the second difference of a Gaussian is the same everywhere.
        base = np.zeros_like(base)

    parts = [(part.quadratic_at(base, own), own) for part, own in parts]

    def loglikelihood(signal):
        return sum(part(signal, own) for part, own in parts)

    middle = loglikelihood(base)

    def square(a):
        return 2.0 * middle - loglikelihood(base + a) - loglikelihood(base - a)

    def product(a, b):
        return square(a) if a is b else 0.25 * (square(a + b) - square(a - b))

    return product


def jacobians(emulator: Emulator, theta: np.ndarray, names) -> np.ndarray:
    """Exact derivatives of the emulated signal with respect to parameters in their natural space.

    Parameters
    ----------
    emulator : Emulator
        The emulator.
    theta : numpy.ndarray
        (n, n_params) physical.
    names : sequence of str
        Parameters to differentiate by, each in its natural space (log10 for log parameters).

    Returns
    -------
    numpy.ndarray
        (n, len(names), n_channels) mK per unit of the natural space.
    """
    physical = emulator.jacobian(theta, outside="allow")
    out = []
    for name in names:
        i = emulator.names.index(name)
        # d p / d log10(p) = p ln(10).
        factor = np.log(10.0) * theta[:, i, None] if emulator.parameters[i].log else 1.0
        out.append(factor * physical[:, :, i])
    return np.stack(out, axis=1)


def forecast(problem: Problem, test, sigma: float | None, seed: int = 0) -> dict:
    """Upper bounds on D_KL, and the linear-Gaussian D_KL and bias at test signals near the fiducial parameters.

    Parameters
    ----------
    problem : Problem
        A problem with an emulator.
    test : lstmfit.datasets.signal_sets.Split
        Test signals, which were not used in training.
    sigma : float or None
        Noise of the problem in mK if it is white and known. The bound is then that of Bevins et al. (2025,
        arXiv:2503.13263), N/2 (rms / sigma)^2 with the mean and the 95th percentile of the rms error over the whole
        test set. Otherwise it is 1/2 eps^T C^-1 eps, mean and 95th percentile over the errors eps of the nearest test
        signals.
    seed : int
        Seed of the prior draws that give the widths of the prior.

    Returns
    -------
    dict
        ``D_KL_bound_mean``, ``D_KL_bound_p95``; ``D_KL_linear_mean``, ``D_KL_linear_p95``: `linear_gaussian` with the
        error and Jacobian of each test signal and a Gaussian with the variance of the prior; ``shift_mean``,
        ``shift_p95``: mean and 95th percentile of the largest shift of a parameter in sigma; ``shifts``: mean absolute
        shift by parameter; ``good_down_to_mK``: white noise at which ``shift_p95`` is 0.1 sigma, None if the noise is
        not white; ``verdict``.
    """
    emulator, prior = problem.signal.emulator, problem.prior
    residual = emulator(test.theta, outside="allow") - test.signal
    theta = _fiducial(problem)
    fiducial = problem.signal_parameters(theta)
    rows = _nearest(emulator, test.theta, fiducial if problem.truth and np.isfinite(fiducial).all() else None)
    product = noise_metric(problem, theta)
    names = [p.name for p in emulator.parameters if p.name in problem.names]
    draws = prior.sample(2000, np.random.default_rng(seed))
    columns = [problem.names.index(name) for name in names]
    natural = [np.log10(draws[:, c]) if emulator.parameters[emulator.names.index(n)].log else draws[:, c]
               for n, c in zip(names, columns)]  # fmt: skip
    precision = np.diag([1.0 / np.var(x) for x in natural])
    d_kl, shifts, bounds = [], [], []
    for jacobian, error in zip(jacobians(emulator, test.theta[rows], names), residual[rows]):
        fisher = np.array([[product(a, b) if j <= i else 0.0 for j, b in enumerate(jacobian)]
                           for i, a in enumerate(jacobian)])  # fmt: skip
        fisher = fisher + np.tril(fisher, -1).T
        one, shift = linear_gaussian(fisher, np.array([product(a, error) for a in jacobian]), precision)
        d_kl.append(one)
        shifts.append(np.abs(shift))
        bounds.append(0.5 * product(error, error))
    if sigma is not None:
        n, rms = problem.n_channels, np.sqrt(np.mean(residual**2, axis=1))
        limits = bound(rms.mean(), sigma, n), bound(np.percentile(rms, 95), sigma, n)
    else:
        limits = np.mean(bounds), np.percentile(bounds, 95)
    largest = np.max(shifts, axis=1)
    p95 = float(np.percentile(largest, 95))
    report = {
        "D_KL_bound_mean": float(limits[0]),
        "D_KL_bound_p95": float(limits[1]),
        "D_KL_linear_mean": float(np.mean(d_kl)),
        "D_KL_linear_p95": float(np.percentile(d_kl, 95)),
        "shift_mean": float(largest.mean()),
        "shift_p95": p95,
        "shifts": dict(zip(names, np.mean(shifts, axis=0).tolist())),
        # The shift in sigma is proportional to 1 / noise as long as the data, not the prior, determine the widths.
        "good_down_to_mK": None if sigma is None else sigma * p95 / SEEN,
    }
    return report | {"verdict": _verdict(report, sigma)}


def _fiducial(problem):
    """True sampled parameters of a mock; the prior median of parameters whose true value is unknown."""
    theta = np.array(problem.prior_transform(np.full(len(problem.names), 0.5)), dtype=float)
    for i, name in enumerate(problem.names):
        theta[i] = problem.truth.get(name, theta[i])
    return theta


def _nearest(emulator, theta, fiducial):
    """Rows of the test signals nearest to the fiducial parameters in units of the ranges, or simply the first ones."""
    if fiducial is None:
        return np.arange(min(N_NEAREST, len(theta)))
    scaled = []
    for i, p in enumerate(emulator.parameters):
        x, x0, width = theta[:, i], fiducial[i], p.max - p.min
        if p.log:
            x, x0, width = np.log10(x), np.log10(x0), np.log10(p.max / p.min)
        scaled.append((x - x0) / width)
    return np.argsort(np.sum(np.square(scaled), axis=0))[:N_NEAREST]


def _verdict(report, sigma):
    mean, p95 = report["shift_mean"], report["shift_p95"]
    figures = f"largest shift of a parameter {mean:.2g} sigma on average, {p95:.2g} at 95 %"
    if p95 <= SEEN:
        text = f"accurate enough for this noise: {figures}"
    elif mean <= SEEN:
        text = f"accurate enough for this noise on average only: {figures}; run `lstmfit bias` after the fit"
    else:
        text = f"noticeable at this noise: {figures}; run `lstmfit bias` after the fit or set emulator_error: true"
    if sigma is not None:
        text += f"; accurate to 0.1 sigma for white noise down to {report['good_down_to_mK']:.2g} mK"
    return text
