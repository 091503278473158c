"""Several spectra in one run: names, shared parameters, joint marginalisation, mocks, outputs, mistakes."""

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import THETA, lstmfit, small_run
from scipy.linalg import block_diag

from lstmfit import config as run_file
from lstmfit.analysis.bias import measure_bias
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.compare import compare
from lstmfit.analysis.plots import signal_figure
from lstmfit.analysis.report import write_report
from lstmfit.analysis.same_problem import check_direct, compared
from lstmfit.calibration import calibrate
from lstmfit.checks import check_run
from lstmfit.data import draw_mock
from lstmfit.driver import fit
from lstmfit.emulator.emulator import Emulator
from lstmfit.errors import InputError
from lstmfit.problem import build
from lstmfit.run_folder import data_files, load_problem, state
from lstmfit.simulators import load as load_simulator
from lstmfit.spectra import subscripted
from lstmfit.yaml_files import parse_yaml

FOREGROUND = {"terms": 3, "reference": 75, "scale": 5}
SAMPLED = {"noise": {"sigma": "free"}, "foreground": FOREGROUND | {"marginalise": False}}
COEFFICIENTS = [3.0, -1.0, 0.5]
BANDS = {"low": [50, 90], "mid": [60, 110], "high": [80, 150]}


def mock(seed, **changes):
    sky = {"reference": 75, "coefficients": COEFFICIENTS}
    return {"theta": THETA, "from": "emulator", "noise": 25, "seed": seed, "foreground": sky} | changes


def several(blocks, **changes):
    """A run with a spectrum for each block, given by name."""
    names = dict(zip(blocks, BANDS.values()))
    data = {name: {"mock": mock(i), "band": band} for i, (name, band) in enumerate(names.items())}
    likelihood = {name: {"class": "global_signal", "noise": {"sigma": 25}} | block for name, block in blocks.items()}
    return small_run(data=data, likelihood=likelihood) | changes


def problem_of(*arguments, **changes):
    return build(run_file.load(several(*arguments, **changes)))


def test_one_spectrum_with_a_name_is_the_same_fit():
    block = {"noise": {"sigma": "free"}, "foreground": FOREGROUND}
    data = {"mock": mock(3), "band": [50, 90]}
    old = build(run_file.load(small_run(data=data, likelihood={"global_signal": block})))
    names = [
        ({"lst1": data}, {"lst1": block | {"class": "global_signal"}}),
        ({"lst1": data}, {"night": block | {"class": "global_signal", "data": "lst1"}}),
        (data, {"night": block | {"class": "global_signal"}}),
        ({"global_signal": data}, {"global_signal": block | {"class": "global_signal"}}),
    ]
    theta = old.prior.sample(1, np.random.default_rng(0))[0]
    for given, likelihood in names:
        problem = build(run_file.load(small_run(data=given, likelihood=likelihood)))
        assert problem.names == old.names
        assert problem.truth == old.truth
        assert problem.loglikelihood(theta)[0] == old.loglikelihood(theta)[0]
    # The last of them is another spelling of the old form, and is written as that.
    written = run_file.load(small_run(data=given, likelihood=likelihood)).model_dump(by_alias=True, exclude_none=True)
    assert written["data"].keys() == {"mock", "columns", "band"}
    assert "class" not in written["likelihood"]["global_signal"]


def test_likelihoods_of_spectra_come_first_and_the_file_is_read_back(tmp_path):
    run = several({"a": {"shared": ["sigma"], "noise": {"sigma": "free"}}, "b": {"noise": {"sigma": "free"}}})
    run["likelihood"] = {"planck_tau": {}, "tau_too": {"class": "planck_tau", "mean": 0.06}} | run["likelihood"]
    config = run_file.load(run)
    assert list(config.likelihood) == ["a", "b", "planck_tau", "tau_too"]
    run_file.dump(config, tmp_path / "run.yaml")
    assert run_file.load(tmp_path / "run.yaml") == config
    assert build(config).derived_names == ("loglike_a", "loglike_b", "loglike_planck_tau", "loglike_tau_too")


