"""The driver: what is written, what is refused, what can be resumed; a real fit at the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import anesthetic
import numpy as np
import pytest
import yaml
from helpers import THETA, long_run, small_run

from lstmfit.analysis.chains import read_run
from lstmfit.analysis.compare import compare
from lstmfit.analysis.coverage import judge
from lstmfit.analysis.foreign_chains import read_chain
from lstmfit.driver import fit, load_problem
from lstmfit.errors import InputError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fit(small_run(), tmp_path_factory.mktemp("runs") / "small", jobs=2)


def test_the_output_folder_holds_what_was_promised(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "run.yaml", "data.csv", "summary.json", "corner.png", "signal.png", "chain.paramnames",
        "chain_dead-birth.txt", "chain_phys_live-birth.txt", "chain.txt", "chain_equal_weights.txt",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith(".part")]
    for picture in ("corner.png", "signal.png"):
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")


def test_the_summary_has_its_keys_and_the_right_answer(finished):
    summary = json.loads((finished / "summary.json").read_text())
    promised = {"logZ", "logZ_err", "D_KL", "d_G", "n_like", "n_live", "wall_s", "ranks", "sampler", "parameters"}
    assert promised <= set(summary)
    assert list(summary["parameters"]) == ["fX", "Tmin_vir"]
    for name in ("fX", "Tmin_vir"):
        p = summary["parameters"][name]
        assert {"mean", "mean_err", "std", "median", "lo68", "hi68", "truth", "log10"} == set(p)
        assert p["truth"] == pytest.approx(np.log10(THETA[name]))
        assert abs(p["mean"] - p["truth"]) < 4 * p["std"]
        assert p["lo68"] < p["median"] < p["hi68"]
    assert summary["n_live"] == 60
    assert summary["n_like"] > 1000


def test_errors_of_means_include_the_correlation_of_points(finished):
    """In the space of the mean, and as `compare` has them."""
    factors = json.loads((finished / "chain.state.json").read_text())["mean_inflation"]
    assert list(factors)[:2] == ["fX", "Tmin_vir"]
    assert min(factors.values()) >= 1
    weights = anesthetic.read_chains(str(finished / "chain")).get_weights()
    size = weights.sum() ** 2 / (weights @ weights)
    chain = read_chain(finished)
    compared = compare(chain.samples, chain.samples, ["fX", "Tmin_vir"])
    assert compared["notes"] == []
    for name, p in json.loads((finished / "summary.json").read_text())["parameters"].items():
        assert p["mean_err"] == pytest.approx(p["std"] / np.sqrt(size) * factors[name])
        assert compared["parameters"][name]["ess_a"] == pytest.approx(size / factors[name] ** 2)
        assert compared["parameters"][name]["bias_err"] * p["std"] == pytest.approx(np.sqrt(2) * p["mean_err"])
    inflation = np.mean([factors[name] ** 2 for name in ("fX", "Tmin_vir")])
    assert inflation > 1.05
    judged = judge(read_run(finished), np.array([THETA["fX"], THETA["Tmin_vir"]]))
    assert judged["ess"] == pytest.approx(size / inflation)


def test_anesthetic_reads_the_chains_without_our_help(finished):
    samples = anesthetic.read_chains(str(finished / "chain"))
    summary = json.loads((finished / "summary.json").read_text())
    assert samples.logZ() == pytest.approx(summary["logZ"], abs=3 * summary["logZ_err"])
    x = np.log10(samples["fX"])
    assert np.average(x, weights=samples.get_weights()) == pytest.approx(summary["parameters"]["fX"]["mean"], abs=1e-9)


def test_the_evidence_agrees_with_integration_on_a_grid(finished):
    problem = load_problem(finished)
    u = (np.arange(60) + 0.5) / 60
    fx = 1e-3 * (1e5) ** u
    t = 10**2.5 * 1e3**u
    loglike = np.array([[problem.loglikelihood(np.array([a, b]))[0] for b in t] for a in fx])
    grid = np.logaddexp.reduce(loglike.ravel()) - np.log(loglike.size)
    summary = json.loads((finished / "summary.json").read_text())
    assert abs(summary["logZ"] - grid) < 3 * summary["logZ_err"] + 0.05


def test_the_resolved_run_file_repeats_the_run(finished, tmp_path):
    again = fit(finished / "run.yaml", tmp_path / "again", jobs=2)
    one, two = (np.loadtxt(folder / "chain_dead-birth.txt") for folder in (finished, again))
    np.testing.assert_array_equal(one, two)
    assert (finished / "data.csv").read_bytes() == (again / "data.csv").read_bytes()


def test_a_finished_or_different_run_is_not_overwritten(finished):
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    with pytest.raises(InputError, match="already contains a finished run; use --force"):
        fit(small_run(), finished)
    with pytest.raises(InputError, match=r"\(differs in likelihood\); resume it with the original run file"):
        fit(small_run(likelihood={"global_signal": {"noise": {"sigma": 24}}}), finished, resume=True)
    with pytest.raises(InputError, match="are mutually exclusive"):
        fit(small_run(), finished, resume=True, force=True)
    assert fit(small_run(), finished, resume=True) == finished
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_bad_input_writes_nothing(tmp_path):
    folder = tmp_path / "deep" / "run"
    with pytest.raises(InputError, match="unknown parameter 'fx'"):
        fit(small_run(params={"fx": 1.0}), folder)
    with pytest.raises(InputError, match=r"spans 0.001\.\.1000, but the emulator was trained on 0.001\.\.100"):
        fit(small_run(params={"fX": {"prior": {"dist": "loguniform", "min": 1e-3, "max": 1e3}}}), folder)
    with pytest.raises(InputError, match="no data file"):
        fit(small_run(data={"file": str(tmp_path / "none.csv")}), folder)
    (tmp_path / "wide.csv").write_text("20,1\n300,2\n301,2\n")
    with pytest.raises(InputError, match="3 of 3 channels lie outside the emulator's"):
        fit(small_run(data={"file": str(tmp_path / "wide.csv")}), folder)
    with pytest.raises(InputError, match="'echo22' is not a shipped emulator or a file"):
        fit(small_run(emulator="echo22"), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["wide.csv"]


def test_foreign_files_are_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="files that do not belong to a run"):
        fit(small_run(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def start(run, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "lstmfit", "fit", str(run), "-o", str(folder), "--jobs", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


TERMINATED = pytest.param(signal.SIGTERM, marks=[pytest.mark.slow, pytest.mark.ci])


@pytest.mark.parametrize("how", [signal.SIGKILL, TERMINATED])
def test_a_killed_run_is_resumed(tmp_path, how):
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(long_run()))
    process = start(run, tmp_path / "out")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/parts/*/chain.resume")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    assert process.poll() is None, process.stderr.read()
    second = start(run, tmp_path / "out")
    _, error = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "another run is active" in error
    if how == signal.SIGKILL:
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    process.wait(timeout=90)
    process.stderr.close()
    assert not (tmp_path / "out" / "summary.json").exists()
    with pytest.raises(InputError, match="unfinished run; use --resume"):
        fit(run, tmp_path / "out")
    folder = fit(run, tmp_path / "out", jobs=2, resume=True)
    summary = json.loads((folder / "summary.json").read_text())
    samples = anesthetic.read_chains(str(folder / "chain"))
    assert samples.logZ() == pytest.approx(summary["logZ"], abs=3 * summary["logZ_err"])
    for p in summary["parameters"].values():
        assert abs(p["mean"] - p["truth"]) < 4 * p["std"]


@pytest.mark.mpi
def test_three_ranks_give_the_same_answer(finished, tmp_path):
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(small_run()))
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", sys.executable, "-m", "lstmfit"]
    command += ["fit", str(run), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, three = (json.loads((f / "summary.json").read_text()) for f in (finished, tmp_path / "out"))
    assert three["ranks"] == 3
    assert abs(one["logZ"] - three["logZ"]) < 3 * np.hypot(one["logZ_err"], three["logZ_err"])
    for name in ("fX", "Tmin_vir"):
        a, b = one["parameters"][name], three["parameters"][name]
        assert abs(a["mean"] - b["mean"]) < 0.5 * a["std"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 2
    assert again.stderr.count("already contains a finished run") == 1


@pytest.mark.slow
@pytest.mark.ci
def test_a_mock_from_the_test_set_is_recovered(tmp_path):
    run = small_run(params={}, data={"mock": {"test_signal": 9, "noise": 25, "seed": 4}})
    run["sampler"] = {"polychord": {"nlive": "10d", "num_repeats": "2d", "seed": 1}}
    folder = fit(run, tmp_path / "run")
    samples = anesthetic.read_chains(str(folder / "chain"))
    weights = samples.get_weights() / samples.get_weights().sum()
    truth = load_problem(folder).truth
    for name in THETA:
        value = truth[name]
        below = float(weights[samples[name].to_numpy() < value].sum())
        assert 0.005 < below < 0.995, f"{name}: truth at the {100 * below:.2f} % quantile"


MPIRUN = pytest.param(["mpirun", "--allow-run-as-root", "-n", "2"], marks=pytest.mark.mpi)


@pytest.mark.mpi
def test_ranks_share_one_log(finished):
    """What all of them know is said once, by the first."""
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3"]
    fit_again = [sys.executable, "-m", "lstmfit", "fit", str(finished / "run.yaml"), "-o", str(finished), "--resume"]
    done = subprocess.run([*mpirun, *fit_again], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("has already finished") == 1
    assert f"rank 0: {finished} has already finished" in done.stderr


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("prefix", [[], MPIRUN])
def test_a_time_limit_stops_to_be_resumed(tmp_path, prefix):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(long_run()))
    command = [*prefix, sys.executable, "-m", "lstmfit", "fit", "run.yaml", "-o", "out", "--time-limit"]
    done = subprocess.run([*command, "4s"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    assert done.stderr.count("with --resume") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "summary.json").exists()
    if not prefix:
        folder = fit(tmp_path / "run.yaml", tmp_path / "out", resume=True)
        summary = json.loads((folder / "summary.json").read_text())
        for p in summary["parameters"].values():
            assert abs(p["mean"] - p["truth"]) < 4 * p["std"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("run.yaml", "sigma: 25.0", "sigma: 20.0", r"run.yaml has changed since the fit"),
        ("data.csv", None, None, r"has no data.csv, which is the fitted spectrum; repeat the fit with --force"),
        ("data.csv", "temperature_mK", "kelvin", r"has a damaged data.csv \(no column temperature_mK\)"),
    ],
)
def test_a_folder_that_was_changed_after_the_fit_is_refused(finished, tmp_path, file, old, new, message):
    """Its chain is of another problem."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    read_run(folder)
    if old is None:
        (folder / file).unlink()
    else:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_run(folder)


