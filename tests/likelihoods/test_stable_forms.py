"""ln L against 50 digits over the whole range that the options admit."""

import dataclasses
import warnings

import mpmath as mp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstmfit.datasets.spectrum import Spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods import GlobalSignal
from lstmfit.likelihoods.foregrounds import FOREGROUNDS
from lstmfit.likelihoods.gaussian import StudentNoise, log_student_norm, principal_axes
from lstmfit.likelihoods.noise import Noise
from lstmfit.likelihoods.signal_error import SignalError

N = 24
REDSHIFTS = np.linspace(13.0, 27.0, N)
FREQUENCY = 1420.405751768 / (1.0 + REDSHIFTS)
RNG = np.random.default_rng(5)
WEIGHT = RNG.uniform(0.3, 3.0, N)
SIGNAL = -150.0 * np.exp(-0.5 * ((FREQUENCY - 75.0) / 8.0) ** 2)
ROOT = RNG.standard_normal((N, 2 * N))
COVARIANCE = ROOT @ ROOT.T / N


def exact(data, model, weight, sigma, extra, basis=None, mean=None, scale=None):
    """ln N(data; model + basis @ mean, sigma^2 / weight + extra + basis scale^2 basis^T), in 50 digits."""
    with mp.workdps(120):
        n = len(data)
        r = mp.matrix([mp.mpf(d) - mp.mpf(m) for d, m in zip(data, model)])
        c = mp.matrix(n, n)
        for i in range(n):
            c[i, i] = mp.mpf(sigma) ** 2 / mp.mpf(weight[i])
            for j in range(n):
                if extra is not None:
                    c[i, j] += mp.mpf(extra[i, j])
        if basis is not None:
            b = mp.matrix(basis.tolist())
            k = basis.shape[1]
            r -= b * mp.matrix([mp.mpf(m) for m in np.broadcast_to(mean, k)])
            for i in range(k):
                b[:, i] *= mp.mpf(np.broadcast_to(scale, k)[i])
            c += b * b.T
        factor = mp.cholesky(c)
        z = mp.lu_solve(factor, r)
        return -sum(v * v for v in z) / 2 - sum(mp.log(factor[i, i]) for i in range(n)) - n * mp.log(2 * mp.pi) / 2


def check(found, expected, data, sigma=1.0):
    # The data are known to half a unit in the last place, which moves a residual in units of sigma by as much.
    half_unit = 0.5 * np.spacing(np.abs(data).max())
    rounding = 1e-8 + 10.0 * half_unit / sigma
    assert abs(found - expected) <= rounding * max(1.0, abs(expected)), (found, float(expected), sigma)


def sky(model="log_polynomial", terms=None, **options):
    component = FOREGROUNDS[model](terms=terms, reference=75.0, **options).build(FREQUENCY)
    coefficients = np.array([1750.0, 12.0, -6.0, 1.0, 0.3, 0.1, 0.05, 0.02])[: component.basis.shape[1]]
    return component, coefficients


def likelihood(data, component, sigma, mean, scale, extra=None, free=False):
    noise = Noise(None if free else sigma, extra)
    return GlobalSignal(
        Spectrum(FREQUENCY, data, WEIGHT), REDSHIFTS, noise, dataclasses.replace(component, mean=mean, scale=scale)
    )


POWERS = st.floats(-12.0, 9.0)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([("log_polynomial", 1), ("log_polynomial", 3), ("log_polynomial", 5), ("log_polynomial", 8),
                     ("physical_linear", None)]),
    st.lists(POWERS, min_size=8, max_size=8),
    st.booleans(),
    st.floats(-3.0, 6.0),
    st.sampled_from(["zero", "near", "true"]),
    st.sampled_from([None, "diagonal", "full"]),
    st.booleans(),
)  # fmt: skip
def test_marginalised_foreground(model, powers, one_scale, log_sigma, where, extra, free):
    component, truth = sky(*model)
    k, sigma = len(truth), 10.0**log_sigma
    scale = 10.0 ** np.array(powers[:k]) if not one_scale else np.full(k, 10.0 ** powers[0])
    mean = {"zero": np.zeros(k), "near": truth * 1.001, "true": truth}[where]
    rng = np.random.default_rng(3)
    data = SIGNAL + component.basis @ truth + sigma * rng.standard_normal(N) / np.sqrt(WEIGHT)
    matrix = {None: None, "diagonal": np.diag(np.diag(COVARIANCE)), "full": COVARIANCE}[extra]
    given_extra = np.diag(matrix) if extra == "diagonal" else matrix
    like = likelihood(data, component, sigma, mean, scale, given_extra, free)
    found = like(SIGNAL, np.array([sigma] if free else []))
    expected = exact(data, SIGNAL, WEIGHT, sigma, matrix, component.basis, mean, scale)
    check(found, expected, data, sigma)


@pytest.mark.parametrize("scale", [1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0, 1e4, 1e9])
@pytest.mark.parametrize("sigma", [0.01, 25.0, 1e4])
def test_the_reported_case(scale, sigma):
    component, truth = sky(terms=5)
    data = SIGNAL + component.basis @ truth
    expected = exact(data, SIGNAL, WEIGHT, sigma, None, component.basis, truth, np.full(5, scale))
    check(likelihood(data, component, sigma, truth, scale)(SIGNAL, np.empty(0)), expected, data, sigma)


def test_sigma_that_changes_from_call_to_call_far_from_the_centre():
    component, truth = sky(terms=3)
    data = SIGNAL + component.basis @ truth
    mean, scale = np.zeros(3), np.full(3, 1e-3)
    like = likelihood(data, component, None, mean, scale, free=True)
    for sigma in (1e6, 25.0, 1e-2, 1e6):
        expected = exact(data, SIGNAL, WEIGHT, sigma, None, component.basis, mean, scale)
        check(like(SIGNAL, np.array([sigma])), expected, data, sigma)


