"""Radiometer noise of the sky of the model, against dense computations, its own mocks and sampled foregrounds."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from helpers import THETA, tiny_run
from scipy import stats
from scipy.special import logsumexp

import lstmfit
from lstmfit import config as run_file
from lstmfit.analysis.bias import truth_problem
from lstmfit.analysis.forecast import noise_metric
from lstmfit.analysis.same_problem import compared
from lstmfit.checks import check_run
from lstmfit.constants import redshift_to_frequency
from lstmfit.data import draw_mock
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods import make_likelihood
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.likelihoods.joint_spectra import JointLinearSpectra
from lstmfit.problem import build
from lstmfit.simulators import load as load_simulator

Z = np.linspace(12.0, 26.0, 29)
N = 40
FREQUENCY = np.linspace(55.0, 85.0, N)
WEIGHT = np.linspace(0.5, 2.0, N)
SIGNAL = -100.0 * np.exp(-0.5 * ((Z - 17.0) / 2.0) ** 2)
A = np.array([1750.0, 20.0, -5.0])
SAMPLES = 1e4
LINEAR = {"terms": 3, "reference": 75, "marginalise": False}
BLACK = -1e9 * np.exp(-0.5 * ((Z - 17.0) / 0.5) ** 2)
MARGINALISED = {"terms": 3, "reference": 75, "mean": [1740.0, 10.0, 0.0], "scale": [20.0, 10.0, 5.0]}


def basis(frequency=FREQUENCY):
    y = frequency[:, None] / 75.0
    return 1000.0 * y**-2.5 * np.log(y) ** np.arange(3)


def radiometer(samples=SAMPLES, **options):
    hours = samples / 0.4e6 / 3600.0
    return {"model": "radiometer", "channel_width": 0.4, "integration_time": hours, "sky": "model"} | options


def spectrum(frequency=FREQUENCY, weight=WEIGHT, seed=1):
    sky = basis(frequency) @ A
    noise = np.random.default_rng(seed).standard_normal(len(frequency)) / np.sqrt(SAMPLES * weight)
    return Spectrum(frequency, sky * (1.0 + noise), weight)


def likelihood(data=None, z=Z, covariance=None, **options):
    block = {"noise": radiometer(), "foreground": LINEAR}
    return make_likelihood("global_signal", z, block | options, spectrum() if data is None else data, covariance)


def at_channels(signal, z=Z, frequency=FREQUENCY):
    matrix = interpolation_matrix(z, frequency)
    return signal if matrix is None else matrix @ signal


CASES = ["plain", "floor", "free", "error", "fraction", "systematics", "curved", "on the grid"]


@pytest.mark.parametrize("case", CASES)
def test_a_sampled_foreground_agrees_with_scipy(case):
    z, data, options, values, added, further = Z, spectrum(), {}, A, 0.0, np.zeros(N)
    if case == "floor":
        options, further = {"noise": radiometer(floor=300)}, 9e4 / WEIGHT
    if case == "free":
        options, values, further = {"noise": radiometer(floor="free")}, np.array([800.0, *A]), 6.4e5 / WEIGHT
    if case == "error":
        options, further = {"emulator_error": 2e4}, np.full(N, 4e8)
    if case == "systematics":
        options, values = {"systematics": {"model": "sinusoid"}}, np.array([*A, 3e4, -1e4, 10.0, 0.5])
        wave = 2.0 * np.pi * FREQUENCY / 10.0
        added = (FREQUENCY / 70.0) ** 0.5 * (3e4 * np.sin(wave) - 1e4 * np.cos(wave))
    if case == "on the grid":
        z = 1420.405751768 / FREQUENCY[::-1] - 1.0
        data = spectrum(redshift_to_frequency(z))
    signal = 1e4 * np.exp(-0.5 * ((z - 17.0) / 2.0) ** 2)
    t_21 = at_channels(signal, z, data.frequency)
    sky = basis(data.frequency) @ A + t_21 + added
    if case == "fraction":
        options, further = {"emulator_error": {"fraction": 2.0}}, 4.0 * t_21**2
    if case == "curved":
        options, values = {"foreground": {"model": "loglog_polynomial", "terms": 2, "reference": 75}}, [7.4, -2.4]
        sky = 1000.0 * np.exp(7.4 - 2.4 * np.log(data.frequency / 75.0)) + t_21
    values = np.array(values)
    made = likelihood(data, z, **options)
    if case == "systematics":
        order = dict(zip(("A_sin", "A_cos", "period", "damping"), values[3:]))
        values = np.array([order.get(n, v) for n, v in zip(made.names, [*A, *([0.0] * 4)])])
        sky = made.model(signal, values)
        np.testing.assert_allclose(sky - basis() @ A - t_21, added, rtol=1e-9)
    variance = sky**2 / (SAMPLES * WEIGHT) + further
    expected = stats.norm(sky, np.sqrt(variance)).logpdf(data.temperature).sum()
    for same in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert same(signal, values) == pytest.approx(expected, rel=1e-9)
    z_scores = (data.temperature - sky)[np.argsort(data.frequency)] / np.sqrt(variance)[np.argsort(data.frequency)]
    np.testing.assert_allclose(made.standard_residuals(signal, values), z_scores, rtol=1e-7)
    assert made.chi_square(signal, values) == pytest.approx(z_scores @ z_scores, rel=1e-9)
    fixed = made.with_variance_at(signal, values)
    assert fixed(signal, values) == pytest.approx(expected, rel=1e-9)
    assert fixed.with_variance_at(2.0 * signal, values) is fixed
    batch = made.loglikelihood_batch(np.array([signal, 0.5 * signal]), np.array([values, values]))
    assert batch.tolist() == [made(signal, values), made(0.5 * signal, values)]


def dense(data, signals, variance_of, rows, mean, scale):
    """Ln L and conditional mean: noise of the data, its mean coefficients, and the noise of that sky."""
    extended = np.longdouble
    r, prior = (data - signals).astype(extended), np.diag(np.asarray(scale, dtype=extended) ** 2)

    def fit(variance):
        whole = np.diag(variance.astype(extended)) + rows @ prior @ rows.T
        factor = cholesky(whole)
        best = mean + prior @ rows.T @ solved(factor, r - rows @ mean)
        z = forward(factor, r - rows @ mean)
        value = -0.5 * (z @ z) - np.log(np.diag(factor)).sum() - 0.5 * len(r) * np.log(2.0 * np.pi)
        return float(value), best.astype(float)

    _, first = fit(variance_of(data))
    return fit(variance_of(rows @ first + signals))


def cholesky(matrix):
    """In extended precision, because the covariance of a foreground is ill-conditioned."""
    factor = np.zeros_like(matrix)
    for j in range(len(matrix)):
        factor[j:, j] = matrix[j:, j] - factor[j:, :j] @ factor[j, :j]
        factor[j:, j] /= np.sqrt(factor[j, j])
    return factor


def forward(factor, b):
    x = np.zeros_like(b)
    for j in range(len(b)):
        x[j] = (b[j] - factor[j, :j] @ x[:j]) / factor[j, j]
    return x


def solved(factor, b):
    return forward(factor.T[::-1, ::-1], forward(factor, b)[::-1])[::-1]


@pytest.mark.parametrize("size", [1.0, 1e3, 1e5])
@pytest.mark.parametrize("case", ["plain", "free", "diagonal", "on the grid"])
def test_a_marginalised_foreground_has_its_sky_at_the_conditional_mean(case, size):
    """Also far from the data, where chi-square is a difference of large numbers."""
    z, data, options, values, further = Z, spectrum(), {}, np.empty(0), np.zeros(N)
    covariance = 25.0 * np.exp(-0.5 * (Z[:, None] - Z) ** 2)
    if case == "free":
        options, values, further = {"noise": radiometer(floor="free")}, np.array([800.0]), 6.4e5 / WEIGHT
    if case == "diagonal":
        matrix = interpolation_matrix(Z, FREQUENCY)
        options, further = {"emulator_error": "diagonal"}, np.diag(matrix @ (1e7 * covariance) @ matrix.T)
    if case == "on the grid":
        z = 1420.405751768 / FREQUENCY[::-1] - 1.0
        data = spectrum(redshift_to_frequency(z))
    made = likelihood(data, z, 1e7 * covariance, foreground=MARGINALISED, **options)
    signal = size * np.exp(-0.5 * ((z - 17.0) / 2.0) ** 2)
    t_21, rows = at_channels(signal, z, data.frequency), basis(data.frequency)
    expected, best = dense(
        data.temperature, t_21, lambda sky: sky**2 / (SAMPLES * WEIGHT) + further, rows, MARGINALISED["mean"],
        MARGINALISED["scale"],
    )  # fmt: skip
    assert made(signal, values) == pytest.approx(expected, rel=1e-9)
    assert made.with_variance_at(signal, values)(signal, values) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(made.coefficients(signal, values), best, rtol=1e-8, atol=1e-7)
    np.testing.assert_allclose(made.sky(signal, values), rows @ best + t_21, rtol=1e-9)
    other = likelihood(data, z, 1e7 * covariance, foreground=MARGINALISED,
                       **(options | {"noise": options.get("noise", radiometer()) | {"sky": "data"}}))  # fmt: skip
    assert abs(other(signal, values) - expected) > 1e-3


def test_chi_square_far_from_the_data():
    """The stable form takes over where the compiled one would lose digits."""
    made = likelihood(foreground=MARGINALISED, noise=radiometer(1e10))
    signal = 1e5 * np.exp(-0.5 * ((Z - 17.0) / 0.5) ** 2)
    expected, _ = dense(
        made.spectrum.temperature, at_channels(signal), lambda sky: sky**2 / (1e10 * WEIGHT), basis(),
        MARGINALISED["mean"], MARGINALISED["scale"],
    )  # fmt: skip
    assert expected < -1e7
    assert made(signal, np.empty(0)) == pytest.approx(expected, rel=1e-9)


def joint_of(samples=SAMPLES):
    first = likelihood(noise=radiometer(samples), foreground=MARGINALISED)
    data = spectrum(np.linspace(60.0, 90.0, 30), np.full(30, 0.7), seed=2)
    second = likelihood(data, noise=radiometer(2.0 * samples, floor="free"), foreground=MARGINALISED)
    third = likelihood(spectrum(seed=3), noise={"sigma": 3e4}, foreground=MARGINALISED)
    members = {"first": first, "second": second, "third": third}
    names = {"first": ("a0", "a1", "x"), "second": ("a0", "a1", "y"), "third": ("a0", "a1", "x")}
    return JointLinearSpectra(members, names), members


def test_shared_coefficients_agree_with_the_dense_computation():
    joint, members = joint_of()
    assert joint.names == ("floor",)
    values, signal = np.array([700.0]), 1e4 * np.exp(-0.5 * ((Z - 17.0) / 2.0) ** 2)
    rows, sizes = np.zeros((110, 4)), [40, 30, 40]
    ends = np.cumsum([0, *sizes])
    for member, start, end, last in zip(members.values(), ends, ends[1:], (2, 3, 2)):
        rows[start:end, [0, 1, last]] = basis(member.spectrum.frequency)
    parts = list(members.values())
    data, weight = (np.concatenate([getattr(m.spectrum, what) for m in parts]) for what in ("temperature", "weight"))
    t_21 = np.concatenate([m.on_channels(signal) for m in parts])
    samples = np.repeat([SAMPLES, 2.0 * SAMPLES, np.inf], sizes)
    sigma = np.repeat([0.0, 700.0, 3e4], sizes)
    mean, scale = [*MARGINALISED["mean"], 0.0], [*MARGINALISED["scale"], 5.0]
    expected, best = dense(data, t_21, lambda sky: (sky**2 / samples + sigma**2) / weight, rows, mean, scale)
    assert joint(signal, values) == pytest.approx(expected, rel=1e-9)
    assert joint.with_variance_at(signal, values)(signal, values) == pytest.approx(expected, rel=1e-9)
    assert joint(0.9 * signal, values) != joint(signal, values)
    assert joint(signal, values) == pytest.approx(expected, rel=1e-9)
    sky = rows @ best + t_21
    z = (data - sky) / np.sqrt((sky**2 / samples + sigma**2) / weight)
    for name, start, end, last in zip(members, ends, ends[1:], (2, 3, 2)):
        member = joint.members[name]
        own = values[[joint.names.index(n) for n in member.names]]
        np.testing.assert_allclose(member.coefficients(signal, own), best[[0, 1, last]], rtol=1e-7, atol=1e-6)
        # The noise here is that of the best sky, and there of that under the noise of the data.
        np.testing.assert_allclose(member.standard_residuals(signal, own), z[start:end], rtol=1e-3, atol=1e-3)
    assert joint(BLACK, values) == -np.inf
    assert np.isnan(joint(np.full(len(Z), np.nan), values))


def test_an_infinite_sky():
    made = likelihood(foreground={"model": "loglog_polynomial", "terms": 2, "reference": 75})
    with np.errstate(over="ignore"):
        assert made(SIGNAL, np.array([800.0, 0.0])) == -np.inf


@pytest.mark.parametrize("foreground", [LINEAR, MARGINALISED])
def test_limits(foreground):
    made = likelihood(foreground=foreground)
    values = A if foreground is LINEAR else np.empty(0)
    assert np.isnan(made(np.full(len(Z), np.nan), values))
    # A sky that is not positive is impossible. Variances are then fixed at those of the data.
    assert made(BLACK, values) == -np.inf
    fixed = made.with_variance_at(BLACK, values)
    np.testing.assert_allclose(fixed.covariance, made.spectrum.temperature**2 / SAMPLES / WEIGHT)
    error = likelihood(foreground=foreground, emulator_error=100.0).with_variance_at(SIGNAL, values)
    np.testing.assert_allclose(error.covariance - error.noise.extra, 1e4, rtol=1e-6)
    assert np.isfinite(fixed(BLACK, values))
    free = likelihood(foreground=foreground, noise=radiometer(floor="free"))
    assert free(SIGNAL, np.array([np.nan, *values])) == -np.inf


@pytest.mark.parametrize("foreground", [LINEAR, MARGINALISED | {"scale": 1e3}])
def test_mocks_have_standard_residuals_of_unit_variance(foreground):
    """Noise of 5 % in a channel, so that that of the data would differ."""
    options, rng = {"noise": radiometer(400.0), "foreground": foreground}, np.random.default_rng(3)
    made, scores, learnt = likelihood(**options), [], []
    values = A if foreground is LINEAR else np.empty(0)
    for _ in range(300):
        mock = made.mocked([SIGNAL, values], rng, coefficients=None if foreground is LINEAR else A)
        scores.append(likelihood(mock, **options).standard_residuals(SIGNAL, values))
        of_data = likelihood(mock, **(options | {"noise": radiometer(400.0, sky="data")}))
        learnt.append(of_data.standardise(mock.temperature - basis() @ A - at_channels(SIGNAL), values))
    scores, fitted = np.array(scores), 0 if foreground is LINEAR else 3
    assert np.abs(scores.mean(axis=0)).max() < 4.0 / np.sqrt(300)
    # 12000 numbers: 0.013.
    assert (scores**2).mean() == pytest.approx(1.0 - fitted / N, abs=0.04)
    assert abs(scores.mean()) < 0.03
    # The noise of the data is large where the noise is positive.
    assert np.mean(learnt) == pytest.approx(-np.mean(1.0 / np.sqrt(400.0 * WEIGHT)), abs=0.02)


@pytest.mark.parametrize("marginalise", [False, True])
def test_noise_is_not_learnt_from_noise(marginalise):
    """With the noise of the data, channels that scatter low weigh more: -2 sqrt(n / samples) sigma in the amplitude."""
    samples, n, draws = 400.0, 100, 300
    frequency, rng = np.linspace(60.0, 90.0, n), np.random.default_rng(8)
    sky = 1e3 * 1750.0 * (frequency / 75.0) ** -2.5
    foreground = {"terms": 1, "reference": 75, "mean": 0.0, "scale": 1e4, "marginalise": marginalise}
    pulls = {"data": [], "model": []}
    for _ in range(draws):
        data = Spectrum(frequency, sky * (1.0 + rng.standard_normal(n) / np.sqrt(samples)), np.ones(n))
        for what, found in pulls.items():
            made = likelihood(data, noise=radiometer(samples, sky=what), foreground=foreground)
            if marginalise:
                best = made.coefficients(0.0 * Z, np.empty(0))[0]
            else:
                grid = 1750.0 * (1.0 + np.linspace(-0.03, 0.03, 61))
                values = np.array([made(0.0 * Z, np.array([a])) for a in grid])
                top = np.clip(values.argmax(), 1, 59)
                low, middle, high = values[top - 1 : top + 2]
                best = grid[top] + 0.5 * (grid[1] - grid[0]) * (low - high) / (low - 2.0 * middle + high)
            found.append((best / 1750.0 - 1.0) * np.sqrt(samples * n))
    # The error of a mean is 0.06.
    assert np.mean(pulls["data"]) == pytest.approx(-2.0 * np.sqrt(n / samples), abs=0.25)
    assert abs(np.mean(pulls["model"])) < 0.25
    assert np.std(pulls["model"]) == pytest.approx(1.0, abs=0.17)


@pytest.mark.parametrize(("samples", "most"), [(1e3, 0.1), (1e5, 4e-3)])
def test_the_evidence_is_that_of_the_sampled_foreground(samples, most):
    """The sampled foreground has the exact noise everywhere. Importance sampling from the conditional distribution."""
    rng = np.random.default_rng(4)
    sky = basis() @ A
    data = Spectrum(FREQUENCY, sky * (1.0 + rng.standard_normal(N) / np.sqrt(samples * WEIGHT)), WEIGHT)
    made = likelihood(data, noise=radiometer(samples), foreground=MARGINALISED)
    exact = likelihood(data, noise=radiometer(samples))
    changes = []
    for signal in (SIGNAL, np.zeros(len(Z))):
        extra = made.with_variance_at(signal, np.empty(0)).density.extra
        fixed = exact.density.with_extra(extra)
        draws = [made.coefficients(signal, np.empty(0), rng) for _ in range(2000)]
        ratio = [exact(signal, a) - fixed.logpdf_whitened(exact.residual(signal, a), 0.0) for a in draws]
        assert np.std(ratio) < 0.3
        changes.append(logsumexp(ratio) - np.log(len(ratio)))
    # The change of ln L by the exact noise, and that of the ratio of the evidences with and without a signal.
    assert np.abs(changes).max() < most
    assert abs(changes[0] - changes[1]) < 0.1 * most


def test_what_cannot_be(tmp_path):
    np.save(tmp_path / "C.npy", 600.0 * np.eye(N))
    covariance = 25.0 * np.exp(-0.5 * (Z[:, None] - Z) ** 2)
    low = dataclasses.replace(spectrum(), temperature=spectrum().temperature - 2e6)
    file = {"model": "covariance", "file": str(tmp_path / "C.npy"), "sky": "model"}
    cases = [
        ({"foreground": None}, r"^noise: sky: model needs the sky in the model, but there is no foreground; add one"),
        ({"emulator_error": True}, r"^noise: sky: model needs independent channels, .* set emulator_error: diagonal"),
        ({"noise": file}, r"unknown key noise.sky"),
        ({"noise": radiometer(sky="modle")}, r"noise.sky is 'modle'"),
        ({"data": low}, r"^noise: radiometer noise needs the sky temperature, but the data go down to"),
        ({"foreground": MARGINALISED, "emulator_error": {"fraction": 0.25}}, r"but the foreground is marginalised"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            likelihood(**{"covariance": covariance} | options)


@pytest.mark.parametrize("foreground", [LINEAR, MARGINALISED])
@pytest.mark.parametrize("floor", [0, "free"])
def test_the_form_in_jax_is_the_same(foreground, floor):
    jax = pytest.importorskip("jax", reason="pip install jax")
    from lstmfit.likelihoods.jax_likelihood import make_loglikelihood

    made = likelihood(foreground=foreground, noise=radiometer(floor=floor))
    values = np.array([*([500.0] if floor == "free" else []), *(A if foreground is LINEAR else [])])
    with jax.enable_x64(True):
        compiled = jax.jit(make_loglikelihood(made))
        for size in (0.0, 1.0, 100.0):
            assert float(compiled(size * SIGNAL, values)) == pytest.approx(made(size * SIGNAL, values), rel=1e-9)
        if foreground is LINEAR:
            values[-3:] = -A
            assert float(compiled(SIGNAL, values)) == made(SIGNAL, values) == -np.inf


def run(**options):
    noise, made = radiometer(1e9), {"model": "log_polynomial", "reference": 75, "coefficients": A.tolist()}
    mock = {"theta": THETA, "from": "emulator", "noise": noise, "foreground": made}
    block = {"class": "global_signal", "noise": noise, "foreground": MARGINALISED | {"scale": 100.0}}
    data = {"one": {"mock": mock | {"seed": 1}, "band": [55, 85]}, "two": {"mock": mock | {"seed": 2}}}
    return tiny_run(**({"data": data, "likelihood": {"one": block, "two": block}} | options))


SHARED = {"shared": ["a0", "a1", "a2"]}


@pytest.mark.parametrize("shared", [{}, SHARED])
def test_a_check_of_two_spectra(shared):
    block = run()["likelihood"]["one"] | shared
    report = check_run(run(likelihood={"one": block, "two": block}), n_draws=20)
    assert report["D_KL_bound_mean"] > 0


def test_a_fit_of_two_spectra(tmp_path):
    block = run()["likelihood"]["one"] | SHARED
    finished = lstmfit.fit(run(likelihood={"one": block, "two": block}), tmp_path / "out")
    assert np.isfinite(finished.summary["logZ"])
    for figures in finished.summary["fit"]["spectra"].values():
        assert figures["p_value"] > 1e-4
        assert figures["posterior_predictive_p"] > 1e-4
    assert run_file.load(tmp_path / "out" / "run.yaml").likelihood["one"].noise.sky == "model"
    assert truth_problem(finished, "echo21").spectra["one"].noise.samples == pytest.approx(1e9)
    # Not the same problem as with the noise of the data.
    assert compared(finished)["likelihood.one.noise"][4] == pytest.approx(1e9)


def test_the_metric_of_the_forecast_is_that_at_its_parameters():
    a = np.sin(np.arange(451.0))
    for shared in ({}, SHARED):
        block = run()["likelihood"]["one"] | shared
        problem = build(run_file.load(run(likelihood={"one": block, "two": block})))
        theta = np.array([0.1, 1e4])
        metric = noise_metric(problem, theta)
        assert metric(3.0 * a, 3.0 * a) == pytest.approx(9.0 * metric(a, a), rel=1e-4)


def test_a_drawn_mock_has_the_noise_of_its_own_sky():
    """`calibrate` draws the coefficients from their prior, so that the sky is another one than that of the data."""
    block = run()["likelihood"]["one"] | {"foreground": MARGINALISED | {"mean": [17500.0, 0.0, 0.0], "scale": 1.0}}
    problem = build(run_file.load(run(likelihood={"one": block, "two": block})))
    simulate, rng, theta = load_simulator("echo21"), np.random.default_rng(2), np.array([0.1, 1e4])
    quiet = problem.spectra["one"].mocked([problem.signal_at(theta), np.empty(0)], None).temperature
    drawn = [draw_mock(problem, simulate, theta, rng)[0]["one"].temperature for _ in range(60)]
    smooth = np.vander(np.linspace(-1, 1, len(quiet)), 9)
    ratio = np.array(drawn) / quiet
    left = ratio - (smooth @ np.linalg.lstsq(smooth, ratio.T, rcond=None)[0]).T
    assert left.std() * np.sqrt(1e9) == pytest.approx(np.sqrt(1.0 - 9.0 / len(quiet)), rel=0.1)


def test_another_covariance_in_the_same_basis(rng):
    made, values, r = likelihood(noise=radiometer(sky="data"), foreground=MARGINALISED), np.empty(0), rng.normal(size=N)
    before = made.density.logpdf_whitened(r, 0.0)
    other = made.density.with_extra(4.0 * made.density.extra)
    fresh = likelihood(noise=radiometer(SAMPLES / 4.0, sky="data"), foreground=MARGINALISED)
    assert other.logpdf_whitened(r, 0.0) == pytest.approx(fresh.density.logpdf_whitened(r, 0.0), rel=1e-12)
    assert made.density.logpdf_whitened(r, 0.0) == before
    assert made.with_variance_at(SIGNAL, values) is made
