"""The spectrum's likelihood against independent computations: dense and in 50 digits, numerical integrals, scipy."""

import dataclasses
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid

from lstmfit.datasets.spectrum import Spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods import GaussianNoise, GlobalSignal, foregrounds, noise
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.likelihoods.scale_check import check_scale
from lstmfit.likelihoods.signal_error import SignalError
from lstmfit.signal_functions import flattened_gaussian

Z = np.linspace(12.0, 26.0, 29)
FREQUENCY = np.linspace(54.0, 105.0, 18)


def dense_reference(residual, covariance_terms):
    """Ln N(residual; 0, sum of terms) by a Cholesky decomposition in 50 digits.

    A term is a matrix, or a pair (F, scale) for F diag(scale^2) F^T, whose product must not be rounded.
    """
    with localcontext() as context:
        context.prec = 50
        n = len(residual)
        c = [[Decimal(0)] * n for _ in range(n)]
        for term in covariance_terms:
            if isinstance(term, tuple):
                basis, scale = term
                rows = [[Decimal(float(x)) * Decimal(float(s)) for x, s in zip(row, scale)] for row in basis]
                term = [[sum(a * b for a, b in zip(p, q)) for q in rows] for p in rows]
            for i in range(n):
                for j in range(n):
                    c[i][j] += Decimal(term[i][j]) if not isinstance(term[i][j], Decimal) else term[i][j]
        lower = [[Decimal(0)] * n for _ in range(n)]
        for i in range(n):
            for j in range(i + 1):
                rest = c[i][j] - sum(lower[i][k] * lower[j][k] for k in range(j))
                lower[i][j] = rest.sqrt() if i == j else rest / lower[j][j]
        y = []
        for i in range(n):
            y.append((Decimal(residual[i]) - sum(lower[i][k] * y[k] for k in range(i))) / lower[i][i])
        log_det = 2 * sum(lower[i][i].ln() for i in range(n))
        pi = Decimal("3.14159265358979323846264338327950288419716939937510")
        return float(-(sum(v * v for v in y) + log_det + n * (2 * pi).ln()) / 2)


def random_covariance(rng, n, scale):
    a = rng.normal(size=(n, 2 * n))
    return scale**2 * a @ a.T / (2 * n)


@pytest.fixture
def spectrum(rng):
    """A sky of 10^6 mK with noise, weights that differ, and a signal."""
    sky = foregrounds.hills(FREQUENCY, (1750.0, 0.1, 0.01, 0.02, 800.0), 75.0)
    weight = rng.uniform(0.3, 2.0, len(FREQUENCY))
    signal = 100.0 * rng.normal(size=len(Z))
    return sky + 25.0 * rng.normal(size=len(FREQUENCY)), weight, signal


def component_of(model, frequency=FREQUENCY, **options):
    """A foreground; sampled unless `marginalise` is given."""
    return foregrounds.FOREGROUNDS[model](**({"marginalise": False, "reference": 75.0} | options)).build(frequency)


def file_noise(kind, path, n=18, **options):
    channels = np.ones(n)
    return noise.NOISE[kind](file=str(path), **options).build(Spectrum(channels, channels, channels))


def matrix_of(weight):
    return np.diag(1.0 / weight)


CASES = ["white", "free", "channels", "covariance", "radiometer", "emulator", "diagonal", "number", "everything"]


