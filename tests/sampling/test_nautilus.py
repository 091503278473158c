"""nautilus behind the run file: known evidences, the same folder, interruption, workers, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import anesthetic
import numpy as np
import pytest
import yaml
from helpers import THETA, small_run

from lstmfit import config as run_file
from lstmfit.analysis.bias import measure_bias
from lstmfit.analysis.chains import evidence, read_run, read_samples
from lstmfit.analysis.compare import align, compare
from lstmfit.analysis.foreign_chains import read_chain
from lstmfit.analysis.report import write_report
from lstmfit.driver import fit
from lstmfit.errors import InputError
from lstmfit.parameters import Parameter
from lstmfit.sampling import checkpointed_run, nautilus
from lstmfit.sampling.nautilus import NautilusSettings, run_nautilus
from lstmfit.simulators import History

pytest.importorskip("nautilus", reason="pip install nautilus-sampler")

SMALL = {"nautilus": {"n_live": 100, "n_eff": 600, "seed": 1}}
WIDTH = 0.1
CENTRE = np.array([0.4, 0.6, 0.5])


class Gaussian:
    """A normalised Gaussian in the unit cube, far from its walls: ln Z = 0 and D_KL known."""

    names, derived_names, latex = ("a", "b", "c"), ("sum", "twice"), ("a", "b", "c", "s", "t")
    signal = SimpleNamespace(costly=False)

    def prior_transform(self, cube):
        return cube.copy()

    def loglikelihood_batch(self, theta, return_derived=True):
        z = (theta - CENTRE) / WIDTH
        values = -0.5 * (z**2).sum(axis=1) - 3 * np.log(WIDTH * np.sqrt(2 * np.pi))
        return values, np.stack([theta.sum(axis=1), 2 * theta[:, 0]], axis=1)


def table(folder):
    return np.loadtxt(folder / "chain.txt")


def test_a_gaussian_has_its_evidence_and_its_moments(tmp_path):
    result = run_nautilus(Gaussian(), tmp_path, "chain", NautilusSettings(n_live=200, n_eff=2000, seed=3))
    assert abs(result.logZ) < 4 * result.logZ_err
    assert result.logZ_err == pytest.approx(2000**-0.5, rel=0.1)
    samples = read_samples(tmp_path / "chain")
    assert evidence(samples, 10) == (result.logZ, result.logZ_err)
    weights = samples.get_weights()
    for i, name in enumerate("abc"):
        x = samples[name].to_numpy()
        assert abs(np.average(x, weights=weights) - CENTRE[i]) < 5 * WIDTH / np.sqrt(2000)
        assert np.sqrt(np.cov(x, aweights=weights)) == pytest.approx(WIDTH, rel=0.06)
    np.testing.assert_allclose(samples["twice"], 2 * samples["a"])
    values, _ = Gaussian().loglikelihood_batch(samples[["a", "b", "c"]].to_numpy())
    np.testing.assert_allclose(samples["logL"], values, rtol=1e-12, atol=1e-9)


@pytest.mark.slow
def test_zero_and_nan_likelihoods_count(tmp_path, caplog):
    """A half-space through the centre is impossible, another is NaN: the evidence is that of the whole prior."""

    class Quarter(Gaussian):
        def loglikelihood_batch(self, theta, return_derived=True):
            values, derived = super().loglikelihood_batch(theta)
            values = np.where(theta[:, 0] < CENTRE[0], values, -np.inf)
            return np.where(theta[:, 1] > CENTRE[1], np.nan, values), derived

    result = run_nautilus(Quarter(), tmp_path, "chain", NautilusSettings(n_live=200, n_eff=1000, seed=3))
    assert abs(result.logZ - np.log(0.25)) < 4 * result.logZ_err
    assert 0 < result.n_nan < result.n_like
    assert "was NaN in" in caplog.text


@pytest.mark.slow
@pytest.mark.ci
def test_interrupted_and_resumed_it_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(nautilus, "TURN_S", 0.05)
    monkeypatch.setattr(checkpointed_run, "PROGRESS_S", 0.0)
    monkeypatch.setattr(checkpointed_run, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(checkpointed_run, "CHECKPOINT_SHARE", 1.0)
    settings = NautilusSettings(n_live=100, n_eff=400, seed=3)
    run_nautilus(Gaussian(), tmp_path / "whole", "chain", settings)

    def interrupt(progress):
        if progress.n_like >= interrupt.at:
            interrupt.at += 300
            raise KeyboardInterrupt

    interrupt.at = 300
    interruptions = checkpoints = 0
    while True:
        try:
            options = {"resume": True, "progress": interrupt}
            result = run_nautilus(Gaussian(), tmp_path / "pieces", "chain", settings, **options)
            break
        except KeyboardInterrupt:
            interruptions += 1
            checkpoints += (tmp_path / "pieces" / "chain.nautilus.h5").is_file()
    assert interruptions >= 2
    assert checkpoints >= 1
    np.testing.assert_array_equal(table(tmp_path / "whole"), table(tmp_path / "pieces"))
    assert not list((tmp_path / "pieces").glob("*.h5"))
    again = run_nautilus(Gaussian(), tmp_path / "pieces", "chain", settings, resume=True)
    assert again == result
    with pytest.raises(InputError, match=r"started with n_live 100 \(now 300\); resume with the original run file"):
        run_nautilus(Gaussian(), tmp_path / "pieces", "chain", settings.model_copy(update={"n_live": 300}), resume=True)


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    settings = NautilusSettings(n_live=200, n_eff=1500, seed=3)
    (tmp_path / "chain.nautilus.h5").write_text("rubbish")
    request = {"names": ["a", "b", "c"], "derived_names": ["sum", "twice"], "settings": vars(settings)}
    state = request | {"n_nan": 0, "n_like": 0, "wall_s": 0.0}
    (tmp_path / "chain.state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match=r"nautilus.h5 cannot be read .* --force"):
        run_nautilus(Gaussian(), tmp_path, "chain", settings, resume=True)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda theta: np.full(len(theta), -np.inf), r"zero or NaN at all of the first 10000 points .* check the data"),
        (lambda theta: np.full(len(theta), np.inf), r"is \+inf at a 0\.\d+, b 0\.\d+, c .*; it must be finite"),
    ],
)
def test_impossible_likelihoods_are_one_line(tmp_path, what, message):
    class Broken(Gaussian):
        def loglikelihood_batch(self, theta, return_derived=True):
            return what(theta), np.zeros((len(theta), 2))

    with pytest.raises(InputError, match=message):
        run_nautilus(Broken(), tmp_path, "chain", NautilusSettings(n_live=200, n_eff=500))


# ---------------------------------------------------------------- through the driver


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fit(small_run(sampler=SMALL), tmp_path_factory.mktemp("nautilus") / "run", jobs=1)


def test_the_folder_and_the_summary_are_those_of_any_fit(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "run.yaml", "data.csv", "summary.json", "corner.png", "signal.png",
        "chain.paramnames", "chain.state.json", "chain.txt", "chain_equal_weights.txt",
        "chain_getdist.txt", "chain_getdist.paramnames", "chain_getdist.ranges",
    }  # fmt: skip
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["sampler"].startswith("nautilus 1.")
    assert summary["n_live"] == 100
    assert summary["prior_fraction"] is None
    for name in ("fX", "Tmin_vir"):
        p = summary["parameters"][name]
        assert abs(p["mean"] - p["truth"]) < 4 * p["std"]
    assert isinstance(anesthetic.read_chains(str(finished / "chain")), anesthetic.MCMCSamples)
    assert run_file.load(finished / "run.yaml").sampler.settings.n_eff == 600


@pytest.mark.slow
def test_the_summary_agrees_with_polychord(finished, tmp_path):
    """Evidence, D_KL and dimensionality of weighted samples against those of nested ones."""
    other = fit(small_run(sampler={"polychord": {"nlive": 100, "num_repeats": 6, "seed": 1}}), tmp_path / "run", jobs=1)
    a, b = (json.loads((folder / "summary.json").read_text()) for folder in (finished, other))
    for key in ("logZ", "D_KL"):
        assert abs(a[key] - b[key]) < 3 * np.hypot(a[f"{key}_err"], b[f"{key}_err"])
    assert a["d_G"] == pytest.approx(b["d_G"], rel=0.3)
    chains = align(read_chain(finished), read_chain(other))
    figures = compare(chains[0].samples, chains[1].samples, chains[2])
    assert chains[2] == ["fX", "Tmin_vir"]
    assert figures["logZ_a"] == pytest.approx(a["logZ"])
    assert figures["logZ_a_err"] == pytest.approx(a["logZ_err"])
    assert min(p["ks_p"] for p in figures["parameters"].values()) > 1e-3


def test_bias_and_report_read_it(finished):
    run = read_run(finished)
    result = measure_bias(run, "echo21", 25, jobs=1)
    assert result["n"] == 25
    assert result["ess"] > 20
    text = write_report(run).read_text()
    assert "nautilus 1." in text
    assert "Lange" in text
    assert "Handley2015a" not in text
    (finished / "report.html").unlink()
    for path in finished.glob("chain_truth*"):
        path.unlink()


def test_a_finished_run_is_left_as_it_is(finished):
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert fit(small_run(sampler=SMALL), finished, resume=True) == finished
    with pytest.raises(InputError, match="differs in sampler"):
        fit(small_run(), finished, resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


class Toy:
    """A trough that two parameters move: a simulator in microseconds."""

    redshifts = np.linspace(5.0, 50.0, 451)
    parameters = (Parameter("depth", 10.0, 300.0, log=True), Parameter("centre", 10.0, 30.0))
    name, version = "toy", "1"

    def __call__(self, theta):
        signal = -theta[0] * np.exp(-0.5 * ((self.redshifts - theta[1]) / 3.0) ** 2)
        return History(self.redshifts, signal, np.zeros_like(signal), 0.05)


@pytest.mark.slow
@pytest.mark.ci
def test_a_simulator_is_sampled_by_workers(tmp_path):
    theta = {"depth": 120.0, "centre": 17.0}
    run = {
        "simulator": "test_nautilus:Toy",
        "data": {"mock": {"theta": theta, "noise": 25, "seed": 2}},
        "likelihood": {"global_signal": {"noise": {"sigma": 25}}},
        "sampler": SMALL,
    }
    summary = json.loads((fit(run, tmp_path / "run", jobs=2) / "summary.json").read_text())
    assert summary["ranks"] == 2
    for p in summary["parameters"].values():
        assert abs(p["mean"] - p["truth"]) < 4 * p["std"]


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.mpi
def test_ranks_are_its_workers(finished, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small_run(sampler=SMALL)))
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "-m", "lstmfit", "fit"]
    done = subprocess.run(
        [*command, "run.yaml", "-o", "out"], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((f / "summary.json").read_text()) for f in (finished, tmp_path / "out"))
    assert abs(one["logZ"] - two["logZ"]) < 4 * np.hypot(one["logZ_err"], two["logZ_err"])


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR1])
def test_a_killed_run_is_resumed(tmp_path, how):
    run = tmp_path / "run.yaml"
    content = small_run(params={k: THETA[k] for k in ("sLy", "wX", "tstar")})
    content["sampler"] = {"nautilus": {"n_live": 400, "n_eff": 5000, "seed": 3}}
    run.write_text(yaml.safe_dump(content))
    process = subprocess.Popen(
        [sys.executable, "-m", "lstmfit", "fit", str(run), "-o", str(tmp_path / "out")],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "chain.nautilus.h5").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, how) if how == signal.SIGKILL else process.send_signal(how)
    _, error = process.communicate(timeout=90)
    if how == signal.SIGUSR1:
        assert process.returncode == 75
        assert "with --resume" in error
    folder = fit(run, tmp_path / "out", resume=True)
    for p in json.loads((folder / "summary.json").read_text())["parameters"].values():
        assert abs(p["mean"] - p["truth"]) < 4 * p["std"]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"polychord": {}, "nautilus": {}}, "polychord and nautilus are both named; a run has one sampler"),
        ({"nautilus": {"nlive": 100}}, "unknown key sampler.nautilus.nlive; did you mean 'n_live'"),
        ({"nautlus": {}}, "unknown sampler 'nautlus'; did you mean 'nautilus'"),
        ({"nautilus": {"n_live": 10}}, "sampler.nautilus.n_live is 10; input should be greater than or equal to 100"),
        ({"nautilus": {"f_live": 2}}, "sampler.nautilus.f_live is 2; input should be less than 1"),
        ({"nautilus": {"seed": 1.5}}, "1.5 is not a whole number"),
    ],
)
def test_mistakes_in_the_sampler_block_are_one_line(tmp_path, sampler, message):
    with pytest.raises(InputError, match=message):
        fit(small_run(sampler=sampler), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_it_cannot_do_is_said_before_anything_is_written(tmp_path, monkeypatch):
    one = {name: value for name, value in THETA.items() if name != "fX"}
    with pytest.raises(InputError, match=r"needs at least two sampled parameters, but got 1; .* use sampler"):
        fit(small_run(sampler=SMALL, params=one), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "nautilus", None)
    with pytest.raises(InputError, match=r'nautilus is not installed .* pip install "lstmfit\[nautilus\]"'):
        fit(small_run(sampler=SMALL), tmp_path / "run")
    monkeypatch.setattr("lstmfit.sampling.polychord.libraries.polychord_folder", lambda: tmp_path)
    monkeypatch.setattr("lstmfit.sampling.polychord.libraries.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"PolyChord is not installed .* or use sampler: {nautilus: {}}"):
        fit(small_run(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_jobs_is_one_line(tmp_path):
    with pytest.raises(InputError, match="jobs is 0, but a whole number of at least 1 is needed"):
        fit(small_run(sampler=SMALL), tmp_path / "run", jobs=0)


def test_a_block_without_settings_means_the_defaults():
    assert run_file.load(small_run(sampler={"nautilus": None})).sampler.nautilus.n_live == 2000
    assert run_file.load(small_run(sampler={})).sampler.name == "polychord"