def test_parameters_are_named_after_their_spectrum_unless_shared():
    block = {"noise": {"sigma": "free"}, "foreground": FOREGROUND | {"marginalise": False}}
    own = {"fX", "Tmin_vir"}
    found = problem_of({"low": block, "high": block})
    assert set(found.names) - own == {f"{n}_{s}" for n in ("sigma", "a0", "a1", "a2") for s in ("low", "high")}
    assert found.truth["a1_high"] == -1.0
    assert found.truth["sigma_low"] == 25.0
    one = problem_of({"low": block | {"shared": ["a0"]}, "mid": block, "high": block})
    assert {n for n in one.names if n.startswith("a0")} == {"a0"}
    two = problem_of({"low": block | {"shared": ["a0"]}, "mid": block | {"shared": ["a0"]}, "high": block})
    assert {n for n in two.names if n.startswith("a0")} == {"a0", "a0_high"}
    assert two.truth["a0"] == two.truth["a0_high"] == 3.0
    assert two.prior.latex["a0"].startswith("a_{0}")
    assert two.prior.latex["sigma_mid"] == r"{\sigma}_{\mathrm{mid}}\ [\mathrm{mK}]"
    fixed = problem_of({"low": block, "high": block}, params=small_run()["params"] | {"sigma_high": 20})
    assert fixed.space.fixed["sigma_high"] == 20.0


def test_the_name_is_the_spectrums_and_the_likelihoods_only_if_two_use_it():
    block = {"class": "global_signal", "noise": {"sigma": "free"}}
    data = {"x": {"mock": mock(1)}, "y": {"mock": mock(2)}}
    likelihood = {"p": block | {"data": "x"}, "q": block | {"data": "y"}}
    assert {"sigma_x", "sigma_y"} < set(build(run_file.load(small_run(data=data, likelihood=likelihood))).names)
    del data["y"]
    likelihood["q"]["data"] = "x"
    problem = build(run_file.load(small_run(data=data, likelihood=likelihood)))
    assert {"sigma_p", "sigma_q"} < set(problem.names)
    assert list(problem.data) == ["x"]


def test_labels_can_be_drawn():
    from matplotlib.mathtext import MathTextParser

    assert subscripted("a_{0}", "lst_1") == r"{a_{0}}_{\mathrm{lst\_1}}"
    for latex in (r"\sigma_\mathrm{floor}\ [\mathrm{mK}]", "a_{0}", "x", r"\beta_{3}"):
        MathTextParser("path").parse(f"${subscripted(latex, 'lst_1')}$")


def test_the_sum_is_that_of_single_fits(rng):
    """Each with its own channels, noise and foreground; another likelihood beside them."""
    blocks = {
        "low": {"foreground": FOREGROUND},
        "mid": {"noise": {"model": "student_t", "sigma": 30, "dof": 4}, "foreground": SAMPLED["foreground"]},
        "high": {"noise": {"sigma": "free"}, "emulator_error": True},
    }
    problem = problem_of(blocks)
    singles = {}
    for i, (name, block) in enumerate(blocks.items()):
        data = {"mock": mock(i), "band": BANDS[name]}
        likelihood = {"global_signal": {"noise": {"sigma": 25}} | block}
        singles[name] = build(run_file.load(small_run(data=data, likelihood=likelihood)))
    for theta in problem.prior.sample(20, rng):
        values = dict(zip(problem.names, theta))
        total, parts = problem.loglikelihood(theta)
        expected = []
        for name, single in singles.items():
            own = np.array([values[n if n in values else f"{n}_{name}"] for n in single.names])
            expected.append(single.loglikelihood(own)[0])
        np.testing.assert_allclose(parts, expected, rtol=1e-9)
        assert total == pytest.approx(sum(expected), rel=1e-9)


def test_one_signal_for_all_spectra():
    problem = problem_of({"low": {}, "mid": {}, "high": {}})
    calls = []
    outputs = problem.signal.outputs
    problem.signal.outputs = lambda theta: calls.append(1) or outputs(theta)
    problem.loglikelihood(problem.prior_transform(np.full(2, 0.5)))
    assert len(calls) == 1


def normal_logpdf(x, covariance):
    """Log of a normal density in extended precision, because the covariance of a foreground is ill-conditioned."""
    covariance, n = covariance.astype(np.longdouble), len(x)
    factor, z = np.zeros_like(covariance), np.zeros(n, dtype=np.longdouble)
    for j in range(n):
        factor[j:, j] = covariance[j:, j] - factor[j:, :j] @ factor[j, :j]
        factor[j:, j] /= np.sqrt(factor[j, j])
        z[j] = (x[j] - factor[j, :j] @ z[:j]) / factor[j, j]
    return float(-0.5 * (z @ z) - np.log(factor.diagonal()).sum() - 0.5 * n * np.log(2 * np.pi))


