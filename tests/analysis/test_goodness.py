"""Whether a fit fits: chi-square of every noise model, correlated residuals, posteriors at the end of their prior."""

import dataclasses
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import THETA, lstmfit, small_run
from scipy.stats import kstest, multivariate_normal

from lstmfit import config as run_file
from lstmfit.analysis.chains import Run, read_run, read_summary
from lstmfit.analysis.goodness import doubts, goodness, prior_ends
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
    assert figures["chi2"] == likelihood.chi_square(problem.signal_at(theta), values) == z @ z
    assert figures["fitted_noise_mK"] == (25.0 if "free" in name else None)
    assert figures["dof"] == N - len(problem.names)
    assert 1e-3 < figures["p_value"] < 1 - 1e-3
    assert abs(figures["residual_correlation"]) < 4 / np.sqrt(N)
    assert not doubts(figures | {"at_prior_end": {}})
    json.dumps(figures)


def test_chi_square_of_a_covariance_is_the_dense_one(tmp_path, rng):
    run = at_the_truth(tmp_path, noises(tmp_path)["covariance"], rng)
    spectrum = run.problem.data["global_signal"]
    covariance = np.load(tmp_path / "c.npy") + np.diag(100.0 / spectrum.weight)
    signal = run.problem.signal(run.problem.signal_parameters(np.array([THETA["fX"], THETA["Tmin_vir"]])))
    dense = multivariate_normal(np.array(signal, dtype=float), covariance)
    expected = 2.0 * (dense.logpdf(dense.mean) - dense.logpdf(spectrum.temperature))
    assert goodness(run)["chi2"] == pytest.approx(expected, rel=1e-9)


def trough(folder, amplitude, noise):
    """A data file with a signal that no parameters of ECHO21 make."""
    nu = redshift_to_frequency(np.linspace(6.0, 40.0, 300))
    data = amplitude * np.sin(nu / 3.0) + noise * np.random.default_rng(0).standard_normal(len(nu))
    np.savetxt(folder / "d.txt", np.column_stack([nu, data]))
    return {"file": str(folder / "d.txt")}


@pytest.mark.parametrize("noise", [{"sigma": 25}, {"model": "student_t", "sigma": 25, "dof": 50}])
def test_a_model_that_does_not_fit_is_named_in_summary_command_and_report(tmp_path, noise):
    content = small_run(data=trough(tmp_path, 500.0, 25.0), likelihood={"global_signal": {"noise": noise}}, sampler=FEW)
    run_file.dump(run_file.validate(content, ""), tmp_path / "run.yaml")
    done = lstmfit("fit", tmp_path / "run.yaml", "-o", tmp_path / "run", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "warning: the model does not fit the data: chi-square" in done.stdout
    assert "warning: the residuals are not noise" in done.stdout
    summary = read_summary(tmp_path / "run")
    assert summary["p_value"] < 1e-4
    assert summary["chi2"] > 3 * summary["dof"]
    report = lstmfit("report", tmp_path / "run")
    assert report.returncode == 0, report.stderr
    assert "the model does not fit the data" in (tmp_path / "run" / "report.html").read_text()


def test_free_noise_that_takes_in_the_misfit_is_seen_by_the_correlation_and_at_its_end(tmp_path):
    noise = {"global_signal": {"noise": {"sigma": "free"}}}
    params = small_run()["params"] | {"sigma": {"prior": {"dist": "loguniform", "min": 1, "max": 300}}}
    content = small_run(data=trough(tmp_path, 500.0, 25.0), likelihood=noise, params=params, sampler=FEW)
    lines = doubts(read_summary(fit(content, tmp_path / "run", jobs=1)))
    assert any("residuals are not noise" in line and "fitted noise of 3" in line for line in lines)
    assert any("sigma (upper)" in line for line in lines)
    low = params | {"sigma": {"prior": {"dist": "loguniform", "min": 100, "max": 300}}}
    content = small_run(likelihood=noise, params=low, sampler=FEW)
    lines = doubts(read_summary(fit(content, tmp_path / "low", jobs=1)))
    assert any("sigma (lower)" in line for line in lines)


def test_a_good_fit_has_no_doubts(tmp_path):
    summary = read_summary(fit(small_run(), tmp_path / "run", jobs=1))
    assert {"chi2", "dof", "p_value", "residual_correlation", "fitted_noise_mK", "at_prior_end"} <= set(summary)
    assert 1e-4 < summary["p_value"] < 1 - 1e-4
    assert doubts(summary) == []
    run = read_run(tmp_path / "run")
    assert prior_ends(run) == {}


def test_data_that_scatter_less_than_the_noise_and_old_summaries():
    figures = {"chi2": 44.6, "dof": 446, "p_value": 1.0}
    assert "scatter less than the noise" in doubts(figures)[0]
    assert doubts({}) == []
    assert doubts({"chi2": None, "dof": None, "p_value": None, "at_prior_end": {}}) == []


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
