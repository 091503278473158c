"""An error of the signal that is a fraction of it, and the log10 polynomial: the likelihood of SARAS3."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from helpers import THETA, small_run
from scipy import stats

import lstmfit
from lstmfit import config as run_file
from lstmfit.analysis.bias import truth_problem
from lstmfit.analysis.forecast import noise_metric
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods import make_likelihood
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.problem import build

Z = np.linspace(12.0, 26.0, 29)
FREQUENCY = np.linspace(55.0, 85.0, 40)
WEIGHT = np.linspace(0.5, 2.0, 40)
SIGNAL = -100.0 * np.exp(-0.5 * ((Z - 17.0) / 2.0) ** 2)
A = np.array([3.545, -0.22, 0.01, 0.003, -0.002, 0.001, 5e-4])


def sky(a, low, high, frequency=FREQUENCY):
    """Foreground in mK, term by term."""
    x = (np.log(frequency) - 0.5 * np.log(low * high)) / (0.5 * np.log(high / low))
    return 1000.0 * np.exp(np.log(10.0) * sum(c * x**i for i, c in enumerate(a)))


def spectrum(frequency=FREQUENCY, weight=WEIGHT, signal=0.0, **changes):
    noise = np.random.default_rng(1).normal(0.0, 30.0, len(frequency))
    return Spectrum(frequency, sky(A, 55.0, 85.0, frequency) + signal + noise, weight, **changes)


def likelihood(data=None, z=Z, **options):
    block = {"noise": {"sigma": 25}, "foreground": {"model": "log10_polynomial"}, "emulator_error": {"fraction": 0.25}}
    return make_likelihood("global_signal", z, block | options, spectrum() if data is None else data)


@pytest.mark.parametrize("band", [None, (50.0, 90.0)])
@pytest.mark.parametrize("terms", [1, 3, 7])
def test_the_log10_polynomial(terms, band):
    made = likelihood(foreground={"model": "log10_polynomial", "terms": terms, "band": band}, emulator_error=False)
    assert made.names == tuple(f"a{i}" for i in range(terms))
    expected = sky(A[:terms], *(band or (55.0, 85.0)))
    np.testing.assert_allclose(made.foreground(np.zeros(len(Z)), A[:terms]), expected, rtol=1e-12)
    low, high = band or (55, 85)
    assert made.meanings["a0"] == f"log10_polynomial with band {low:g} to {high:g} MHz"


@pytest.mark.parametrize("case", ["white", "free", "channels", "radiometer", "floor of zero", "on the grid"])
def test_it_agrees_with_scipy(case):
    z, data, options, values, variance = Z, spectrum(), {}, A, 25.0**2 / WEIGHT
    if case == "free":
        options, values, variance = {"noise": {"sigma": "free"}}, np.array([31.7, *A]), 31.7**2 / WEIGHT
    if case in ("channels", "floor of zero"):
        floor = 7.0 if case == "channels" else 0.0
        data = spectrum(sigma=np.linspace(20.0, 60.0, 40))
        options, variance = {"noise": {"model": "channels", "floor": floor}}, data.sigma**2 + floor**2 / WEIGHT
    if case == "radiometer":
        t_sky = {"temperature": 1750, "frequency": 75, "index": -2.5}
        block = {"model": "radiometer", "channel_width": 0.4, "integration_time": 0.01, "sky": t_sky, "floor": 3}
        options["noise"] = block
        variance = ((1.75e6 * (FREQUENCY / 75.0) ** -2.5) ** 2 / (0.4e6 * 36.0) + 9.0) / WEIGHT
    if case == "on the grid":
        z = 1420.405751768 / FREQUENCY[::-1] - 1.0
        data = Spectrum(redshift_to_frequency(z), data.temperature, WEIGHT)
    made = likelihood(data, z, **options)
    signal = -100.0 * np.exp(-0.5 * ((z - 17.0) / 2.0) ** 2)
    matrix = interpolation_matrix(z, made.spectrum.frequency)
    at_channels = signal if matrix is None else matrix @ signal
    foreground = sky(values[-7:], data.frequency.min(), data.frequency.max(), data.frequency)
    scale = np.sqrt(variance + (0.25 * at_channels) ** 2)
    expected = stats.norm(at_channels + foreground, scale).logpdf(data.temperature).sum()
    for same in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert same(signal, values) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(made(np.full(len(z), np.nan), values))
    # The normalisation changes with the signal, also where the residual is the same.
    other = dataclasses.replace(data, temperature=data.temperature + at_channels)
    wider = stats.norm(0.0, np.sqrt(variance + (0.5 * at_channels) ** 2))
    twice = likelihood(other, z, **options)(2.0 * signal, values)
    assert twice == pytest.approx(wider.logpdf(data.temperature - at_channels - foreground).sum(), rel=1e-9)


def test_residuals_are_in_units_of_the_whole_noise():
    order = np.random.default_rng(3).permutation(40)
    data = Spectrum(FREQUENCY[order], spectrum().temperature[order], WEIGHT[order], sigma=np.linspace(9.0, 30.0, 40))
    made, values = likelihood(data, noise={"model": "channels", "floor": 5}), A
    at_channels = interpolation_matrix(Z, FREQUENCY) @ SIGNAL
    residual = spectrum().temperature - at_channels - sky(A, 55.0, 85.0)
    sigma = np.empty(40)
    sigma[order] = data.sigma
    z = residual / np.sqrt(sigma**2 + 25.0 / WEIGHT + (0.25 * at_channels) ** 2)
    np.testing.assert_allclose(made.standard_residuals(SIGNAL, values), z, rtol=1e-6)
    assert made.chi_square(SIGNAL, values) == pytest.approx(z @ z, rel=1e-6)
    fixed = made.with_variance_at(SIGNAL, values)
    assert fixed.with_variance_at(2.0 * SIGNAL, values) is fixed
    assert fixed(SIGNAL, values) == pytest.approx(made(SIGNAL, values), rel=1e-12)


def test_it_needs_independent_gaussian_noise_and_a_sampled_foreground(tmp_path):
    np.save(tmp_path / "C.npy", 600.0 * np.eye(40) + 20.0)
    linear = {"model": "log_polynomial", "terms": 3}
    cases = [
        ({"foreground": linear}, r"needs independent .* but the foreground is marginalised; set marginalise: false"),
        ({"noise": {"model": "student_t", "sigma": 25, "dof": 4}}, r"but the noise is student_t; choose white"),
        ({"noise": {"model": "covariance", "file": str(tmp_path / "C.npy")}}, r"noise has a full covariance; choose"),
        ({"emulator_error": {"fraction": 0}}, r"emulator_error.fraction is 0; input should be greater than 0"),
        ({"emulator_error": {"fraction": 25}}, r"emulator_error.fraction is 25; input should be less than or equal"),
        ({"emulator_error": {"fractoin": 0.25}}, r"unknown key emulator_error.fractoin; did you mean 'fraction'"),
        ({"emulator_error": {}}, r"emulator_error.fraction is missing"),
        ({"emulator_error": [0.25]}, r"is not true, false, diagonal or a positive number in mK \(or a fraction"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            likelihood(**options)
    assert np.isfinite(likelihood(foreground=linear | {"marginalise": False})(SIGNAL, np.zeros(3)))


def test_bad_bands():
    cases = [
        ({"band": [85, 55]}, r"band is \[85.0, 55.0\]; give two frequencies in MHz, the lower one first"),
        ({"band": [5.5e7, 8.5e7]}, r"band is .* MHz, but the data span 55 to 85 MHz; give the lowest"),
        ({"terms": 40}, r"40 terms for 40 channels; use at least 1 and fewer"),
        ({"marginalise": True}, r"log10_polynomial is not linear in its parameters and cannot be marginalised"),
        ({"reference": 70}, r"unknown key foreground.reference"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            likelihood(foreground={"model": "log10_polynomial"} | options)


def run(**options):
    made = {"model": "log10_polynomial", "coefficients": A[:3].tolist(), "band": [27.85, 236.8]}
    fitted = {"model": "log10_polynomial", "terms": 3, "band": [27.85, 236.8]}
    content = small_run(
        likelihood={
            "global_signal": {"noise": {"sigma": 25}, "foreground": fitted, "emulator_error": {"fraction": 0.25}}
        }
    )
    content["data"]["mock"] |= {"foreground": made, "from": "emulator"}
    content["params"] |= {f"a{i}": float(A[i]) for i in range(3)} | {"a0": {"prior": {"min": 3.5449, "max": 3.5451}}}
    return content | options


def test_a_mock_knows_its_true_coefficients():
    problem = build(run_file.load(run()))
    assert problem.truth["a0"] == A[0]
    assert problem.names == ("fX", "Tmin_vir", "a0")
    content = run()
    del content["data"]["mock"]["foreground"]["band"]
    with pytest.raises(InputError, match=r"data.mock.foreground: band is missing"):
        run_file.load(content)
    content = run(params={name: THETA[name] for name in ("sLy", "wX", "tstar")})
    with pytest.raises(InputError, match=r"a0 .*prior"):
        build(run_file.load(content))


def test_the_metric_of_the_forecast_is_that_at_its_signal():
    problem = build(run_file.load(run()))
    theta = np.array([0.1, 1e4, A[0]])
    signal, a = problem.signal_at(theta), np.sin(np.arange(451.0))
    expected = (a**2 / (625.0 + (0.25 * signal) ** 2)).sum()
    assert noise_metric(problem, theta)(a, a) == pytest.approx(expected, rel=1e-4)


def test_blackjax_refuses_it():
    pytest.importorskip("jax")
    from lstmfit.likelihoods.jax_likelihood import make_loglikelihood

    linear = {"model": "log_polynomial", "terms": 3, "marginalise": False}
    with pytest.raises(InputError, match=r"blackjax does not support an emulator_error that is a fraction"):
        make_loglikelihood(likelihood(foreground=linear))


def test_a_fit_and_its_bias(tmp_path):
    """The simulator of `bias` has the relative error too, so that only the emulator differs."""
    content = run(sampler={"polychord": {"nlive": 20, "num_repeats": 2, "seed": 1}})
    finished = lstmfit.fit(content, tmp_path / "out")
    assert np.isfinite(finished.summary["logZ"])
    assert finished.summary["fit"]["spectra"]["global_signal"]["chi2"] > 0
    again = run_file.load(tmp_path / "out" / "run.yaml")
    assert again.likelihood["global_signal"].emulator_error.fraction == 0.25
    assert truth_problem(finished, "echo21").spectra["global_signal"].fraction == 0.25


@pytest.mark.parametrize("frequency", [FREQUENCY, redshift_to_frequency(Z)])
def test_a_batch_is_that_of_single_calls(rng, frequency):
    """Off the grid of the signal and on it."""
    weight = np.ones(len(frequency))
    made = likelihood(spectrum(frequency, weight), foreground={"model": "log10_polynomial", "band": [50, 110]})
    signals = SIGNAL * rng.uniform(0.5, 2.0, (20, 1))
    values = A + 1e-4 * rng.standard_normal((20, len(A)))
    singles = [made(signal, own) for signal, own in zip(signals, values)]
    np.testing.assert_allclose(made.loglikelihood_batch(signals, values), singles, rtol=1e-12)