def dense(problem, theta, names, coefficients):
    """ln L of spectra together from the covariance of all their channels."""
    signal, values = problem.signal_at(theta), dict(zip(problem.names, theta))
    columns = list(dict.fromkeys(n for own in coefficients.values() for n in own))
    residual, blocks, rows = [], [], []
    prior = np.zeros((len(columns), len(columns)), dtype=np.longdouble)
    mean = np.zeros(len(columns))
    for name in names:
        likelihood = problem.spectra[name]
        n, component = len(likelihood.spectrum.frequency), likelihood.marginalised
        sigma = likelihood.noise.sigma
        sigma = values.get("sigma", values.get(f"sigma_{name}")) if sigma is None else sigma
        covariance = sigma**2 * np.diag(1.0 / likelihood.spectrum.weight)
        if likelihood.noise.extra is not None:
            covariance += np.diag(likelihood.noise.extra)
        matrix = likelihood._matrix
        if problem_error := getattr(problem, "error", {}).get(name):
            emulator = problem.signal.emulator.error_covariance
            covariance += problem_error * matrix @ emulator @ matrix.T
        at = [columns.index(c) for c in coefficients[name]]
        row = np.zeros((n, len(columns)))
        row[:, at] = component.basis
        mixing = (np.eye(len(at)) if component.mixing is None else component.mixing).astype(np.longdouble)
        prior[np.ix_(at, at)] = mixing @ np.diag(component.scale**2) @ mixing.T
        mean[at] = component.mean
        shift = 0.0 if component.offset is None else component.offset
        residual.append(likelihood.spectrum.temperature - likelihood.on_channels(signal) - shift)
        blocks.append(covariance)
        rows.append(row)
    noise, design, data = block_diag(*blocks), np.vstack(rows), np.concatenate(residual)
    covariance = noise + design @ prior @ design.T
    # Conditional mean and covariance of the coefficients given all data.
    gain = prior @ design.T @ np.linalg.inv(covariance.astype(float))
    best = mean + gain @ (data - design @ mean)
    value = normal_logpdf(data - design @ mean, covariance)
    return value, dict(zip(columns, best.astype(float))), (prior - gain @ design @ prior).astype(float)


@pytest.mark.parametrize("shared", [["a0", "a1", "a2"], ["a1"], ["a0", "a1"]])
def test_shared_coefficients_are_marginalised_jointly(shared, rng):
    foreground = FOREGROUND | {"mean": [2.0, 0.0, 0.1], "scale": [5.0, 2.0, 1.0]}
    blocks = {
        "low": {"noise": {"sigma": "free"}, "foreground": foreground, "shared": shared},
        "mid": {"noise": {"sigma": 20}, "foreground": foreground, "shared": shared, "emulator_error": True},
        "high": {"noise": {"sigma": "free"}, "foreground": foreground},
    }
    problem = problem_of(blocks)
    problem.error = {"mid": 1.0}
    assert list(problem.likelihoods) == ["low_mid", "high"]
    assert problem.derived_names == ("loglike_low_mid", "loglike_high")
    assert problem.n_marginalised == 9 - len(shared)
    coefficients = {
        name: [n if n in shared and name != "high" else f"{n}_{name}" for n in ("a0", "a1", "a2")] for name in blocks
    }
    for theta in problem.prior.sample(10, rng):
        total, parts = problem.loglikelihood(theta)
        joint, best, covariance = dense(problem, theta, ["low", "mid"], coefficients)
        alone, *_ = dense(problem, theta, ["high"], coefficients)
        np.testing.assert_allclose(parts, [joint, alone], rtol=1e-9)
        assert total == pytest.approx(joint + alone, rel=1e-9)
        signal = problem.signal_at(theta)
        for name in ("low", "mid"):
            found = problem.spectra[name].coefficients(signal, problem.values(theta, name))
            np.testing.assert_allclose(found, [best[n] for n in coefficients[name]], rtol=1e-6, atol=1e-7)
    draws = np.array([
        problem.likelihoods["low_mid"].coefficients(signal, problem.values(theta, "low_mid"), rng)["mid"]
        for _ in range(4000)
    ])  # fmt: skip
    at = [list(best).index(n) for n in coefficients["mid"]]
    standard = np.linalg.solve(np.linalg.cholesky(covariance[np.ix_(at, at)]), draws.T)
    np.testing.assert_allclose(np.cov(standard), np.eye(3), atol=0.08)


