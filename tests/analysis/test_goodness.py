"""Whether a fit fits: chi-square of every noise model, correlated residuals, posteriors at the end of their prior."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import EDGES, THETA, lstmfit, small_run
from scipy.stats import kstest, multivariate_normal

from lstmfit import config as run_file
from lstmfit.analysis.chains import Run, read_run, read_summary
from lstmfit.analysis.goodness import doubts, goodness, prior_ends, spectrum_fit
from lstmfit.constants import redshift_to_frequency
from lstmfit.driver import fit
from lstmfit.likelihoods.scale_check import check_scale
from lstmfit.problem import build

N = 451
FEW = {"polychord": {"nlive": 30, "num_repeats": 2, "seed": 1}}


class Chain(pd.DataFrame):
    """A table of samples of equal weight, as far as the functions here look at it."""

    def get_weights(self):
        return np.ones(len(self))


def at_the_truth(folder, noise, rng, **changes):
    """A run whose best sample is the truth and whose data are drawn from its noise model: z is standard normal."""
    content = small_run(likelihood={"global_signal": {"noise": noise}}, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = run_file.load(content)
        problem = build(config)
    block = config.likelihood["global_signal"].noise
    spectrum = problem.data["global_signal"]
    model = block.build(spectrum)
    model = dataclasses.replace(model, sigma=25.0 if model.sigma is None else model.sigma, dof=model.dof or 3.0)
    weight = rng.uniform(0.3, 3.0, N)
    data = spectrum.truth + model.draw(weight, rng)
    problem = build(config, {"global_signal": dataclasses.replace(spectrum, temperature=data, weight=weight)})
    values = {name: {"sigma": 25.0, "floor": 25.0, "dof": 3.0}.get(name, THETA.get(name)) for name in problem.names}
    run_file.dump(config, folder / "run.yaml")
    return Run(folder, Chain([values | {"logL": 0.0}]), problem)


def noises(folder):
    lag = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
    np.save(folder / "c.npy", 625.0 * 0.9**lag)
    np.savetxt(folder / "s.txt", np.linspace(10, 40, N))
    return {
        "white": {"sigma": 25},
        "free": {"sigma": "free"},
        "student": {"model": "student_t", "sigma": 25, "dof": 3},
        "free student": {"model": "student_t", "sigma": "free", "dof": "free"},
        "channels": {"model": "channels", "file": str(folder / "s.txt"), "floor": 5},
        "free floor": {"model": "channels", "file": str(folder / "s.txt"), "floor": "free"},
        "covariance": {"model": "covariance", "file": str(folder / "c.npy"), "floor": 10},
    }


@pytest.mark.parametrize("name", ["white", "free", "student", "free student", "channels", "free floor", "covariance"])
def test_residuals_of_the_truth_are_standard_normal_for_every_noise(tmp_path, rng, name):
    prior = {"dof": {"prior": {"min": 1, "max": 20}}} if "free student" in name else {}
    run = at_the_truth(tmp_path, noises(tmp_path)[name], rng, params=small_run()["params"] | prior)
    problem, theta = run.problem, run.samples[list(run.problem.names)].to_numpy()[0]
    likelihood, values = problem.spectra["global_signal"], problem.values(theta, "global_signal")
    z = likelihood.standard_residuals(problem.signal_at(theta), values)
    assert kstest(z, "norm").pvalue > 1e-3
    figures = goodness(run)
    fit = figures["fit"]["spectra"]["global_signal"]
    assert fit["chi2"] == z @ z
    assert fit["chi2"] == pytest.approx(likelihood.chi_square(problem.signal_at(theta), values))
    assert fit["fitted_noise_mK"] == (25.0 if "free" in name else None)
    # All draws are the same point, so that nothing was fitted.
    assert fit["dof"] == pytest.approx(N)
    assert 1e-3 < fit["p_value"] < 1 - 1e-3
    assert fit["p_value"] == pytest.approx(fit["posterior_predictive_p"], abs=1e-6)
    assert abs(fit["autocorrelation"]["lag_1"]) < 4 / np.sqrt(N)
    assert fit["verdict"]["fits"]
    assert not doubts(figures | {"at_prior_end": {}})
    json.dumps(figures)


def test_chi_square_of_a_covariance_is_the_dense_one(tmp_path, rng):
    run = at_the_truth(tmp_path, noises(tmp_path)["covariance"], rng)
    spectrum = run.problem.data["global_signal"]
    covariance = np.load(tmp_path / "c.npy") + np.diag(100.0 / spectrum.weight)
    signal = run.problem.signal(run.problem.signal_parameters(np.array([THETA["fX"], THETA["Tmin_vir"]])))
    dense = multivariate_normal(np.array(signal, dtype=float), covariance)
    expected = 2.0 * (dense.logpdf(dense.mean) - dense.logpdf(spectrum.temperature))
    assert goodness(run)["fit"]["chi2"] == pytest.approx(expected, rel=1e-9)


def trough(folder, amplitude, noise):
    """A data file with a signal that no parameters of ECHO21 make."""
    nu = redshift_to_frequency(np.linspace(6.0, 40.0, 300))
    data = amplitude * np.sin(nu / 3.0) + noise * np.random.default_rng(0).standard_normal(len(nu))
    np.savetxt(folder / "d.txt", np.column_stack([nu, data]))
    return {"file": str(folder / "d.txt")}


STUDENT = pytest.param({"model": "student_t", "sigma": 25, "dof": 50}, marks=[pytest.mark.slow, pytest.mark.ci])


@pytest.mark.parametrize("noise", [{"sigma": 25}, STUDENT])
def test_a_model_that_does_not_fit_is_named_in_summary_command_and_report(tmp_path, noise):
    content = small_run(data=trough(tmp_path, 500.0, 25.0), likelihood={"global_signal": {"noise": noise}}, sampler=FEW)
    run_file.dump(run_file.validate(content, ""), tmp_path / "run.yaml")
    done = lstmfit("fit", tmp_path / "run.yaml", "-o", tmp_path / "run", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "warning: residuals are not noise: the model does not fit, chi-square" in done.stdout
    assert "correlated over" in done.stdout
    found = read_summary(tmp_path / "run")["fit"]
    assert not found["verdict"]["fits"]
    assert found["p_value"] < 1e-4
    assert found["posterior_predictive_p"] < 1e-4
    assert found["chi2"] > 3 * found["dof"]
    report = lstmfit("report", tmp_path / "run")
    assert report.returncode == 0, report.stderr
    assert "residuals are not noise: the model does not fit" in (tmp_path / "run" / "report.html").read_text()


def test_free_noise_that_takes_in_the_misfit_is_seen_by_the_correlation_and_at_its_end(tmp_path):
    noise = {"global_signal": {"noise": {"sigma": "free"}}}
    params = small_run()["params"] | {"sigma": {"prior": {"dist": "loguniform", "min": 1, "max": 300}}}
    content = small_run(data=trough(tmp_path, 500.0, 25.0), likelihood=noise, params=params, sampler=FEW)
    lines = doubts(read_summary(fit(content, tmp_path / "run", jobs=1)))
    assert any("residuals are not noise" in line and "because the noise is fitted (3" in line for line in lines)
    assert any("sigma (upper)" in line for line in lines)
    low = params | {"sigma": {"prior": {"dist": "loguniform", "min": 100, "max": 300}}}
    content = small_run(likelihood=noise, params=low, sampler=FEW)
    lines = doubts(read_summary(fit(content, tmp_path / "low", jobs=1)))
    assert any("sigma (lower)" in line for line in lines)


def test_a_good_fit_has_no_doubts(tmp_path):
    run_file.dump(run_file.validate(small_run(), ""), tmp_path / "run.yaml")
    done = lstmfit("fit", tmp_path / "run.yaml", "-o", tmp_path / "run", "--jobs", "1")
    assert "\nresiduals are noise: chi-square" in done.stdout
    assert "warning" not in done.stdout
    summary = read_summary(tmp_path / "run")
    assert {"chi2", "dof", "p_value", "posterior_predictive_p", "verdict", "spectra"} <= set(summary["fit"])
    assert 1e-4 < summary["fit"]["p_value"] < 1 - 1e-4
    assert N - 2.5 < summary["fit"]["dof"] < N - 1.5
    assert doubts(summary) == []
    run = read_run(tmp_path / "run")
    assert prior_ends(run) == {}
    assert goodness(run)["fit"] == summary["fit"]


def test_summaries_without_a_fit_have_no_doubts():
    """Those of version 0.1."""
    assert doubts({}) == []
    assert doubts({"chi2": None, "dof": None, "p_value": None, "at_prior_end": {}}) == []


# ---------------------------------------------------------------- the tests of the residuals


def linear_problem(sigma, signal="none", **changes):
    """A depth and five foreground terms: a linear model on 155 channels."""
    shape = {"A": 0, "nu_0": 78, "w": 19, "tau": 7} if signal != "none" else {}
    return build(
        run_file.load(
            {
                "signal": signal,
                "data": {"mock": {"theta": shape, "noise": 25, "seed": 1}, "band": [50, 110]},
                "params": {name: value for name, value in shape.items() if name != "A"},
                "likelihood": {
                    "global_signal": {
                        "noise": {"sigma": sigma},
                        "foreground": {"terms": 5, "reference": 75, "marginalise": True, "mean": 0, "scale": 100},
                        **changes,
                    }
                },
            }
        )
    )


def with_data(likelihood, temperature, problem):
    """The same likelihood with other data."""
    spectrum = dataclasses.replace(likelihood.spectrum, temperature=temperature)
    noise = dataclasses.replace(likelihood.noise)
    return type(likelihood)(spectrum, problem.signal.redshifts, noise, likelihood.marginalised)


def drawn(problem, rng, sigma=25.0):
    """Data of the model: coefficients from their prior, a depth of 250 mK if there is a signal."""
    likelihood = problem.spectra["global_signal"]
    basis, n = likelihood.marginalised.basis, len(likelihood.spectrum.frequency)
    shape = np.array([1.0, 78, 19, 7]) if problem.signal.parameters else np.empty(0)
    template = np.array(problem.signal(shape))
    data = 250.0 * likelihood.on_channels(template) + basis @ (100.0 * rng.standard_normal(5))
    return template, data + sigma * rng.standard_normal(n)


def exact_fit(problem, template, data, rng, sigma=25.0, draws=400):
    """Figures of a fit of the depth, whose posterior is Gaussian and drawn from exactly."""
    likelihood = with_data(problem.spectra["global_signal"], data, problem)
    basis, shape = likelihood.marginalised.basis, likelihood.on_channels(template)
    precision = np.linalg.inv(sigma**2 * np.eye(len(data)) + 1e4 * basis @ basis.T)
    variance = 1.0 / (shape @ precision @ shape)
    mean = variance * (shape @ precision @ data)
    depth = np.r_[mean, mean + np.sqrt(variance) * rng.standard_normal(draws)]
    return spectrum_fit(likelihood, depth[:, None] * template, np.empty((draws + 1, 0)), 1, rng)[0]


def p_values(figures):
    tests = (figures, figures["autocorrelation"], figures["runs"], figures["largest_outlier"])
    return [test["p_value"] for test in tests] + [figures["posterior_predictive_p"]]


def test_p_values_are_uniform_if_the_model_is_correct(rng):
    """Of fits, whose residuals are not white. A count of runs is discrete, and its p-values are a little too large."""
    problem, found, n_fitted = linear_problem(25.0, "flattened_gaussian"), [], []
    for _ in range(150):
        template, data = drawn(problem, rng)
        figures = exact_fit(problem, template, data, rng)
        assert figures["verdict"]["fits"]
        found.append(p_values(figures))
        n_fitted.append(len(data) - figures["dof"])
    chi2, correlation, runs, outlier, predictive = np.transpose(found)
    for p in (chi2, correlation, outlier):
        assert kstest(p, "uniform").pvalue > 1e-3
    assert kstest(runs, "uniform", alternative="greater").pvalue > 1e-3
    # Its distribution is narrower than uniform.
    assert np.std(predictive) < np.std(chi2)
    # A depth and five terms with wide priors.
    assert np.mean(n_fitted) == pytest.approx(6.0, abs=0.15)


def test_effective_parameters_are_the_trace_of_the_hat_matrix(rng):
    """A prior that is narrow for some of the terms."""
    problem = linear_problem(25.0)
    basis, scale = problem.spectra["global_signal"].marginalised.basis, np.array([100.0, 0.05, 0.02, 0.02, 1e-3])
    component = dataclasses.replace(problem.spectra["global_signal"].marginalised, scale=scale)
    spectrum, n = problem.data["global_signal"], len(problem.data["global_signal"].frequency)
    plain = problem.spectra["global_signal"]
    likelihood = type(plain)(spectrum, problem.signal.redshifts, plain.noise, component)
    scaled = basis * scale / 25.0
    trace = np.trace(scaled.T @ scaled @ np.linalg.inv(np.eye(5) + scaled.T @ scaled))
    assert 1.5 < trace < 4.5
    draws = 1500
    figures, _ = spectrum_fit(likelihood, np.zeros((draws + 1, n)), np.empty((draws + 1, 0)), 0, rng)
    assert n - figures["dof"] == pytest.approx(trace, abs=0.3)


def test_the_tests_find_what_they_are_for(rng):
    problem = linear_problem(25.0, "flattened_gaussian")
    template, data = drawn(problem, rng)
    nu = problem.data["global_signal"].frequency
    ripple = exact_fit(problem, template, data + 40.0 * np.sin(nu / 0.6), rng)
    assert ripple["autocorrelation"]["p_value"] < 1e-6
    assert ripple["autocorrelation"]["channels"] > 1
    assert "correlated over" in ripple["verdict"]["text"]
    one = exact_fit(problem, template, data + 200.0 * (np.arange(len(nu)) == 70), rng)
    assert one["largest_outlier"]["frequency"] == np.sort(nu)[len(nu) - 71]
    assert one["largest_outlier"]["p_value"] < 1e-6
    assert "largest outlier" in one["verdict"]["text"]
    quiet = exact_fit(problem, template, 0.5 * data, rng)
    assert "they scatter less than the noise" in quiet["verdict"]["text"]
    loud = exact_fit(problem, template, 2.0 * data, rng)
    assert loud["p_value"] < 1e-6
    assert loud["posterior_predictive_p"] < 1e-6
    zigzag = exact_fit(problem, template, data + 40.0 * (-1.0) ** np.arange(len(nu)), rng)
    assert "neighbouring channels anticorrelated" in zigzag["verdict"]["text"]
    assert zigzag["runs"]["p_value"] < 1e-4


def test_with_fitted_noise_the_correlation_decides(rng):
    """Chi-square is the number of channels minus that of the terms for any data."""
    problem = linear_problem("free")
    _, data = drawn(problem, rng)
    grid, n = np.geomspace(10, 400, 2000), len(data)
    for added, fits in ((0.0, True), (60.0, False)):
        changed = data + added * np.sin(problem.data["global_signal"].frequency / 0.6)
        likelihood = with_data(problem.spectra["global_signal"], changed, problem)
        logs = np.array([likelihood(np.zeros(n), np.array([sigma])) for sigma in grid])
        chances = np.exp(logs - logs.max())
        sigma = np.r_[grid[logs.argmax()], rng.choice(grid, 400, p=chances / chances.sum())]
        figures, _ = spectrum_fit(likelihood, np.zeros((401, n)), sigma[:, None], 0, rng)
        assert figures["chi2"] == pytest.approx(n - 5, rel=0.01)
        assert 0.3 < figures["p_value"] < 0.7
        assert 0.3 < figures["posterior_predictive_p"] < 0.7
        assert figures["verdict"]["fits"] is fits
        assert "chi-square cannot tell, because the noise is fitted" in figures["verdict"]["text"]


def test_the_emulator_error_is_part_of_the_noise(rng):
    """Residuals as large as the emulator error that the run file gives are no misfit."""
    problem = linear_problem(5.0, emulator_error=25.0)
    z = problem.spectra["global_signal"].standardise(np.full(155, 1.0), ())
    assert z == pytest.approx(np.full(155, 650.0**-0.5))


@pytest.mark.parametrize("noise", [{"sigma": "free"}, {"sigma": 25}])
def test_edges_with_a_polynomial_is_told_that_it_does_not_fit(tmp_path, noise):
    if not EDGES.is_file():
        pytest.skip("the EDGES spectrum is not here")
    foreground = {"terms": 5, "reference": 75, "marginalise": True}
    content = {
        "signal": "none",
        "data": {"file": str(EDGES), "columns": {"frequency": 0, "temperature": 2, "weight": 1}, "unit": "K"},
        "likelihood": {"global_signal": {"noise": noise, "foreground": foreground}},
        "sampler": FEW,
    }
    lines = doubts(read_summary(fit(content, tmp_path / "run", jobs=1)))
    assert re.match(r"residuals are not noise: .*correlated over 10 channels, p \de-[5-9]\d", lines[0])


@pytest.mark.parametrize("n", [3, 6])
def test_few_channels_are_not_tested_for_correlation(tmp_path, n):
    nu = np.linspace(60.0, 90.0, n)
    np.savetxt(tmp_path / "d.txt", np.column_stack([nu, 25.0 * (-1.0) ** np.arange(n)]))
    content = small_run(signal="none", data={"file": str(tmp_path / "d.txt")}, params={})
    del content["emulator"]
    found = read_summary(fit(content, tmp_path / "run"))["fit"]
    assert found["spectra"]["global_signal"]["autocorrelation"] is None
    assert (found["chi2"], found["dof"]) == (pytest.approx(n), n)
    assert lstmfit("report", tmp_path / "run").returncode == 0


# ---------------------------------------------------------------- before the fit


def warned(**changes):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        build(run_file.load(small_run(**changes)))
    return [str(w.message) for w in found]


def foreground_data(folder, factor=1.0, noise=0.025):
    """A sky of 1700 K at 75 MHz and noise, in K times a factor."""
    nu = np.linspace(50.0, 100.0, 200)
    sky = 1700.0 * (nu / 75.0) ** -2.5 + noise * np.random.default_rng(3).standard_normal(200)
    np.savetxt(folder / "d.txt", np.column_stack([nu, factor * sky]), fmt="%.9f")
    np.savetxt(folder / "s.txt", np.full(200, 25.0))
    np.save(folder / "c.npy", np.diag(np.full(200, 625.0)))
    return {"file": str(folder / "d.txt"), "unit": "K"}


HOURS = (1.7e6 / 25.0) ** 2 / 0.25e6 / 3600.0
RADIOMETER = {"model": "radiometer", "channel_width": 0.25, "integration_time": HOURS}


@pytest.mark.parametrize(
    ("noise", "wrong"),
    [
        ({"sigma": 25}, {"sigma": 0.025}),
        ({"sigma": 25}, {"sigma": 25000}),
        ({"sigma": "free"}, None),
        ({"model": "student_t", "sigma": 25, "dof": 4}, {"model": "student_t", "sigma": 0.025, "dof": 4}),
        ({"model": "channels", "file": "s.txt"}, {"model": "channels", "file": "s.txt", "unit": "K"}),
        ({"model": "covariance", "file": "c.npy"}, {"model": "covariance", "file": "c.npy", "unit": "K"}),
        (RADIOMETER, RADIOMETER | {"channel_width": 0.25e6}),
        (RADIOMETER, RADIOMETER | {"integration_time": 3600 * HOURS}),
    ],
)
def test_units_are_checked_for_every_noise(tmp_path, noise, wrong):
    data = foreground_data(tmp_path)
    # Student-t noise cannot be marginalised over.
    block = {"foreground": {"terms": 4} | ({"marginalise": False} if noise.get("model") == "student_t" else {})}

    def said(noise, data):
        noise = noise | ({"file": str(tmp_path / noise["file"])} if "file" in noise else {})
        return [w for w in warned(data=data, likelihood={"global_signal": block | {"noise": noise}}) if "scatter" in w]

    assert not said(noise, data)
    if noise.get("model") != "radiometer":
        # K for mK; the radiometer's noise goes with the data.
        assert said(noise, data | {"unit": "mK"})
    if wrong is not None:
        lines = said(wrong, data)
        assert lines
        assert "neighbouring channels scatter by" in lines[0]
        assert "mK" in lines[0].split("but the noise is")[1]


def test_data_without_noise_are_not_said_to_scatter(recwarn):
    nu = np.linspace(50.0, 100.0, 120)
    for data in (np.zeros(120), np.full(120, 3.0)):
        with pytest.warns(UserWarning, match="have no channel-to-channel noise; unless this is a noise-free test"):
            check_scale(nu, data, np.ones(120), 25.0)


def test_correlated_noise_is_taken_as_it_is(rng, recwarn):
    n = 200
    nu, lag = np.linspace(50, 100, n), np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    for covariance in (625.0 * 0.99**lag, 625.0 * np.exp(-0.5 * (lag / 3.0) ** 2) + 0.01 * np.eye(n)):
        data = np.linalg.cholesky(covariance) @ rng.standard_normal(n)
        check_scale(nu, data, np.ones(n), 0.0, covariance)
    assert not [w for w in recwarn if "scatter" in str(w.message)]