def test_a_lost_row_of_the_data_is_noticed(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    rows = (folder / "data.csv").read_text().splitlines(keepends=True)
    (folder / "data.csv").write_text("".join(rows[:100] + rows[101:]))
    with pytest.raises(InputError, match=r"data.csv has changed since the fit"):
        read_run(folder)


def test_a_number_of_jobs_that_cannot_be_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="jobs is 0, but a whole number of at least 1 is needed"):
        fit(small_run(), tmp_path / "run", jobs=0)
    assert not (tmp_path / "run").exists()


def test_a_run_without_free_parameters_is_its_evidence(tmp_path):
    """With everything fixed the evidence is the likelihood; with a marginalised foreground it is analytic."""
    from lstmfit.config import load
    from lstmfit.problem import build

    foreground = {"model": "log_polynomial", "terms": 3, "reference": 75, "scale": 10.0}
    noise = {"model": "white", "sigma": 25}
    run = small_run(params=THETA, likelihood={"global_signal": {"noise": noise, "foreground": foreground}})
    folder = fit(run, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["logZ"] == pytest.approx(build(load(run)).loglikelihood(np.empty(0))[0], abs=1e-9)
    assert (summary["logZ_err"], summary["D_KL"], summary["parameters"]) == (0.0, 0.0, {})
    assert fit(run, tmp_path / "run", resume=True) == folder