def test_a_shared_basis_with_correlated_coefficients(tmp_path, rng):
    """The basis differs between the spectra, and so do their means and channels; the coefficients do not."""
    nu = np.linspace(55, 100, 40)
    factor = np.array([[2.0, 0, 0], [1.0, 1.5, 0], [-0.5, 0.3, 0.8]])
    data, likelihood = {}, {}
    for i, name in enumerate(("p", "q")):
        basis = np.stack([(nu / 75) ** (-2.5 - 0.1 * i - k) for k in range(3)], axis=1)
        mean = 0.2 * (nu / 75) ** -2.0 + i
        np.savez(tmp_path / f"{name}.npz", basis=basis, mean=mean, covariance=factor @ factor.T, frequencies=nu)
        sky = 1e3 * (basis @ [1.0, 0.5, -0.2] + mean) + rng.normal(0, 20, len(nu))
        np.savetxt(tmp_path / f"{name}.csv", np.c_[nu, sky, rng.uniform(0.5, 2.0, len(nu))], delimiter=",")
        columns = {"frequency": 0, "temperature": 1, "weight": 2}
        data[name] = {"file": str(tmp_path / f"{name}.csv"), "columns": columns, "unit": "mK"}
        foreground = {"model": "basis", "file": str(tmp_path / f"{name}.npz")}
        likelihood[name] = {"class": "global_signal", "noise": {"sigma": "free"}, "foreground": foreground}
    likelihood["p"]["shared"] = ["a0", "a1", "a2", "sigma"]
    problem = build(run_file.load(small_run(data=data, likelihood=likelihood)))
    assert problem.names == ("fX", "Tmin_vir", "sigma")
    coefficients = {name: ["a0", "a1", "a2"] for name in ("p", "q")}
    for theta in problem.prior.sample(5, rng):
        joint, best, _ = dense(problem, theta, ["p", "q"], coefficients)
        assert problem.loglikelihood(theta)[0] == pytest.approx(joint, rel=1e-9)
        found = problem.spectra["q"].coefficients(problem.signal_at(theta), problem.values(theta, "q"))
        np.testing.assert_allclose(found, list(best.values()), rtol=1e-6)
    likelihood["p"]["shared"] = ["a0", "a1"]
    with pytest.raises(InputError, match=r"p and q share a0, whose prior has correlations; share all coefficients"):
        build(run_file.load(small_run(data=data, likelihood=likelihood)))


def test_bright_shared_foregrounds_lose_no_digits(rng):
    """1750 K with coefficients of 1e4 K: ln L is that of the same channels in one spectrum."""
    bright, wide = {"reference": 75, "coefficients": [1750.0, -100.0, 30.0]}, FOREGROUND | {"scale": 1e4}
    run = several({name: {"foreground": wide, "shared": ["a0", "a1", "a2"]} for name in ("low", "high")})
    for data, band in zip(run["data"].values(), ([50, 90], [91, 150])):
        data["mock"]["foreground"], data["band"] = bright, band
    problem = build(run_file.load(run))
    single = small_run(data={"mock": mock(0, foreground=bright), "band": [50, 150]})
    single["likelihood"] = {"global_signal": {"noise": {"sigma": 25}, "foreground": wide}}
    config = run_file.load(single)
    whole = build(config)
    spectrum = whole.data["global_signal"]
    spectra = {name: spectrum.cut(*data["band"]) for name, data in run["data"].items()}
    parts = build(run_file.load(run), spectra)
    inside = (spectrum.frequency <= 90) | (spectrum.frequency >= 91)
    both = type(spectrum)(spectrum.frequency[inside], spectrum.temperature[inside], spectrum.weight[inside])
    whole = build(config, {"global_signal": both})
    for theta in problem.prior.sample(20, rng):
        assert parts.loglikelihood(theta)[0] == pytest.approx(whole.loglikelihood(theta)[0], rel=1e-9)


