"""Spectral indices of regions marginalised by Laplace's method: against integrals on a grid, and a nested sampler."""

import copy
import itertools
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import THETA, small_run
from scipy import optimize, stats

from lstmfit import config as run_file
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.forecast import noise_metric
from lstmfit.analysis.report import write_report
from lstmfit.calibration import calibrate
from lstmfit.checks import check_run
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.driver import fit
from lstmfit.emulator.emulator import Emulator
from lstmfit.errors import InputError
from lstmfit.likelihoods import make_likelihood
from lstmfit.likelihoods.global_signal import GlobalSignal
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.likelihoods.joint_regions import JointRegions
from lstmfit.likelihoods.noise import Noise
from lstmfit.problem import build

Z = np.linspace(12.0, 26.0, 29)
NU = np.linspace(54.0, 105.0, 60)
SIGNAL = -100.0 * np.exp(-0.5 * ((Z - 17.0) / 2.0) ** 2)
BETAS = [2.5, 2.7, 2.8]
LOW, HIGH = 2.45844, 3.14556
GRID = redshift_to_frequency(Emulator.load("echo21").redshifts)


def weights(nu, phase=0.0):
    """Temperatures (n, 3) of the regions in K at 230 MHz, which differ in how a beam sees them."""
    return np.stack([90 + 0.4 * nu, 60 * np.exp(-(((nu - 80 - phase) / 20) ** 2)), 50 + 15 * np.sin(nu / 9 + phase)], 1)


def sky(K, betas, nu=NU):
    """The foreground (n,) in mK."""
    return 1e3 * (K * (nu[:, None] / 230.0) ** -np.asarray(betas)).sum(axis=1) + 2725.0


def spectrum(K, betas, sigma=25.0, seed=3):
    rng, weight = np.random.default_rng(seed), np.linspace(0.5, 2.0, len(NU))
    noise = sigma / np.sqrt(weight) * rng.standard_normal(len(NU))
    return Spectrum(NU, sky(K, betas) + interpolation_matrix(Z, NU) @ SIGNAL + noise, weight)


def made(folder, K, data, sigma=25, name="K", **options):
    np.savez(folder / f"{name}.npz", K=K, frequencies=NU)
    foreground = {"model": "regions", "file": str(folder / f"{name}.npz"), "marginalise": True}
    return make_likelihood("global_signal", Z, {"noise": {"sigma": sigma}, "foreground": foreground} | options, data)


def on_a_grid(model, data, sigma, signal, k, points=31, reach=6.0):
    """Ln of the evidence of all channels, and mean (k,) and covariance (k, k) of the indices, by a sum over a grid.

    The axes of the grid are those of the covariance from a fit by SciPy.
    """
    def chi(betas):
        return (data - signal - model(betas)) / sigma

    found = optimize.least_squares(chi, np.full(k, 2.7), x_scale=1e-3, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    axes = np.linalg.inv(np.linalg.cholesky(found.jac.T @ found.jac)).T
    steps = np.linspace(-reach, reach, points)
    betas = found.x + np.array(list(itertools.product(steps, repeat=k))) @ axes.T
    log = np.array([-0.5 * (chi(b) ** 2).sum() for b in betas])
    log[((betas < LOW) | (betas > HIGH)).any(axis=1)] = -np.inf
    weight = np.exp(log - log.max())
    volume = abs(np.linalg.det(axes)) * (steps[1] - steps[0]) ** k / (HIGH - LOW) ** k
    value = log.max() + np.log(weight.sum() * volume) - np.log(sigma * np.sqrt(2 * np.pi)).sum()
    mean = weight @ betas / weight.sum()
    return value, mean, np.cov(betas.T, aweights=weight, ddof=0)


def noise_of(data, sigma):
    return sigma / np.sqrt(data.weight)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("sigma", [25, "free"])
def test_the_integral_is_that_on_a_grid(k, sigma, tmp_path):
    K, betas = weights(NU)[:, :k], [2.5, 2.7, 2.8][:k]
    data = spectrum(K, betas)
    likelihood = made(tmp_path, K, data, sigma)
    assert likelihood.n_marginalised == k
    for scale, amplitude in ((1.0, 1.0), (1.3, 0.5)):
        values = np.array([25.0 * scale]) if sigma == "free" else np.empty(0)
        at = noise_of(data, values[0] if sigma == "free" else 25.0)
        signal = interpolation_matrix(Z, NU) @ SIGNAL * amplitude
        expected, mean, covariance = on_a_grid(lambda b: sky(K, b), data.temperature, at, signal, k)
        assert likelihood(amplitude * SIGNAL, values) == pytest.approx(expected, abs=2e-3)
        rng = np.random.default_rng(1)
        draws = np.array([likelihood.coefficients(amplitude * SIGNAL, values, rng) for _ in range(1500)])
        width = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.1 * width.max())
        np.testing.assert_allclose(draws.std(axis=0), width, rtol=0.1)
        mode = likelihood.coefficients(amplitude * SIGNAL, values)
        residual = likelihood.residuals(amplitude * SIGNAL, values)
        np.testing.assert_allclose(residual, data.temperature - signal - sky(K, mode), atol=1e-6)


