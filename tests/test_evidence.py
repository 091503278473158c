"""``lstmfit evidence``: variants of a run file, their fits and their comparison."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from helpers import THETA, lstmfit, small_run, tiny_run

from lstmfit.analysis.chains import equal_weight, read_run, read_summary
from lstmfit.analysis.variants import Variant, occam_factor
from lstmfit.driver import fit
from lstmfit.errors import InputError
from lstmfit.evidence import _plan, evidence, parse_settings, short_names
from lstmfit.files import locked
from lstmfit.run_folder import read_config

TERMS = "likelihood.global_signal.foreground.terms"
SKY = {"reference": 75, "coefficients": [20.0, -2.0, 1.0]}
FOREGROUND = {"reference": 75, "scale": 100, "marginalise": True, "terms": 3}


def with_foreground(**changes):
    """A mock of a signal and three foreground terms."""
    content = tiny_run()
    content["data"] = {"mock": content["data"]["mock"] | {"foreground": SKY}, "band": [40, 120]}
    block = {"noise": {"sigma": 25}, "foreground": FOREGROUND, "emulator_error": True}
    content["likelihood"] = {"global_signal": block}
    return content | changes


def planned(settings, tmp_path, **changes):
    """Run files of the variants by the names of their folders."""
    _, _, variants = _plan(with_foreground(**changes), settings, tmp_path / "e")
    return {name: config for name, (_, config) in variants.items()}


# ---------------------------------------------------------------- settings


def test_values_are_yaml():
    found = parse_settings(["a.b=3,1e-3, as-is", "c=[1, 2],{model: hills}", "d=true,null", "e=none"])
    assert found == {"a.b": [3, 1e-3, "as-is"], "c": [[1, 2], {"model": "hills"}], "d": [True, None], "e": ["none"]}


def test_names_are_as_short_as_they_can_be():
    keys = ["likelihood.global_signal.foreground.model", "likelihood.global_signal.noise.model", "signal"]
    assert list(short_names(keys).values()) == ["foreground.model", "noise.model", "signal"]


def test_one_variant_for_each_combination(tmp_path):
    variants = planned({TERMS: [2, 3], "signal": ["as-is", "none"]}, tmp_path)
    names = ["terms=2,signal=as-is", "terms=2,signal=none", "terms=3,signal=as-is", "terms=3,signal=none"]
    assert list(variants) == names
    assert [config.likelihood["global_signal"].foreground.terms for config in variants.values()] == [2, 2, 3, 3]
    assert [config.signal for config in variants.values()] == [None, "none", None, "none"]


def test_a_value_may_be_a_mapping_or_remove_a_key(tmp_path):
    key = "likelihood.global_signal.foreground"
    variants = planned({key: [{"terms": 2, "marginalise": True}, None]}, tmp_path)
    assert list(variants) == ["foreground=terms-2-marginalise-true", "foreground=null"]
    found = [config.likelihood["global_signal"].foreground for config in variants.values()]
    assert found[0].terms == 2
    assert found[1] is None


def test_no_signal_takes_everything_of_the_signal_out(tmp_path):
    """Its parameters, those from which they are computed, what is derived from them, sets of them, its error."""
    params = {
        "fX": {"value": "10**x"},
        "x": {"prior": {"min": -2, "max": 0}},
        "twice": {"derived": "2*fX"},
        "sigma": {"prior": {"dist": "loguniform", "min": 5, "max": 100}},
    }
    block = with_foreground()["likelihood"]["global_signal"] | {"noise": {"sigma": "free"}}
    changes = {"params": with_foreground()["params"] | params, "likelihood": {"global_signal": block}}
    config = planned({"signal": ["as-is", "none"]}, tmp_path, priors="echo21", **changes)["signal=none"]
    assert (config.emulator, config.simulator, config.priors) == (None, None, None)
    assert list(config.params) == ["sigma"]
    assert config.likelihood["global_signal"].emulator_error is False
    assert config.data["global_signal"].file == str(tmp_path / "e" / "data.csv")


def test_another_signal_takes_the_place_of_the_old_one(tmp_path):
    variants = planned({"signal": ["none", "flattened_gaussian"]}, tmp_path)
    assert [config.signal for config in variants.values()] == ["none", "flattened_gaussian"]
    theta = {"A": 500.0, "nu_0": 78.0, "w": 19.0, "tau": 7.0}
    formula = small_run(signal="flattened_gaussian", data={"mock": {"theta": theta, "noise": 25, "seed": 1}}, params={})
    del formula["emulator"]
    _, _, variants = _plan(formula, {"emulator": ["as-is", "echo21"]}, tmp_path / "e")
    config = variants["emulator=echo21"][1]
    assert (str(config.emulator), config.signal) == ("echo21", None)


def test_mocks_of_other_data_stay_what_they_are(tmp_path):
    likelihood = with_foreground()["likelihood"] | {"uvlf_bouwens2021": {"mock": {"seed": 1}, "redshifts": [6]}}
    settings = {"emulator": ["as-is", "21cmfast"]}
    variants = planned(settings, tmp_path, likelihood=likelihood, params={})
    drawn = variants["emulator=21cmfast"].others["uvlf_bouwens2021"]
    assert "mock" not in drawn
    assert drawn["values"]


BAD = [
    ([], "no variants are given; name a key of the run file"),
    (["terms"], "--set 'terms' is not a setting; give --set KEY.PATH=VALUE,VALUE"),
    (["=3"], "--set '=3' is not a setting"),
    ([f"{TERMS}="], "is not a setting; give --set KEY.PATH"),
    ([f"{TERMS}=2,3", f"{TERMS}=4"], f"--set {TERMS} is given twice; list all its values in one"),
    ([f"{TERMS}=[2,3"], f"--set {TERMS} is not valid YAML"),
    ([f"{TERMS}=2,2"], f"two variants are equal: --set {TERMS}=2 and --set {TERMS}=2; leave one"),
    ([f"{TERMS}=as-is,3"], f"two variants are equal: --set {TERMS}=as-is and --set {TERMS}=3"),
    ([f"{TERMS}=2,0"], f"--set {TERMS}=0: likelihood.global_signal.foreground.terms: 0 is out"),
    ([f"{TERMS}=2,many"], f"--set {TERMS}=many: likelihood.global_signal.foreground.terms"),
    (["likelihood.global_signal.foregroud.terms=2,3"], "unknown key .*foregroud; did you mean 'foreground'"),
    (["likelihod.global_signal.foreground.terms=2,3"], "unknown key likelihod; did you mean 'likelihood'"),
    (["params.fXX=1,2"], "--set params.fXX=1: params: unknown parameter 'fXX', .*did you mean 'fX'"),
    (["likelihood.global_signal.noise.sigma.low=1,2"], r"noise\.sigma is 25\.0, not a mapping; give the value of"),
    (["likelihood..noise=1,2"], "--set likelihood..noise=1: the key has an empty part"),
    (["signal=as-is,gaussian"], "--set signal=gaussian: signal is 'gaussian'"),
    (["signal=none", "emulator=21cmgem"], "a variant has one signal; give the alternatives in one --set"),
    (["data.mock.noise=20,30"], "data.mock.noise: evidences of different data cannot be compared; set another key"),
    (["likelihood.planck_tau.measurement=qin2020,as-is"], "evidences of different data cannot be compared; keep the"),
    (["output=a,b"], "--set output: output is no part of the model"),
    (["sampler.polychord.nlive=" + ",".join(map(str, range(2000)))], "are 2,000 variants, but 1,000 are the most"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_are_one_line_and_nothing_is_written(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        evidence(with_foreground(), settings, tmp_path / "e", jobs=1)
    assert not (tmp_path / "e").exists()


def test_the_command_refuses_in_one_line(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(with_foreground()))
    for arguments, message in (
        (["--set", f"{TERMS}=2,0"], f"lstmfit: --set {TERMS}=0: "),
        ([], "lstmfit: no variants are given"),
        (["--set", f"{TERMS}=2,3", "--resume", "--force"], "lstmfit: --resume and --force are mutually exclusive"),
        (["--set", f"{TERMS}=2,3", "--time-limit", "soon"], "lstmfit: time limit is 'soon'"),
    ):
        done = lstmfit("evidence", tmp_path / "run.yaml", "-o", tmp_path / "e", *arguments)
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith(message)
        assert not (tmp_path / "e").exists()


# ---------------------------------------------------------------- fits


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence") / "e"
    settings = {TERMS: [2, 3], "signal": ["as-is", "none"]}
    return folder, settings, evidence(with_foreground(), settings, folder, jobs=2)


def test_the_result_is_that_of_the_single_fits(finished, tmp_path):
    folder, _, result = finished
    assert json.loads((folder / "evidence.json").read_text()) == result
    assert (folder / "evidence.png").stat().st_size > 10_000
    rows = {row["folder"]: row for row in result["variants"]}
    assert len(rows) == 4
    for name, row in rows.items():
        summary = read_summary(folder / name)
        assert row["logZ"] == summary["logZ"]
        assert row["chi2"] == summary["fit"]["chi2"]
        assert {"settings", "logZ_err", "delta_logZ", "D_KL", "d_G", "dof", "p_value"} <= set(row)
    assert rows["terms=2,signal=none"]["settings"] == {TERMS: 2, "signal": "none"}
    logZ = np.array([row["logZ"] for row in rows.values()])
    expected = np.exp(logZ - logZ.max())
    found = [row["posterior_probability"] for row in rows.values()]
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-12)
    assert result["prior"] == "uniform over 4 variants"
    assert max(rows.values(), key=lambda row: row["logZ"])["delta_logZ"] == 0
    # The same fit by hand, of the same data.
    plain = read_summary(fit(with_foreground(), tmp_path / "plain", jobs=1))
    assert plain["logZ"] == pytest.approx(rows["terms=3,signal=as-is"]["logZ"], abs=5 * plain["logZ_err"])
    files = [folder / f"terms=3,signal={value}" / "data.csv" for value in ("as-is", "none")]
    data = [np.loadtxt(file, delimiter=",", skiprows=1) for file in files]
    np.testing.assert_allclose(data[0][:, :3], data[1][:, :3], rtol=1e-14)


def test_the_averaged_signal_is_the_mixture_of_the_posteriors(finished):
    folder, _, result = finished
    rng, mean = np.random.default_rng(1), 0.0
    for row in result["variants"]:
        run = read_run(folder / row["folder"])
        likelihood = run.problem.spectra["global_signal"]
        signals = [likelihood.on_channels(run.problem.signal_at(t)) for t in equal_weight(run, 400, rng)]
        mean = mean + row["posterior_probability"] * np.mean(signals, axis=0)
    order = np.argsort(run.problem.data["global_signal"].frequency)
    found = result["signal"]
    np.testing.assert_allclose(found["frequency"], run.problem.data["global_signal"].frequency[order], rtol=1e-14)
    np.testing.assert_allclose(found["mean"], mean[order], atol=8.0)
    for low, high in (("lo95", "lo68"), ("lo68", "median"), ("median", "hi68"), ("hi68", "hi95")):
        assert (np.array(found[low]) <= found[high]).all()


@pytest.mark.slow
@pytest.mark.ci
def test_finished_fits_are_skipped_and_more_variants_may_follow(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "e")
    folder, calls = tmp_path / "e", []
    settings = finished[1]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
    again = evidence(with_foreground(), settings, folder, jobs=1, progress=lambda done, n: calls.append((done, n)))
    assert again == finished[2]
    assert calls == [(4, 4)]
    more = evidence(with_foreground(), {TERMS: [2, 3, 4], "signal": ["as-is", "none"]}, folder, jobs=1)
    assert len(more["variants"]) == 6
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert more["variants"][0] == again["variants"][0] | {
        key: more["variants"][0][key] for key in ("delta_logZ", "posterior_probability")
    }
    with pytest.raises(InputError, match=r"another evidence run \(also with terms=4,signal=as-is"):
        evidence(with_foreground(), settings, folder, jobs=1)
    other = with_foreground(params=with_foreground()["params"] | {"tstar": 0.4})
    with pytest.raises(InputError, match=r"another evidence run \(differs in params\)"):
        evidence(other, {TERMS: [2, 3, 4], "signal": ["as-is", "none"]}, folder, jobs=1)
    with locked(folder / "lock", ""), pytest.raises(InputError, match="another evidence run is active in"):
        evidence(with_foreground(), {TERMS: [2, 3, 4], "signal": ["as-is", "none"]}, folder, jobs=1)
    (folder / "notes.txt").write_text("mine")
    assert len(evidence(other, {TERMS: [2, 3]}, folder, jobs=2, force=True)["variants"]) == 2
    left = {path.name for path in folder.iterdir()}
    assert left == {"terms=2", "terms=3", "evidence.json", "evidence.png", "plan.json", "data.csv", "lock", "notes.txt"}
    assert read_config(folder / "terms=2").params["tstar"].value == 0.4


def test_other_folders_are_refused(tmp_path):
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="contains files that are not of an evidence run; choose another"):
        evidence(with_foreground(), {TERMS: [2, 3]}, folder)
    (folder / "plan.json").write_text("{}")
    with pytest.raises(InputError, match=r"plan.json is damaged \("):
        evidence(with_foreground(), {TERMS: [2, 3]}, folder)
    assert {path.name for path in folder.iterdir()} == {"thesis.tex", "plan.json"}


def slow_run():
    """Each fit takes some seconds."""
    content = with_foreground(params={name: THETA[name] for name in ("sLy", "wX", "tstar", "fLy")})
    content["sampler"] = {"polychord": {"nlive": 50, "num_repeats": 9, "seed": 3}}
    return content


def start(run, folder, *arguments, launcher=()):
    command = [*launcher, sys.executable, "-m", "lstmfit", "evidence", run, "-o", folder, "--set", f"{TERMS}=2,3,4"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*map(str, command), *arguments], **pipes)


def wait_for_progress(process, folder):
    """Until a fit has finished and another has begun."""
    deadline = time.monotonic() + 300

    def begun():
        return {path.relative_to(folder).parts[0] for path in folder.glob("*/parts/*/chain.resume")}

    while len(list(folder.glob("*/summary.json"))) < 1 or len(begun()) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.ci
def test_killed_and_resumed(tmp_path):
    run, folder = tmp_path / "run.yaml", tmp_path / "e"
    run.write_text(yaml.safe_dump(slow_run()))
    process = start(run, folder, "--jobs", "1")
    wait_for_progress(process, folder)
    process.kill()
    process.communicate()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
    assert not (folder / "evidence.json").exists()
    process = start(run, folder, "--jobs", "2", "--resume", "--json", "-")
    out, error = process.communicate(timeout=500)
    assert process.returncode == 0, error
    assert len(json.loads(out)["variants"]) == 3
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert "probability: posterior probability for a prior that is uniform over 3 variants" in error


def test_a_time_limit_ends_it_with_status_75(tmp_path):
    run, folder = tmp_path / "run.yaml", tmp_path / "e"
    run.write_text(yaml.safe_dump(slow_run()))
    began = time.monotonic()
    process = start(run, folder, "--jobs", "2", "--time-limit", "8s")
    _, error = process.communicate(timeout=100)
    assert process.returncode == 75
    assert f"stopped before the end; to resume, repeat the command (folder {folder})" in error
    assert time.monotonic() - began < 90
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.ci
def test_several_spectra_and_none(tmp_path):
    """Two spectra that share coefficients, of which variants have different numbers; then other data alone."""
    sky = FOREGROUND | {"terms": 2}
    data = {
        name: {"mock": tiny_run()["data"]["mock"] | {"foreground": SKY, "seed": seed}, "band": [50, high]}
        for name, seed, high in (("low", 1, 90), ("high", 2, 110))
    }
    block = {"class": "global_signal", "noise": {"sigma": "free"}, "foreground": sky, "shared": ["a0", "a1"]}
    content = tiny_run(data=data, likelihood={"low": block, "high": block | {"noise": {"sigma": 25}}})
    content["sampler"] = {"polychord": {"nlive": 60, "num_repeats": 2, "seed": 1}}
    settings = {"likelihood.low.noise.sigma": ["free", 25], "signal": ["as-is", "none"]}
    result = evidence(content, settings, tmp_path / "e", jobs=2)
    rows = {row["folder"]: row for row in result["variants"]}
    assert next(iter(rows)) == "sigma=free,signal=as-is"
    problem = read_run(tmp_path / "e" / "sigma=free,signal=none").problem
    assert problem.names == ("sigma_low",)
    channels = {name: len(spectrum.frequency) for name, spectrum in problem.data.items()}
    frequency = np.unique(np.concatenate([spectrum.frequency for spectrum in problem.data.values()]))
    np.testing.assert_allclose(result["signal"]["frequency"], frequency, rtol=1e-13)
    # The coefficients are the same two in both spectra; the noise does not count.
    fit = read_summary(tmp_path / "e" / "sigma=free,signal=none")["fit"]
    assert sum(channels.values()) - fit["dof"] == pytest.approx(2.0, abs=0.4)
    assert fit["verdict"]["text"].startswith("low: residuals are")
    assert set(fit["spectra"]) == {"low", "high"}
    assert lstmfit("report", tmp_path / "e" / "sigma=free,signal=none").returncode == 0
    own = {c["other"]: c["own_parameters"] for c in result["comparisons"]}
    best = result["comparisons"][0]["best"]
    if best.startswith("sigma=free"):
        assert own["sigma=25,signal=as-is"] == ["sigma_low"]
    nothing = tiny_run(likelihood={"planck_tau": {}})
    del nothing["data"]
    result = evidence(nothing, {"likelihood.planck_tau.measurement": ["planck2018", "qin2020"]}, tmp_path / "n", jobs=2)
    assert result["signal"] is None
    assert result["variants"][0]["chi2"] is None


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.mpi
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
def test_ranks_share_the_fits(tmp_path):
    run, folder = tmp_path / "run.yaml", tmp_path / "e"
    run.write_text(yaml.safe_dump(with_foreground()))
    process = start(run, folder, launcher=("mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3"))
    out, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    assert out.count("uniform over 3 variants") == 1
    assert len(json.loads((folder / "evidence.json").read_text())["variants"]) == 3


# ---------------------------------------------------------------- what decides


def gaussian_variant(rng, names, widths):
    """Posterior draws of parameters with these widths in units of their prior's."""
    scaled = rng.standard_normal((500, len(names))) * widths
    return Variant({}, np.zeros((500, 1)), [(name, "prior") for name in names], scaled)