def test_mocks_are_drawn_with_common_coefficients_and_noise_of_their_own(rng):
    wide = FOREGROUND | {"scale": 5}
    problem = problem_of({name: {"foreground": wide, "shared": ["a0", "a1", "a2"]} for name in ("low", "mid")})
    theta = problem.prior.sample(1, rng)[0]
    residuals = []
    for _ in range(30):
        spectra, options = draw_mock(problem, load_simulator("echo21"), theta, rng)
        assert options == {}
        assert list(spectra) == ["low", "mid"]
        low, mid = (spectrum.cut(60, 90) for spectrum in spectra.values())
        residuals.append((low.temperature - low.truth) - (mid.temperature - mid.truth))
    # The foregrounds are the same, up to 5 K, and the noise is not.
    assert np.std(residuals) == pytest.approx(25 * np.sqrt(2), rel=0.1)


def test_no_spectrum_at_all(tmp_path):
    run = small_run(likelihood={"planck_tau": {}, "x_HI": {"points": ["mason2018"]}})
    del run["data"]
    run["sampler"] = {"polychord": {"nlive": 25, "num_repeats": 2, "seed": 1}}
    assert check_run(run, 20)["channels"] == 0
    folder = fit(run, tmp_path / "out")
    assert state(folder) == "finished"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["fit"] is None
    assert set(summary["parameters"]) == {"fX", "Tmin_vir"}
    assert not list(folder.glob("data*.csv"))
    assert (folder / "signal.png").stat().st_size > 1000
    assert "No spectrum was fitted" in write_report(read_run(folder)).read_text()
    result = measure_bias(read_run(folder), n=25, jobs=1)
    assert result["signal_rms_mK"] is None


def five():
    foreground = {"terms": 4, "reference": 75, "scale": 100}
    data = {
        f"lst{i}": {
            "mock": mock(i, foreground={"reference": 75, "coefficients": [30.0 + i, -1.0, 0.5]}),
            "band": [55 + i, 100 + i],
        }
        for i in range(1, 6)
    }
    block = {"class": "global_signal", "noise": {"sigma": 25}, "foreground": foreground}
    likelihood = {name: block for name in data} | {"planck_tau": {"mock": True}}
    likelihood["lst1"] = block | {"noise": {"sigma": "free"}}
    likelihood["lst4"] = likelihood["lst5"] = block | {"shared": ["a3"]}
    sampler = {"polychord": {"nlive": 60, "num_repeats": 3, "seed": 1}}
    return small_run(data=data, likelihood=likelihood, sampler=sampler)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fit(five(), tmp_path_factory.mktemp("five") / "out")


def test_five_spectra_from_run_file_to_report(finished):
    names = [f"lst{i}" for i in range(1, 6)]
    assert {path.name for path in finished.glob("data*")} == {f"data_{name}.csv" for name in names}
    summary = json.loads((finished / "summary.json").read_text())
    found = summary["fit"]
    assert list(found["spectra"]) == names
    assert summary["parameters"]["sigma_lst1"]["truth"] == pytest.approx(np.log10(25))
    channels = {n: len(np.loadtxt(finished / f"data_{n}.csv", delimiter=",", skiprows=1)) for n in names}
    # Two parameters of the signal and 19 coefficients; the noise does not count.
    assert found["dof"] == pytest.approx(sum(channels.values()) - 2 - 19, abs=1.5)
    assert found["chi2"] == pytest.approx(sum(s["chi2"] for s in found["spectra"].values()), rel=1e-9)
    assert found["dof"] == pytest.approx(sum(s["dof"] for s in found["spectra"].values()), rel=1e-9)
    # Four coefficients, and a share of what is common.
    assert channels["lst2"] - 5.5 < found["spectra"]["lst2"]["dof"] < channels["lst2"] - 3.5
    assert 0.7 < found["chi2"] / found["dof"] < 1.3
    assert found["spectra"]["lst1"]["fitted_noise_mK"] == pytest.approx(25, rel=0.2)
    assert found["verdict"]["fits"]
    run = read_run(finished)
    assert {"loglike_lst1", "loglike_lst4_lst5", "loglike_planck_tau"} < set(run.samples.columns.get_level_values(0))
    panels = signal_figure(run).axes
    assert [axis.get_title(loc="left") for axis in panels[:5]] == names
    text = write_report(run).read_text()
    assert all(text.count(f"<h3>{name}</h3>") == 2 for name in names)
    assert all(f"seed of the mock&#39;s noise of {name}" in text for name in names)
    assert (finished / "signal.png").stat().st_size > 10_000
    for p in summary["parameters"].values():
        assert abs(p["mean"] - p["truth"]) < 4 * p["std"]