def test_a_known_index_at_the_end_of_its_prior(tmp_path):
    """One region: the integral is Gaussian, cut at the limit of the prior."""
    K = weights(NU)[:, :1]
    width = 2e-6  # of the posterior of the index
    for beta in (LOW, LOW + width, LOW - 2 * width, LOW + 15 * width, HIGH, HIGH + 3 * width):
        data = spectrum(K, [beta], sigma=30.0)
        likelihood = made(tmp_path, K, data, 30)
        at = noise_of(data, 30.0)
        grid = np.linspace(max(LOW, beta - 20 * width), min(HIGH, beta + 20 * width), 8001)
        residual = data.temperature - interpolation_matrix(Z, NU) @ SIGNAL
        log = np.array([-0.5 * (((residual - sky(K, [b])) / at) ** 2).sum() for b in grid])
        expected = log.max() + np.log(np.trapezoid(np.exp(log - log.max()), grid) / (HIGH - LOW))
        expected -= np.log(at * np.sqrt(2 * np.pi)).sum()
        assert likelihood(SIGNAL, np.empty(0)) == pytest.approx(expected, abs=5e-3)
        draws = [likelihood.coefficients(SIGNAL, np.empty(0), np.random.default_rng(i))[0] for i in range(50)]
        assert min(draws) >= LOW
        assert max(draws) <= HIGH
        if beta == LOW + 15 * width:
            assert np.std(draws) == pytest.approx(width, rel=0.4)


def test_far_signals_are_as_exact_as_near_ones(tmp_path, rng):
    """The expansion, the exact model where it ends, and another order of calls give the same."""
    K = weights(NU)
    data = spectrum(K, [2.5, 2.7, 2.8])
    likelihood = made(tmp_path, K, data)
    regions, inverse = likelihood.density.regions, likelihood.density.regions.inverse
    values, ended = [], 0
    signals = [s * SIGNAL for s in (0.0, 0.5, 1.0, 2.0, 3e3, -3e3)]
    for signal in signals:
        r = likelihood.residual(signal, np.empty(0))
        # A copy of the inverse variances is not known, so that the exact model is used.
        exact = regions.log_integral(r, inverse.copy())
        values.append(regions.log_integral(r, inverse))
        assert values[-1] == pytest.approx(exact, rel=1e-9, abs=1e-5)
        _, mode, _ = regions._find_mode(r, inverse)
        ended += np.abs(mode - regions._starts[0]).max() > regions._expansions[0][0]
    assert ended > 0
    r = likelihood.residual(signals[2], np.empty(0))
    assert regions.log_integral(r, inverse) == values[2]


def test_the_deepest_minimum_is_found(tmp_path, rng):
    """Five regions in three spectra, with minima far from the truth: from the truth, SciPy finds no better one."""
    names, others = tuple(f"beta_{i}" for i in range(5)), 0
    for case in range(15):
        betas = rng.uniform(LOW, HIGH, 5)
        beam = [np.stack([1 + 0.03 * np.sin(NU / (15 + 3 * i) + s) for i in range(5)], axis=1) for s in range(3)]
        Ks = [60.0 * rng.uniform(0.05, 1.0, 5) * gain for gain in beam]
        data = [spectrum(K, betas, 10.0, seed=3 * case + i) for i, K in enumerate(Ks)]
        members = {str(i): made(tmp_path, K, d, 10, name=f"K{i}") for i, (K, d) in enumerate(zip(Ks, data))}
        joint = JointRegions(members, dict.fromkeys(members, names))
        signal = interpolation_matrix(Z, NU) @ SIGNAL
        sigma = np.concatenate([noise_of(d, 10.0) for d in data])
        residual = np.concatenate([d.temperature - signal for d in data])

        def chi(b, Ks=Ks, residual=residual, sigma=sigma):
            return (residual - np.concatenate([sky(K, b) for K in Ks])) / sigma

        fits = [
            optimize.least_squares(chi, start, x_scale=1e-3, xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=300)
            for start in (betas, rng.uniform(LOW, HIGH, 5))
        ]
        mode = joint.coefficients(SIGNAL, np.empty(0))["0"]
        assert (chi(mode) ** 2).sum() <= 2 * min(fit.cost for fit in fits) + 1e-3
        others += fits[1].cost > fits[0].cost + 1.0
    # Some searches from elsewhere do end in another minimum.
    assert others > 0