def test_the_occam_factor_is_the_ratio_of_the_volumes(rng):
    one, other = gaussian_variant(rng, "ab", [0.1, 0.1]), gaussian_variant(rng, "abcd", [0.1, 0.1, 1e-3, 1.0])
    assert occam_factor(one, other) == ([], 0.0)
    names, factor = occam_factor(other, one)
    assert names == ["c", "d"]
    # A parameter that the data do not constrain costs nothing.
    assert factor == pytest.approx(np.log(1e3), abs=0.15)


def test_warnings_of_evidences_within_their_error_and_of_priors_that_decide(finished):
    """A third term that the mock has; the width of its prior is a choice."""
    rows = {c["other"]: c for c in finished[2]["comparisons"]}
    best = finished[2]["comparisons"][0]["best"]
    for other, c in rows.items():
        assert c["priors_decide"] is (c["delta_logZ"] < c["log_occam_factor"])
        assert c["within_error"] is (c["delta_logZ"] < c["delta_logZ_err"])
        if best.split(",")[0] != other.split(",")[0]:
            assert "a2" in c["own_parameters"]
            # The coefficient is known to 0.2 K or so, and its prior is 100 K wide.
            assert 4.0 < c["log_occam_factor"]
        else:
            assert c["own_parameters"] == ["fX", "Tmin_vir"]
    decided = [c["other"] for c in rows.values() if c["priors_decide"] and not c["within_error"]]
    lines = [line for line in finished[2]["warnings"] if line.startswith("the priors of")]
    assert len(lines) == len(decided)
    assert all("log Occam factor" in line for line in lines)