def test_sigma_zero_has_no_density():
    component, truth = sky(terms=3)
    data = SIGNAL + component.basis @ truth
    like = likelihood(data, component, None, 0.0, 1e4, free=True)
    assert like(SIGNAL, np.array([0.0])) == -np.inf
    assert like(SIGNAL, np.array([np.nan])) == -np.inf
    assert np.isfinite(like(SIGNAL, np.array([1.0])))
    assert StudentNoise(WEIGHT).logpdf_whitened(SIGNAL, 0.0, 4.0) == -np.inf


def test_nearly_dependent_columns():
    component, truth = sky(terms=5)
    basis = component.basis.copy()
    basis[:, 4] = basis[:, 3] * (1.0 + 1e-9 * RNG.standard_normal(N))
    nearly = dataclasses.replace(component, basis=basis)
    data = SIGNAL + basis @ truth
    for scale in (1e-6, 1.0, 1e4):
        expected = exact(data, SIGNAL, WEIGHT, 25.0, None, basis, np.zeros(5), np.full(5, scale))
        check(likelihood(data, nearly, 25.0, 0.0, scale)(SIGNAL, np.empty(0)), expected, data, 25.0)
    basis[:, 4] = 2.0 * basis[:, 3]
    with pytest.raises(InputError, match="5 foreground terms are not independent"):
        likelihood(data, nearly, 25.0, 0.0, 1e4)


def test_conditional_coefficients_of_a_narrow_and_a_wide_prior(rng):
    component, truth = sky(terms=3)
    data = SIGNAL + component.basis @ truth
    for scale in (1e-10, 1e4):
        like = likelihood(data, component, 25.0, truth, scale)
        np.testing.assert_allclose(like.coefficients(SIGNAL, np.empty(0)), truth, rtol=1e-6, atol=1e-8)
        draws = np.array([like.coefficients(SIGNAL, np.empty(0), rng) for _ in range(300)])
        if scale < 1:
            np.testing.assert_allclose(draws.std(axis=0), scale, rtol=0.2)


def test_principal_axes_of_columns_of_any_size(rng):
    basis, scale = rng.standard_normal((30, 6)), 10.0 ** rng.uniform(-12, 12, 6)
    directions, widths, axes = principal_axes(basis, scale)
    np.testing.assert_allclose(directions.T @ directions, np.eye(6), atol=1e-14)
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-14)
    with mp.workdps(80):
        matrix = mp.matrix(basis.tolist()) * mp.diag([mp.mpf(s) for s in scale])
        exact_widths = sorted(float(s) for s in mp.svd_r(matrix, compute_uv=False))
    np.testing.assert_allclose(np.sort(widths), exact_widths, rtol=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.floats(-6.0, 100.0))
def test_student_norm(log_dof):
    dof = 10.0**log_dof
    with mp.workdps(50 + 2 * max(0, int(log_dof))):
        nu = mp.mpf(dof)
        expected = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2) - mp.log(mp.pi * nu) / 2
    assert abs(log_student_norm(dof) - expected) < 2e-14


@settings(max_examples=150, deadline=None)
@given(st.floats(-3.0, 100.0), st.floats(-6.0, 9.0), st.booleans())
def test_student_t(log_dof, log_sigma, with_variance):
    dof, sigma = 10.0**log_dof, 10.0**log_sigma
    variance = np.linspace(0.0, 4.0, N) if with_variance else None
    noise = StudentNoise(WEIGHT, variance)
    found = noise.logpdf_whitened(noise.whiten(SIGNAL), sigma, dof)
    with mp.workdps(50 + 2 * max(0, int(log_dof))):
        nu, expected = mp.mpf(dof), mp.mpf(0)
        norm = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2) - mp.log(mp.pi * nu) / 2
        for i in range(N):
            square = mp.mpf(sigma) ** 2 / mp.mpf(WEIGHT[i]) + (mp.mpf(variance[i]) if with_variance else 0)
            expected += norm - mp.log(square) / 2
            expected -= (nu + 1) / 2 * mp.log1p(mp.mpf(SIGNAL[i]) ** 2 / square / nu)
    assert abs(found - expected) <= 1e-12 * max(1.0, abs(expected))


def test_student_t_of_many_degrees_of_freedom_is_gaussian():
    args = Spectrum(FREQUENCY, SIGNAL + 3.0, WEIGHT), REDSHIFTS
    gaussian = GlobalSignal(*args, Noise(25.0))(SIGNAL, np.empty(0))
    for dof in (1e10, 1e17, 1e100):
        student = GlobalSignal(*args, Noise(25.0, student=True, dof=dof))(SIGNAL, np.empty(0))
        assert student == pytest.approx(gaussian, rel=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.floats(-3.0, 9.0), st.floats(-6.0, 9.0), st.sampled_from([None, "diagonal", "full"]))
def test_noise_without_a_foreground(log_sigma, log_channel, extra):
    sigma, channel = 10.0**log_sigma, 10.0**log_channel
    matrix = {None: None, "diagonal": np.diag(np.diag(COVARIANCE)), "full": COVARIANCE}[extra]
    like = GlobalSignal(
        Spectrum(FREQUENCY, SIGNAL + 1.0, WEIGHT), REDSHIFTS, Noise(sigma),
        error=SignalError(COVARIANCE if extra else None, extra == "diagonal", channel),
    )  # fmt: skip
    total = np.diag(np.full(N, channel**2)) + (0.0 if matrix is None else matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(like(SIGNAL, np.empty(0)), exact(SIGNAL + 1.0, SIGNAL, WEIGHT, sigma, total), SIGNAL, sigma)