def test_copies_pickles_and_threads(tmp_path):
    K = weights(NU)
    likelihood = made(tmp_path, K, spectrum(K, [2.5, 2.7, 2.8]), "free")
    points = [(s * SIGNAL, np.array([sigma])) for s in (0.9, 1.0, 1.1) for sigma in (20.0, 25.0)] * 20
    expected = [likelihood(*point) for point in points]
    for other in (copy.deepcopy(likelihood), pickle.loads(pickle.dumps(likelihood))):
        assert [other(*point) for point in points] == expected
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda point: likelihood(*point), points)) == expected
    signals, values = map(np.array, zip(*points))
    np.testing.assert_array_equal(likelihood.loglikelihood_batch(signals, values), expected)


# ---------------------------------------------------------------- several spectra


@pytest.mark.parametrize("shared", [[0, 1, 2], [0, 2]])
def test_shared_indices_are_marginalised_jointly(shared, tmp_path):
    """Two spectra with one set of indices, or with one index each of their own."""
    names = [f"beta_{i}" for i in range(3)]
    Ks = [weights(NU)[:, :2], weights(NU, 15.0)[:, :2]]
    own = [[0, 1], [0, 1] if shared == [0, 1, 2] else [0, 2]]
    true, k = np.array([2.5, 2.7, 2.9]), 1 + max(max(o) for o in own)
    data = [spectrum(K, true[o], seed=i) for i, (K, o) in enumerate(zip(Ks, own))]
    members = {str(i): made(tmp_path, K, d, name=f"K{i}") for i, (K, d) in enumerate(zip(Ks, data))}
    joint = JointRegions(members, {str(i): tuple(names[j] for j in o) for i, o in enumerate(own)})
    assert joint.n_marginalised == k
    signal = interpolation_matrix(Z, NU) @ SIGNAL

    def model(betas):
        return np.concatenate([sky(K, betas[o]) for K, o in zip(Ks, own)])

    sigma = np.concatenate([noise_of(d, 25.0) for d in data])
    both = np.concatenate([d.temperature for d in data])
    expected, mean, covariance = on_a_grid(model, both, sigma, np.concatenate([signal, signal]), k)
    assert joint(SIGNAL, np.empty(0)) == pytest.approx(expected, abs=2e-3)
    error, efficiency = joint.error(SIGNAL, np.empty(0), 4000, np.random.default_rng(1))
    assert abs(error) < 5e-3
    assert 0.98 < efficiency < 1.0
    draws = [joint.coefficients(SIGNAL, np.empty(0), np.random.default_rng(i)) for i in range(1500)]
    for name, o in zip(joint.members, own):
        found = np.array([draw[name] for draw in draws])
        np.testing.assert_allclose(found.mean(axis=0), mean[o], atol=0.1 * np.sqrt(covariance.max()))
        np.testing.assert_allclose(found.std(axis=0), np.sqrt(np.diag(covariance))[o], rtol=0.1)
        of_member = joint.members[name].coefficients(SIGNAL, np.empty(0))
        np.testing.assert_array_equal(of_member, joint.coefficients(SIGNAL, np.empty(0))[name])


def run(folder, spectra=2, shared=True, **changes):
    """Mock spectra of ECHO21 under three regions that each sees differently."""
    data, likelihood = {}, {}
    for i in range(spectra):
        name, file = f"lst{i}", str(folder / f"K{i}.npz")
        np.savez(file, K=weights(GRID, 15.0 * i), frequencies=GRID)
        foreground = {"model": "regions", "file": file}
        mock = {"theta": THETA, "from": "emulator", "noise": 25, "seed": i}
        mock["foreground"] = foreground | {"coefficients": BETAS}
        data[name] = {"mock": mock, "band": [60, 120]}
        block = {"class": "global_signal", "noise": {"sigma": 25}, "foreground": foreground | {"marginalise": True}}
        likelihood[name] = block | ({"shared": ["beta_0", "beta_1", "beta_2"]} if shared and spectra > 1 else {})
    return small_run(data=data, likelihood=likelihood) | changes