def test_five_spectra_are_resumed_and_replaced(finished, tmp_path):
    assert fit(five(), finished, resume=True) == finished
    changed = five()
    changed["data"]["lst3"]["mock"]["seed"] = 77
    with pytest.raises(InputError, match=r"contains a different run \(differs in data\)"):
        fit(changed, finished, resume=True)
    with pytest.raises(InputError, match=r"contains a different run \(differs in data\)"):
        fit(small_run(), finished, resume=True)
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "data_lst2.csv").unlink()
    with pytest.raises(InputError, match=r"copy has no data_lst2.csv, which is the fitted spectrum"):
        read_run(copy)
    one = small_run(sampler={"polychord": {"nlive": 20, "num_repeats": 2, "seed": 1}})
    fit(one, copy, force=True)
    assert {path.name for path in copy.glob("data*")} == {"data.csv"}


def test_a_data_file_of_five_is_sealed_and_protected(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    rows = (copy / "data_lst5.csv").read_text().replace("1", "2", 1)
    (copy / "data_lst5.csv").write_text(rows[:-20] + rows[-20:].replace("0", "1", 1) + " ")
    with pytest.raises(InputError, match=r"data_lst5.csv"):
        read_run(copy)
    done = lstmfit("report", finished, "-o", finished / "data_lst1.csv")
    assert done.returncode == 2


def test_bias_and_compare_of_five_spectra(finished):
    run = read_run(finished)
    result = measure_bias(run, n=25, jobs=1)
    assert set(result["parameters"]) == set(run.problem.names)
    assert result["signal_rms_mK"]["noise"] == pytest.approx(25, rel=0.2)
    settings = compared(run)
    assert settings["likelihood.lst4.shared"] == ["a3"]
    assert settings["likelihood.lst1.noise"] != settings["likelihood.lst2.noise"]
    with pytest.raises(InputError, match="was fitted with the emulator echo21"):
        check_direct(run, run)
    figures = compare(run.natural(), run.natural(), list(run.problem.names))
    assert figures["parameters"]["sigma_lst1"]["ks"] == 0.0


def test_check_and_calibrate_of_several_spectra(tmp_path):
    blocks = {name: {"foreground": FOREGROUND, "shared": ["a0", "a1", "a2"]} for name in ("low", "mid")}
    run = several(blocks, sampler={"polychord": {"nlive": 20, "num_repeats": 2, "seed": 1}})
    report = check_run(run, 20)
    problem = build(run_file.load(run))
    assert report["channels"] == problem.n_channels
    assert report["D_KL_linear_mean"] >= 0
    result = calibrate(run, tmp_path / "c", 1, points=0, jobs=1)
    assert result["n"] == 1
    assert {path.name for path in (tmp_path / "c").glob("channels*")} == {"channels_low.csv", "channels_mid.csv"}
    twice = several({"low": {}})
    twice["likelihood"]["again"] = twice["likelihood"]["low"] | {"data": "low"}
    with pytest.raises(InputError, match=r"mock data cannot be drawn for a spectrum that several likelihoods use"):
        calibrate(twice, tmp_path / "d", 1)


def test_blackjax_has_the_same_likelihood(rng):
    jax = pytest.importorskip("jax")
    pytest.importorskip("blackjax")
    from lstmfit.sampling.blackjax import make_target

    jax.config.update("jax_enable_x64", True)
    problem = problem_of({"low": {"noise": {"sigma": "free"}}, "high": {"foreground": FOREGROUND}}, extrapolate=True)
    target = make_target(problem)
    for cube in rng.uniform(0.1, 0.9, (3, len(problem.names))):
        expected = problem.loglikelihood(problem.prior_transform(cube))[0]
        assert float(target(cube)) == pytest.approx(expected, rel=1e-4)
    joint = problem_of({n: {"foreground": FOREGROUND, "shared": ["a0"]} for n in ("low", "high")}, extrapolate=True)
    with pytest.raises(InputError, match=r"only supports the likelihood global_signal, not low_high"):
        make_target(joint)


def replaced(run, path, value):
    *keys, last = path
    block = run
    for key in keys:
        block = block[key]
    if value is None:
        del block[last]
    else:
        block[last] = value
    return run


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("likelihood", "low", "data"), "lwo", r"likelihood.low: data is 'lwo', .*; did you mean 'low'"),
        (("likelihood", "low"), None, r"data.low: no likelihood uses this spectrum; add one, such as low: \{class"),
        (("data", "low"), None, r"likelihood.low: data is not given, which is not .*; choose one of high"),
        (("data",), None, r"likelihood.low needs a spectrum, but data is missing"),
        (("likelihood", "low", "shared"), ["a7"], r"likelihood.low: shared: unknown parameter 'a7'; .*sigma"),
        (("likelihood", "low", "shared"), "a0", r"likelihood.low.shared is 'a0'; input should be a valid list"),
        (("likelihood", "low", "class"), "global_sginal", r"did you mean 'global_signal'"),
        (("likelihood", "low", "class"), 3, r"low.class is 3; give the name of a likelihood"),
        (("likelihood", "low", "class"), "no_such_package.Likelihood", r"no_such_package"),
        (("likelihood", "low", "dta"), "low", r"unknown key likelihood.low.dta; did you mean 'data'"),
        (("likelihood", "low", "noise"), {"sigma": -1}, r"likelihood.low.noise.sigma: -1 is neither"),
        (("data", "low", "mock", "theta"), THETA | {"fX": 0.2}, r"low.mock and data.high.mock have different theta"),
        (("data", "low", "mock", "from"), "simulator", r"data.low.mock and data.high.mock have different from"),
        (("data", "low", "band"), [1, 2], r"data.low: .*no channels in the band"),
        (("data", "low", "mock", "nosie"), 3, r"unknown key data.low.mock.nosie; did you mean 'noise'"),
        (("data", "a b"), {"mock": mock(3)}, r"'a b' cannot be the name of a spectrum.*letters, digits and under"),
        (("data", "low"), {"file": "no_such.csv"}, r"data.low: .*no_such.csv"),
        (("likelihood", "low", "foreground"), {"terms": 500}, r"likelihood.low: foreground: 500 terms|terms"),
        (("likelihood", "planck_tau"), {"data": "low"}, r"likelihood.planck_tau: unknown option 'data'"),
        (("likelihood", "tau_too"), {"class": "planck_tau", "maen": 3}, r"^likelihood.tau_too: unknown option 'maen'"),
        (("params", "sigma"), 3, r"unknown parameter 'sigma', .*did you mean 'sigma_|the parameters are"),
    ],
)
def test_mistakes(path, value, message):
    run = replaced(several({"low": SAMPLED, "high": SAMPLED}), path, value)
    with pytest.raises(InputError, match=message) as error:
        build(run_file.load(run))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ({"shared": ["a0"]}, {"foreground": None}, r"likelihood.low: shared: no other spectrum has a parameter 'a0'"),
        ({"shared": ["a0"]}, {"foreground": FOREGROUND}, r"high share a0, but only one of them marginalises it"),
        ({"shared": ["a0"]}, {"foreground": SAMPLED["foreground"] | {"reference": 80}},
         r"low and high share a0, .*different meanings: log_polynomial with reference 75 MHz and .* 80 MHz"),
        ({"shared": ["a0"]}, {"foreground": SAMPLED["foreground"] | {"scale": 7}},
         r"params: a0 is sampled and needs a prior"),
        ({"shared": ["a0"], "foreground": FOREGROUND}, {"foreground": FOREGROUND | {"scale": 7}},
         r"low and high share a0, but its prior is 0 ± 5 K and 0 ± 7 K; give both the same"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared(low, high, message):
    blocks = {"low": SAMPLED | low, "high": SAMPLED | high}
    run = several({name: {k: v for k, v in block.items() if v is not None} for name, block in blocks.items()})
    with pytest.raises(InputError, match=message):
        build(run_file.load(run))


def test_a_single_spectrum_has_nothing_to_share_with():
    run = small_run(likelihood={"global_signal": {"noise": {"sigma": "free"}, "shared": ["sigma"]}})
    with pytest.raises(InputError, match=r"global_signal: shared is \['sigma'\], but there is no other spectrum"):
        build(run_file.load(run))


def test_a_name_appears_twice(tmp_path):
    text = yaml.safe_dump(several({"low": {}, "high": {}}))
    (tmp_path / "run.yaml").write_text(text.replace("  high:", "  low:"))
    with pytest.raises(InputError, match="appears twice"):
        run_file.load(tmp_path / "run.yaml")


def test_the_same_seed_is_the_same_noise():
    run = several({"low": {}, "high": {}})
    run["data"]["high"]["mock"]["seed"] = run["data"]["low"]["mock"]["seed"]
    with pytest.warns(UserWarning, match="mocks of the same seed have the same noise"):
        build(run_file.load(run))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(run_file.load(several({"low": {}, "high": {}})))


def test_warnings_name_their_spectrum():
    with pytest.warns(UserWarning, match=r"^likelihood.high: neighbouring channels scatter by .* mK, but the noise is"):
        problem_of({"low": {}, "high": {"noise": {"sigma": 0.01}}})


def test_files_of_several_spectra_are_recorded_and_copied(tmp_path):
    run = several({"low": {}, "high": {}})
    n = len(build(run_file.load(run)).data["high"].frequency)
    np.savetxt(tmp_path / "s.txt", np.full(n, 25.0))
    run["likelihood"]["high"]["noise"] = {"model": "channels", "file": "s.txt"}
    run["params"] = THETA
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    folder = fit(tmp_path / "run.yaml", tmp_path / "out")
    config = run_file.load(folder / "run.yaml")
    assert "likelihood.high.noise.file" in config.resolved["inputs"]
    assert (folder / "inputs" / "s.txt").is_file()
    assert data_files(config) == {"low": "data_low.csv", "high": "data_high.csv"}
    assert Emulator.load("echo21").checksum == config.resolved["signal_checksum"]


def test_the_example_of_the_documentation(tmp_path, rng):
    page = (Path(__file__).parents[1] / "docs" / "spectra.md").read_text()
    first, second = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    nu = np.linspace(55, 105, 60)
    sky = 1750 * (nu / 75) ** -2.5 + rng.normal(0, 0.025, 60)
    for name in ("lst1", "lst2", "lst3"):
        table = np.c_[nu, sky, np.ones(60)]
        np.savetxt(tmp_path / f"{name}.csv", table, delimiter=",", header="nu,T,w", comments="")
    (tmp_path / "run.yaml").write_text(first)
    problem = build(run_file.load(tmp_path / "run.yaml"))
    assert problem.names[-1] == "sigma"
    assert problem.space.fixed == {"sigma_lst3": 30.0}
    assert list(problem.likelihoods) == ["lst1", "lst2", "lst3", "planck_tau"]
    assert np.isfinite(problem.loglikelihood(problem.prior.sample(1, rng)[0])[0])
    mocks = build(run_file.load(parse_yaml(second, "spectra.md")))
    assert mocks.truth["sigma_lst2"] == 40.0


OWN = '''
from lstmfit.likelihoods.global_signal import GlobalSignal

class Doubled(GlobalSignal):
    """A user's likelihood of a spectrum: counts everything twice."""

    def __call__(self, signal, values):
        return 2.0 * super().__call__(signal, values)
'''


def test_a_likelihood_of_a_spectrum_of_your_own(tmp_path, monkeypatch, rng):
    (tmp_path / "own_spectrum.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    block = {"noise": {"sigma": "free"}}
    run = several({"low": block, "high": block | {"class": "own_spectrum.Doubled"}})
    problem = build(run_file.load(run))
    assert problem.names[-2:] == ("sigma_low", "sigma_high")
    plain = problem_of({"low": block, "high": block})
    theta = problem.prior.sample(1, rng)[0]
    assert problem.loglikelihood(theta)[1][1] == 2 * plain.loglikelihood(theta)[1][1]
    run["params"] = THETA | {"sigma_low": 25, "sigma_high": 25}
    folder = fit(run, tmp_path / "out")
    with pytest.raises(InputError, match=r"names code to import and run: likelihood own_spectrum.Doubled; .*--trust"):
        read_run(folder)
    assert list(load_problem(folder, trust=True).spectra) == ["low", "high"]


def test_an_analytic_signal_is_evaluated_at_the_channels_of_all_spectra():
    theta = {"A": 500.0, "nu_0": 78.0, "w": 19.0, "tau": 7.0}
    run = several({"low": {}, "mid": {}}, signal="flattened_gaussian", params={"tau": 7.0})
    del run["emulator"]
    for data in run["data"].values():
        data["mock"]["theta"] = theta
    problem = build(run_file.load(run))
    assert len(problem.signal.redshifts) == len(set().union(*(s.frequency.tolist() for s in problem.data.values())))
    signal = problem.signal_at(np.array([500.0, 78.0, 19.0]))
    for likelihood in problem.spectra.values():
        np.testing.assert_allclose(likelihood.on_channels(signal), likelihood.spectrum.truth, rtol=0, atol=1e-9)