@pytest.mark.parametrize("marginalise", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_a_dense_computation(case, marginalise, spectrum, rng, tmp_path):
    temperature, weight, signal = spectrum
    n = len(FREQUENCY)
    if not marginalise:
        temperature = temperature - temperature.mean()
    matrix = interpolation_matrix(Z, FREQUENCY)
    covariance, error = random_covariance(rng, n, 30.0), random_covariance(rng, len(Z), 3.0)
    np.save(tmp_path / "covariance.npy", covariance)
    np.savetxt(tmp_path / "sigma.csv", np.sqrt(np.diag(covariance)) / 1000.0)
    sky = {"temperature": 1750.0, "frequency": 75.0, "index": -2.5}
    sigma, extra, options, values = 25.0, [], {}, []
    model = noise.Noise(25.0)
    if case in ("free", "everything"):
        sigma, values = 31.7, [31.7]
        model = noise.Noise(None)
    if case == "channels":
        sigma, model = 0.0, file_noise("channels", tmp_path / "sigma.csv", unit="K")
        extra = [np.diag(np.diag(covariance))]
    if case == "covariance":
        sigma, model = 7.0, file_noise("covariance", tmp_path / "covariance.npy", floor=7.0)
        extra = [covariance]
    if case == "everything":
        model = file_noise("covariance", tmp_path / "covariance.npy", floor="free")
        extra = [covariance]
    if case == "radiometer":
        sigma, values = 3.0, [3.0]
        block = noise.Radiometer(channel_width=0.4, integration_time=0.01, sky=sky, floor="free")
        model = block.build(Spectrum(FREQUENCY, temperature, weight))
        t_sky = 1.75e6 * (FREQUENCY / 75.0) ** -2.5
        extra = [np.diag(t_sky**2 / (0.4e6 * 36.0) / weight)]
    if case in ("emulator", "everything"):
        options["error"] = SignalError(error)
        extra = [*extra, matrix @ error @ matrix.T]
    if case == "diagonal":
        options["error"] = SignalError(error, diagonal=True)
        extra = [np.diag(np.diag(matrix @ error @ matrix.T))]
    if case == "number":
        options["error"] = SignalError(channel=4.0)
        extra = [16.0 * np.eye(n)]
    terms, mean = [sigma**2 * matrix_of(weight), *extra], 0.0
    if marginalise:
        mean, scale = [1500.0, 10.0, 0.0, -5.0], [1e4, 1e3, 300.0, 1e4]
        component = component_of("log_polynomial", terms=4, mean=mean, scale=scale, marginalise=True)
        options["foreground"] = component
        terms.append((component.basis, scale))
        mean = component.basis @ mean
    likelihood = GlobalSignal(Spectrum(FREQUENCY, temperature, weight), Z, model, **options)
    expected = dense_reference(temperature - mean - matrix @ signal, terms)
    before = signal.copy()
    assert likelihood(signal, np.array(values)) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_array_equal(signal, before)
    # A second call at another sigma and back must not remember anything.
    if values:
        likelihood(signal, np.array([2.0 * values[0]]))
        assert likelihood(signal, np.array(values)) == pytest.approx(expected, rel=1e-9)


def test_on_the_signals_own_grid_no_interpolation(rng):
    frequency = 1420.405751768 / (1 + Z)
    assert interpolation_matrix(Z, frequency) is None
    data, signal = rng.normal(size=len(Z)), rng.normal(size=len(Z)).astype(np.float32)
    likelihood = GlobalSignal(Spectrum(frequency, data, np.ones(len(Z))), Z, noise.Noise(2.0))
    expected = stats.norm(0, 2).logpdf(data - signal.astype(float)).sum()
    assert likelihood(signal, np.empty(0)) == pytest.approx(expected, rel=1e-12)


def test_a_covariance_in_single_precision_is_taken(rng):
    modes = rng.normal(size=(200, 5))
    single = (modes @ modes.T).astype(np.float32)
    assert np.linalg.eigvalsh(single.astype(float))[0] < 0
    residual = rng.normal(size=200)
    expected = stats.multivariate_normal(cov=single.astype(float) + np.eye(200)).logpdf(residual)
    assert GaussianNoise(np.ones(200), single).logpdf(residual, 1.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("free", [False, True])
def test_student_t_agrees_with_scipy(free, spectrum, rng):
    temperature, weight, signal = spectrum
    temperature = temperature - temperature.mean()
    block = noise.StudentT(sigma="free", dof="free") if free else noise.StudentT(sigma=25.0, dof=3.0)
    model = block.build(Spectrum(FREQUENCY, temperature, weight))
    spectrum = Spectrum(FREQUENCY, temperature, weight)
    likelihood = GlobalSignal(spectrum, Z, model, error=SignalError(channel=4.0))
    assert likelihood.names == (("sigma", "dof") if free else ())
    residual = temperature - interpolation_matrix(Z, FREQUENCY) @ signal
    expected = stats.t(3.0, 0, np.sqrt(625.0 / weight + 16.0)).logpdf(residual).sum()
    values = np.array([25.0, 3.0] if free else [])
    assert likelihood(signal, values) == pytest.approx(expected, rel=1e-10)


def test_marginalisation_equals_the_integral_over_the_coefficients(spectrum):
    temperature, weight, signal = spectrum
    mean, scale = [1700.0, 0.0], [200.0, 150.0]
    both, sampled = (
        GlobalSignal(
            Spectrum(FREQUENCY, temperature, weight), Z, noise.Noise(2e5),
            component_of("log_polynomial", terms=2, mean=mean, scale=scale, marginalise=marginalise),
        )
        for marginalise in (True, False)
    )  # fmt: skip
    axes = [m + s * np.linspace(-7, 7, 281) for m, s in zip(mean, scale)]
    values = np.array([[sampled(signal, np.array([a, b])) for b in axes[1]] for a in axes[0]])
    log_prior = sum(
        stats.norm(m, s).logpdf(x) for m, s, x in zip(mean, scale, np.meshgrid(*axes, indexing="ij"))
    )
    integrand = np.exp(values + log_prior - (values + log_prior).max())
    total = trapezoid(trapezoid(integrand, axes[1]), axes[0])
    expected = math.log(total) + (values + log_prior).max()
    assert both(signal, np.empty(0)) == pytest.approx(expected, abs=1e-6)


def test_marginalised_coefficients_follow_their_posterior(spectrum, rng):
    temperature, weight, signal = spectrum
    mean, scale = np.array([1700.0, 0.0, 0.0]), np.array([300.0, 200.0, 100.0])
    component = component_of("log_polynomial", terms=3, mean=list(mean), scale=list(scale), marginalise=True)
    likelihood = GlobalSignal(Spectrum(FREQUENCY, temperature, weight), Z, noise.Noise(None), component)
    values = np.array([2e3])
    residual = temperature - interpolation_matrix(Z, FREQUENCY) @ signal
    precision = (component.basis.T * weight / values[0] ** 2) @ component.basis + np.diag(1 / scale**2)
    covariance = np.linalg.inv(precision)
    expected = covariance @ (component.basis.T @ (weight * residual) / values[0] ** 2 + mean / scale**2)
    np.testing.assert_allclose(likelihood.coefficients(signal, values), expected, rtol=1e-8)
    draws = np.array([likelihood.coefficients(signal, values, rng) for _ in range(4000)])
    z = (draws.mean(axis=0) - expected) / np.sqrt(np.diag(covariance) / 4000)
    assert np.abs(z).max() < 4
    width = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(width, width), covariance / np.outer(width, width), atol=0.1)
    np.testing.assert_allclose(likelihood.foreground(signal, values), component.basis @ expected, rtol=1e-9)


def test_sampled_parts_add_up(spectrum):
    temperature, weight, signal = spectrum
    parts = [component_of("hills"), foregrounds.Sinusoid().build(FREQUENCY)]
    likelihood = GlobalSignal(Spectrum(FREQUENCY, temperature, weight), Z, noise.Noise(None), *parts)
    assert likelihood.names == ("sigma", "d0", "d1", "d2", "tau_e", "T_e", "A_sin", "A_cos", "period", "damping")
    sky, ripple = np.array([1750.0, 0.1, 0.01, 0.02, 800.0]), np.array([40.0, -20.0, 12.5, -1.0])
    values = np.concatenate([[25.0], sky, ripple])
    added = parts[0].evaluate(sky) + parts[1].evaluate(ripple)
    np.testing.assert_allclose(likelihood.foreground(signal, values), added, rtol=1e-12)
    residual = temperature - interpolation_matrix(Z, FREQUENCY) @ signal - added
    expected = stats.norm(0, 25.0 / np.sqrt(weight)).logpdf(residual).sum()
    assert likelihood(signal, values) == pytest.approx(expected, rel=1e-9)


def test_foreground_formulas():
    nu, reference = 90.0, 75.0
    y, log = nu / reference, math.log(nu / reference)
    at = np.array([60.0, nu, 70.0, 80.0, 99.0, 50.0])
    a = np.array([1700.0, -100.0, 30.0, 5.0, -2.0])
    cases = {
        "log_polynomial": (a, y**-2.5 * sum(c * log**i for i, c in enumerate(a))),
        "physical_linear": (
            a,
            a[0] * y**-2.5 + a[1] * y**-2.5 * log + a[2] * y**-2.5 * log**2 + a[3] * y**-4.5 + a[4] * y**-2,
        ),
        "loglog_polynomial": (
            np.array([7.4, -2.5, 0.1, 0.02]),
            math.exp(7.4 - 2.5 * log + 0.1 * log**2 + 0.02 * log**3),
        ),
        "hills": (
            np.array([1700.0, 0.1, 0.02, 0.03, 700.0]),
            1700.0 * y ** (-2.5 + 0.1 + 0.02 * log) * math.exp(-0.03 / y**2) + 700.0 * (1 - math.exp(-0.03 / y**2)),
        ),
    }
    for model, (values, expected) in cases.items():
        component = component_of(model, at, terms=len(values), reference=reference)
        assert component.evaluate(values)[1] == pytest.approx(1000.0 * expected, rel=1e-12)
    ripple = foregrounds.Sinusoid(reference=reference).build(at).evaluate(np.array([3.0, 4.0, 12.0, -1.5]))
    phase = 2 * math.pi * nu / 12.0
    assert ripple[1] == pytest.approx(y**-1.5 * (3 * math.sin(phase) + 4 * math.cos(phase)), rel=1e-12)


@pytest.mark.parametrize("tau", [0.1, 1.0, 7.0, 20.0])
def test_flattened_gaussian_has_its_depth_and_width(tau):
    nu = np.array([78.1, 78.1 - 18.7 / 2, 78.1 + 18.7 / 2, 20.0])
    signal = flattened_gaussian(nu, (530.0, 78.1, 18.7, tau))
    np.testing.assert_allclose(signal[:3], [-530.0, -265.0, -265.0], rtol=1e-10)
    assert abs(signal[3]) < 1e-3


def bad_spectrum(**changes):
    channels = {"frequency": FREQUENCY, "temperature": np.zeros(len(FREQUENCY)), "weight": np.ones(len(FREQUENCY))}
    spectrum = Spectrum(**{name: changes.pop(name, array) for name, array in channels.items()})
    return GlobalSignal(spectrum, **({"redshifts": Z, "noise": noise.Noise(25.0)} | changes))


def test_bad_spectra_are_refused():
    n = len(FREQUENCY)
    marginalised, sampled = (component_of("log_polynomial", terms=3, marginalise=choice) for choice in (True, False))
    narrow = dataclasses.replace(marginalised, scale=np.zeros(3))
    student = noise.Noise(1.0, student=True, dof=3.0)
    negative = np.eye(n)
    negative[0, 0] = -1.0
    singular = np.ones((n, n))
    skew = np.eye(n)
    skew[0, 1] = 5.0
    cases = [
        ({"frequency": FREQUENCY + 100.0}, r"lie outside the emulator.s .*check the emulator"),
        ({"noise": noise.Noise(-5.0)}, "give a number from 1e-06"),
        ({"weight": np.zeros(n)}, "weights must be positive"),
        ({"noise": noise.Noise(0.0, negative)}, "not positive definite"),
        ({"noise": noise.Noise(0.0, singular)}, "not positive definite"),
        ({"noise": noise.Noise(1.0, skew)}, "finite symmetric"),
        ({"noise": noise.Noise(1.0, np.eye(3))}, "the data have 18 channels"),
        ({"noise": noise.Noise(1.0, -np.ones(n))}, "not negative"),
        ({"noise": noise.Noise(0.0)}, "not positive definite"),
        ({"noise": student, "foreground": marginalised}, "marginalise: false"),
        ({"noise": student, "error": SignalError(np.eye(len(Z)))}, "emulator_error: diagonal"),
        ({"foreground": narrow}, "scale of a marginalised coefficient"),
        ({"foreground": sampled, "systematics": sampled}, "have the parameter .* more than once"),
    ]
    for changes, message in cases:
        with pytest.raises(InputError, match=message):
            bad_spectrum(**changes)


def test_bad_foregrounds_are_refused():
    spectrum = Spectrum(FREQUENCY, np.zeros(len(FREQUENCY)), np.ones(len(FREQUENCY)))
    for key, block, message in [
        ("foreground", {"model": "log_polynom"}, "foreground: unknown foreground model 'log_polynom'; did you mean"),
        ("foreground", {"terms": 18}, "18 terms for 18 channels"),
        ("foreground", {"model": "physical_linear", "terms": 4}, "has 5 parameters, not 4; omit terms"),
        ("foreground", {"model": "hills", "terms": 6}, "has 5 parameters"),
        ("foreground", {"model": "hills", "marginalise": True}, "cannot be marginalised; .* or use log_polynomial, "),
        ("foreground", {"terms": 3, "mean": [1.0, 2.0]}, "mean has 2 numbers for 3 terms"),
        ("foreground", {"model": "hills", "scle": 3}, "likelihood.global_signal: unknown key foreground.scle"),
        ("systematics", {"model": "wobble"}, "known are sinusoid"),
    ]:
        with pytest.raises(InputError, match=message):
            GlobalSignal.from_options({"noise": {"sigma": 25}, key: block}, spectrum, Z)
    twice = np.repeat(foregrounds.log_polynomial(FREQUENCY, 1, 75.0), 2, axis=1)
    with pytest.raises(InputError, match="not independent"):
        GaussianNoise(np.ones(len(FREQUENCY)), None, twice, 0.0, 1.0)


def test_bad_noise_files_are_refused(tmp_path):
    n = 4
    (tmp_path / "short.csv").write_text("1\n2\n3\n")
    (tmp_path / "text.csv").write_text("a,b\n")
    (tmp_path / "negative.csv").write_text("1\n2\n-3\n4\n")
    (tmp_path / "table.csv").write_text("# sigma\n1, 5\n2, 6\n3, 7\n4, 8\n")
    for file, kind, message in [
        ("none.csv", "channels", "no file"),
        ("short.csv", "channels", "has 3 rows, but 4 channels"),
        ("text.csv", "channels", "not a table of numbers"),
        ("negative.csv", "channels", "a sigma of -3"),
        ("table.csv", "covariance", "give 4 x 4 numbers"),
    ]:
        with pytest.raises(InputError, match=message):
            file_noise(kind, tmp_path / file, n)
    with pytest.raises(InputError, match="no column 2"):
        file_noise("channels", tmp_path / "table.csv", n, column=2)
    read = file_noise("channels", tmp_path / "table.csv", n, column=1)
    np.testing.assert_allclose(read.extra, [25.0, 36.0, 49.0, 64.0])
    block, ones = noise.Radiometer(channel_width=0.4, integration_time=1.0), np.ones(len(FREQUENCY))
    with pytest.raises(InputError, match="needs the sky temperature"):
        block.build(Spectrum(FREQUENCY, -ones, ones))


def test_noise_draws_have_the_covariance(rng):
    weight = np.array([1.0, 4.0])
    covariance = np.array([[4.0, 3.0], [3.0, 9.0]])
    draws = np.array([noise.Noise(2.0, covariance).draw(weight, rng) for _ in range(20000)])
    np.testing.assert_allclose(np.cov(draws.T), covariance + np.diag([4.0, 1.0]), atol=0.3)
    with pytest.raises(InputError, match="sigma is free"):
        noise.Noise(None).draw(weight, rng)


def test_kelvin_taken_for_millikelvin_is_noticed(rng, recwarn):
    nu = np.linspace(50.0, 100.0, 120)
    sky = foregrounds.log_polynomial(nu, 1, 75.0)[:, 0] * 1700.0
    data, weight = sky + 25.0 * rng.normal(size=120), np.ones(120)
    check_scale(nu, data, weight, 25.0)
    assert not recwarn
    for factor in (1e-3, 1e3):
        with pytest.warns(UserWarning, match=r"check the unit of the data \(K or mK\)"):
            check_scale(nu, factor * data, weight, 25.0)