@pytest.mark.parametrize("spectra", [1, 2])
def test_a_fit_from_run_file_to_report(spectra, tmp_path):
    problem = build(run_file.load(run(tmp_path, spectra)))
    assert problem.names == ("fX", "Tmin_vir")
    assert problem.n_marginalised == 3
    sampler = {"polychord": {"nlive": 30, "num_repeats": 3, "seed": 1}}
    folder = fit(run(tmp_path, spectra, sampler=sampler), tmp_path / "chain", jobs=1)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["fit"]["verdict"]["fits"]
    channels = sum(len(likelihood.spectrum.frequency) for likelihood in problem.spectra.values())
    assert summary["fit"]["dof"] == pytest.approx(channels - 5, abs=1.5)
    for name, p in summary["parameters"].items():
        true = np.log10(THETA[name]) if p.get("log10") else THETA[name]
        assert abs(p["mean"] - true) < 4 * p["std"]
    text = write_report(read_run(folder), tmp_path / "report.html").read_text()
    assert all(f"beta_{i}" in text for i in range(3))
    resumed = fit(folder / "run.yaml", folder, resume=True)
    assert json.loads((resumed / "summary.json").read_text()) == summary


def test_each_spectrum_may_have_its_own_indices(tmp_path):
    both = build(run_file.load(run(tmp_path, 2, shared=False)))
    assert list(both.likelihoods) == ["lst0", "lst1"]
    assert both.n_marginalised == 6
    shared = build(run_file.load(run(tmp_path, 2)))
    theta = np.array([THETA["fX"], THETA["Tmin_vir"]])
    # Three indices less that pay for their priors.
    assert shared.loglikelihood(theta)[0] > both.loglikelihood(theta)[0]


@pytest.mark.parametrize("spectra", [1, 2])
def test_the_forecast_has_linear_regions(spectra, tmp_path, rng):
    content = run(tmp_path, spectra)
    problem = build(run_file.load(content))
    theta = np.array([THETA["fX"], THETA["Tmin_vir"]])
    product = noise_metric(problem, theta)
    signal = problem.signal_at(theta)
    on_grid, errors, slopes = rng.standard_normal((2, len(signal))), [], []
    for name, likelihood in problem.spectra.items():
        betas = likelihood.coefficients(signal, np.empty(0))
        nu = likelihood.spectrum.frequency
        laws = 1e3 * weights(nu, 15.0 * int(name[-1])) * (nu[:, None] / 230.0) ** -betas
        slopes.append(-laws * np.log(nu / 230.0)[:, None] / 25.0)
        errors.append(likelihood.on_channels(on_grid) / 25.0)
    (a, b), slopes = np.hstack(errors), np.vstack(slopes)
    expected = a @ b - (a @ slopes) @ np.linalg.solve(slopes.T @ slopes, slopes.T @ b)
    assert product(*on_grid) == pytest.approx(expected, rel=1e-5)
    report = check_run(content)
    assert np.isfinite(report["D_KL_linear_mean"])


def test_mocks_have_common_indices_from_their_prior(tmp_path, rng):
    problem = build(run_file.load(run(tmp_path, 2)))
    (joint,) = problem.likelihoods.values()
    signal = problem.signal_at(problem.prior.sample(1, rng)[0])
    found = []
    for _ in range(40):
        mocks = joint.mocked([signal, np.empty(0)], rng)
        clean = {}
        for name, mock in mocks.items():
            member = joint.members[name]
            K = weights(member.spectrum.frequency, 15.0 * int(name[-1]))
            nu = member.spectrum.frequency

            def chi(b, K=K, nu=nu, mock=mock):
                return (mock.temperature - mock.truth - sky(K, b, nu)) / 25.0

            clean[name] = optimize.least_squares(chi, BETAS, x_scale=1e-3, xtol=1e-15, ftol=1e-15).x
        np.testing.assert_allclose(clean["lst0"], clean["lst1"], atol=0.02)
        found.append(clean["lst0"])
    assert stats.kstest(np.ravel(found), stats.uniform(LOW, HIGH - LOW).cdf).pvalue > 1e-3
    mocks = joint.mocked([signal, np.empty(0)], None)
    middle = sky(weights(nu), np.full(3, 0.5 * (LOW + HIGH)), nu)
    np.testing.assert_allclose(mocks["lst0"].temperature - mocks["lst0"].truth, middle, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.ci
def test_calibrate(tmp_path):
    content = run(tmp_path, 2, sampler={"polychord": {"nlive": 40, "num_repeats": 4, "seed": 1}})
    figures = calibrate(content, tmp_path / "calibration", 6, jobs=2)
    assert set(figures["parameters"]) == {"fX", "Tmin_vir"}
    for p in figures["parameters"].values():
        assert abs(p["z_mean"]) < 4 * max(p["z_std"], 1.0) / np.sqrt(6)


@pytest.mark.slow
@pytest.mark.ci
def test_the_sampled_evidence_is_the_marginal_one(tmp_path):
    """Two indices, everything else fixed: the evidence of the marginalised fit needs no sampler."""
    pytest.importorskip("nautilus", reason="pip install nautilus-sampler")
    file = str(tmp_path / "K.npz")
    np.savez(file, K=weights(GRID)[:, :2], frequencies=GRID)
    mock = {"theta": THETA, "from": "emulator", "noise": 25, "seed": 2}
    mock["foreground"] = {"model": "regions", "file": file, "coefficients": BETAS[:2]}
    results = []
    for marginalise in (True, False):
        content = small_run(
            data={"mock": mock, "band": [60, 120]}, params=THETA,
            likelihood={"global_signal": {
                "noise": {"sigma": 25}, "foreground": {"model": "regions", "file": file, "marginalise": marginalise}
            }},
            sampler={"nautilus": {"n_live": 500, "n_eff": 4000, "seed": 1}},
        )  # fmt: skip
        folder = fit(content, tmp_path / str(marginalise), jobs=1)
        results.append(json.loads((folder / "summary.json").read_text()))
    marginal, sampled = results
    assert marginal["parameters"] == {}
    assert abs(sampled["logZ"] - marginal["logZ"]) < max(4 * sampled["logZ_err"], 0.05)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"emulator_error": True}, r"indices of regions are only marginalised if channels are independent.*set "
                                   r"emulator_error: diagonal or false, or marginalise: false"),
        ({"noise": {"model": "radiometer", "sky": "model", "integration_time": 3600.0, "channel_width": 0.5}},
         r"sky: model does not allow marginalised spectral indices of regions; set sky: data, or marginalise: false"),
        ({"noise": {"model": "student_t", "sigma": 25, "dof": 4}}, r"Student-t noise does not allow analytic marg"),
        ({"emulator_error": {"fraction": 0.1}}, r"but the foreground is marginalised; set marginalise: false in it"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(options, message, tmp_path):
    content = run(tmp_path, 1)
    content["likelihood"]["lst0"] |= options
    with pytest.raises(InputError, match=message):
        build(run_file.load(content))


def test_a_channel_without_noise(tmp_path):
    K = weights(NU)
    component = made(tmp_path, K, spectrum(K, BETAS)).marginalised
    variance = np.where(np.arange(len(NU)) == 7, 0.0, 625.0)
    with pytest.raises(InputError, match="noise: the covariance is not positive definite; add a floor"):
        GlobalSignal(spectrum(K, BETAS), Z, Noise(0.0, extra=variance), component)


def test_diagonal_emulator_errors_are_noise(tmp_path):
    content = run(tmp_path, 1)
    content["likelihood"]["lst0"]["emulator_error"] = "diagonal"
    larger = build(run_file.load(content))
    (likelihood,) = larger.likelihoods.values()
    variance = 625.0 + likelihood.covariance
    np.testing.assert_allclose(1.0 / likelihood.density.regions.inverse, variance)


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (6, r"it would be off by [\d.]+ in ln L, but at most 0.5 is allowed"),
        (20, r"they cannot be told apart"),
    ],
)
def test_indices_that_the_data_do_not_constrain(k, message, tmp_path):
    """Regions that the beam sees nearly alike; found when the run is built."""
    K = np.stack([40 * (1 + 0.05 * np.sin(GRID / (9 + 3 * i))) for i in range(k)], axis=1)
    content = run(tmp_path, 1)
    np.savez(tmp_path / "K0.npz", K=K, frequencies=GRID)
    content["data"]["lst0"]["mock"]["foreground"]["coefficients"] = np.linspace(2.5, 2.9, k).tolist()
    message = (
        rf"likelihood.lst0: foreground: {k} spectral indices cannot be marginalised by Laplace's method with \d+ "
        rf"channels \({message}\); use more spectra with shared indices or fewer regions, or set marginalise: false"
    )
    with pytest.raises(InputError, match=message):
        build(run_file.load(content))


def test_blackjax_refuses_them(tmp_path):
    pytest.importorskip("jax")
    pytest.importorskip("blackjax")
    from lstmfit.sampling.blackjax import make_target

    with pytest.raises(InputError, match=r"blackjax cannot marginalise the spectral indices of regions"):
        make_target(build(run_file.load(run(tmp_path, 1, extrapolate=True))))
