"""Calibration: mocks from the model itself, ranks that are uniform or are not, a campaign that goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import small_run

from lstmfit import config as run_file
from lstmfit.analysis.coverage import summarise
from lstmfit.calibration import calibrate
from lstmfit.data import draw_mock
from lstmfit.errors import InputError
from lstmfit.files import locked
from lstmfit.problem import build
from lstmfit.simulators import load

NAMES = ("fX", "Tmin_vir")


def quick_run(**changes):
    return small_run(sampler={"polychord": {"nlive": 30, "num_repeats": 2, "seed": 1}}) | changes


class Undrawable:
    """A likelihood of one's own that says nothing of how its data come about."""

    outputs, names = ("tau",), ()

    def __init__(self, redshifts):
        pass

    def __call__(self, tau, values):
        return -0.5 * ((tau - 0.05) / 0.01) ** 2


def write_mocks(folder, ranks):
    (folder / "mocks").mkdir(parents=True)
    for i, pair in enumerate(ranks):
        z = dict(zip(NAMES, (4.0 * (np.array(pair) - 0.5)).tolist()))
        content = {"rank": dict(zip(NAMES, map(float, pair))), "z": z, "chi2": sum(v**2 for v in z.values())}
        (folder / "mocks" / f"{i:05d}.json").write_text(json.dumps(content))


def test_uniform_ranks_pass_and_others_do_not(tmp_path, rng):
    ranks = np.column_stack([rng.uniform(size=200), rng.beta(2.5, 1.0, size=200)])
    write_mocks(tmp_path, ranks)
    got = summarise(tmp_path)
    good, bad = (got["parameters"][name] for name in NAMES)
    assert good["rank_ks_p"] > 0.01
    assert good["coverage_68_low"] <= good["coverage_68"] <= good["coverage_68_high"]
    assert bad["rank_ks_p"] < 1e-6
    for level in (50, 90, 95):
        assert good[f"coverage_{level}_low"] <= good[f"coverage_{level}"] <= good[f"coverage_{level}_high"]
    assert got["chi2"]["mean"] > 1.0
    assert bad["z_mean"] > 5 * bad["z_mean_err"]
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "calibration.json").read_text()) == got
    assert summarise(tmp_path, 50)["n"] == 50


def test_one_mock_has_no_scatter_and_few_have_an_unbiased_one(tmp_path):
    write_mocks(tmp_path / "one", [[0.3, 0.6]])
    got = summarise(tmp_path / "one")
    p = got["parameters"]["fX"]
    assert (p["z_mean_err"], p["z_std"], got["chi2"]["err"]) == (None, None, None)
    write_mocks(tmp_path / "two", [[0.3, 0.6], [0.5, 0.6]])
    p = summarise(tmp_path / "two")["parameters"]["fX"]
    assert p["z_std"] == pytest.approx(0.8 / np.sqrt(2))
    assert p["z_mean_err"] == pytest.approx(0.4)


def test_binomial_bands(tmp_path):
    write_mocks(tmp_path, np.random.default_rng(1).uniform(size=(100, 2)))
    p = summarise(tmp_path)["parameters"]["fX"]
    assert (p["coverage_68_low"], p["coverage_68_high"]) == pytest.approx((0.59, 0.77), abs=0.011)


def test_mocks_are_drawn_from_the_model_with_its_own_noise_and_foreground(rng):
    block = {
        "noise": {"model": "white", "sigma": "free"},
        "foreground": {"model": "log_polynomial", "terms": 3, "marginalise": False, "scale": 100.0, "reference": 75},
    }
    params = small_run()["params"] | {"sigma": {"prior": {"dist": "loguniform", "min": 1, "max": 100}}}
    config = run_file.load(small_run(likelihood={"global_signal": block}, params=params))
    template = build(config)
    theta = template.prior.sample(1, rng)[0]
    theta[template.names.index("sigma")] = 7.0
    simulate = load("echo21")
    made = [draw_mock(template, simulate, theta, rng)[0]["global_signal"] for _ in range(30)]
    own = np.array(template.values(theta, "global_signal"))
    sky = made[0].truth + template.spectra["global_signal"].model(np.zeros(451), own)
    residual = np.array([m.temperature - sky for m in made])
    assert residual.std() == pytest.approx(7.0, rel=0.03)
    assert abs(residual.mean()) < 0.3


def test_other_data_are_drawn_from_the_same_truth(rng):
    """Values of the mocks scatter about the simulator's own by the errors of the real data."""
    others = {"planck_tau": {}, "x_HI": {"points": ["mason2018"]}, "uvlf_bouwens2021": {"redshifts": [6]}}
    config = run_file.load(small_run(likelihood=small_run()["likelihood"] | others))
    template, simulate = build(config), load("echo21")
    theta = template.prior.sample(1, rng)[0]
    history = simulate(template.signal_parameters(theta).copy())
    drawn = [draw_mock(template, simulate, theta, rng)[1] for _ in range(60)]
    tau = np.array([options["planck_tau"]["mean"] for options in drawn])
    assert abs(tau.mean() - history.tau) < 4 * 0.0073 / np.sqrt(60)
    assert tau.std() == pytest.approx(0.0073, rel=0.35)
    x_hi = np.array([options["x_HI"]["points"][0]["value"] for options in drawn])
    assert abs(x_hi.mean() - np.interp(7.0, history.redshifts, history.x_HI)) < 4 * 0.15 / np.sqrt(60)
    uvlf = template.likelihoods["uvlf_bouwens2021"]
    true = uvlf.predict(template.values(theta, "uvlf_bouwens2021"))
    pulls = (np.array([options["uvlf_bouwens2021"]["values"] for options in drawn]) - true) / uvlf.err
    assert np.abs(pulls.mean(axis=0)).max() < 4.5 / np.sqrt(60)
    assert pulls.std() == pytest.approx(1.0, rel=0.15)


def test_computed_parameters_stay_within_their_range(rng):
    from lstmfit.calibration import _draw_theta

    # fesc is computed from fX, and so beyond the emulator's range for half of the prior.
    params = small_run()["params"] | {"fesc": {"value": "fX"}}
    problem = build(run_file.load(small_run(params=params)))
    drawn = np.array([_draw_theta(problem, rng) for _ in range(50)])
    assert drawn[:, problem.names.index("fX")].max() <= 1.0


def test_a_campaign_goes_on_and_refuses_another(tmp_path):
    run = quick_run(likelihood=small_run()["likelihood"] | {"planck_tau": {}})
    first = calibrate(run, tmp_path / "c", 2, points=50, jobs=2, seed=3)
    assert first["n"] == 2
    assert first["emulation"]["n"] == 2
    assert first["emulation"]["D_KL_mean"] < 0.1
    before = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "c" / "mocks").iterdir()}
    (tmp_path / "c" / "mocks" / "00001.json").unlink()
    calls = []
    again = calibrate(run, tmp_path / "c", 2, points=50, jobs=1, seed=3, progress=lambda d, n: calls.append(d))
    assert calls == [1, 2]
    # Mock 1 is the same again, whoever makes it.
    assert again == first
    assert (tmp_path / "c" / "mocks" / "00000.json").stat().st_mtime_ns == before["00000.json"]
    assert not (tmp_path / "c" / "work").exists()
    with pytest.raises(InputError, match=r"a different calibration \(differs in seed"):
        calibrate(run, tmp_path / "c", 2, points=50, jobs=1, seed=4)
    with pytest.raises(InputError, match=r"a different calibration \(differs in run"):
        calibrate(quick_run(), tmp_path / "c", 2, points=50, jobs=1, seed=3)
    with locked(tmp_path / "c" / "lock", ""), pytest.raises(InputError, match="another calibration is active in"):
        calibrate(run, tmp_path / "c", 2, points=50, jobs=1, seed=3)


def mpirun(ranks, run, folder, n):
    """The command that a user would type, started."""
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), sys.executable, "-m", "lstmfit"]
    command += ["calibrate", str(run), "-o", str(folder), "-n", str(n), "--points", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ranks_of(launcher):
    """Process numbers of the ranks that an mpirun has started."""
    task = Path(f"/proc/{launcher.pid}/task")
    return [int(n) for thread in task.iterdir() for n in (thread / "children").read_text().split()]


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.mpi
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
def test_ranks_share_the_mocks_and_lose_none_when_one_is_killed(tmp_path):
    run, folder = tmp_path / "run.yaml", tmp_path / "c"
    run.write_text(yaml.safe_dump(quick_run(likelihood=small_run()["likelihood"] | {"planck_tau": {}})))
    launcher = mpirun(3, run, folder, 5)
    deadline = time.monotonic() + 300
    while len(list(folder.glob("mocks/*.json"))) < 1:
        assert launcher.poll() is None, launcher.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(ranks_of(launcher)[-1], signal.SIGKILL)
    assert launcher.wait(timeout=60) != 0
    finished = {file.name: file.read_bytes() for file in folder.glob("mocks/*.json")}
    assert 1 <= len(finished) < 5
    launcher = mpirun(2, run, folder, 5)
    out, error = launcher.communicate(timeout=400)
    assert launcher.returncode == 0, error
    assert out.count("5 mocks fitted, 0 failed") == 1
    for name, content in finished.items():
        assert (folder / "mocks" / name).read_bytes() == content
    assert not (folder / "work").exists()
    # The first of another campaign, by processes: the same mocks, whoever makes them and how often it is killed.
    calibrate(str(run), tmp_path / "plain", 1, points=0, jobs=1)
    for name in ("00000.json",):
        one, other = (json.loads((f / "mocks" / name).read_text()) for f in (folder, tmp_path / "plain"))
        assert one["theta"] == other["theta"]
        if name in finished:
            assert one == other
        else:
            assert abs(one["logZ"] - other["logZ"]) < 5 * np.hypot(one["logZ_err"], other["logZ_err"])


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="n is 0, but at least one mock"):
        calibrate(quick_run(), tmp_path / "c", 0)
    with pytest.raises(InputError, match="points is 3; give at least 25"):
        calibrate(quick_run(), tmp_path / "c", 1, points=3)
    run = quick_run()
    run["likelihood"] = run["likelihood"] | {"x_HI": {}}
    message = r"cannot be drawn for limits \(mcgreer2015_z5.6, .*; keep only the measurements: points: \[greig2017"
    with pytest.raises(InputError, match=message):
        calibrate(run, tmp_path / "c", 1, jobs=1)
    run["likelihood"] = quick_run()["likelihood"] | {"test_calibrate.Undrawable": {}}
    with pytest.raises(InputError, match=r"Undrawable cannot draw mock data, because it has no method mocked"):
        calibrate(run, tmp_path / "c", 1, jobs=1)
    shape = {"A": 500.0, "nu_0": 78.0, "w": 19.0, "tau": 7.0}
    formula = {"signal": "flattened_gaussian", "data": {"mock": {"theta": shape, "noise": 25, "seed": 1}}}
    with pytest.raises(InputError, match="calibrate does not support signal: flattened_gaussian"):
        calibrate({"likelihood": quick_run()["likelihood"]} | formula, tmp_path / "c", 1, jobs=1)
    assert not (tmp_path / "c").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="do not belong to a calibration"):
        calibrate(quick_run(), tmp_path / "thesis", 1, jobs=1)
    (tmp_path / "none" / "mocks").mkdir(parents=True)
    (tmp_path / "none" / "mocks" / "00000.json").write_text('{"failed": "no finite signal"}')
    with pytest.raises(InputError, match="none of 1 mocks could be fitted; first failure: no finite signal"):
        summarise(tmp_path / "none")


def test_an_emulator_in_place_of_the_simulator_makes_the_mocks(rng):
    """As `--truth` takes it: its own numbers, and one line where it lacks what the other data need."""
    from lstmfit.simulators import SimulationError
    from lstmfit.simulators.emulated import EmulatedSimulator

    likelihood = small_run()["likelihood"] | {"planck_tau": {}}
    template = build(run_file.load(small_run(likelihood=likelihood)))
    emulator, theta = template.signal.emulator, template.prior.sample(1, rng)[0]
    spectra, _ = draw_mock(template, EmulatedSimulator(emulator), theta, rng)
    np.testing.assert_allclose(spectra["global_signal"].truth, emulator(template.signal_parameters(theta)), rtol=1e-6)

    class SignalOnly(EmulatedSimulator):
        def __call__(self, theta):
            return {"signal": super().__call__(theta)["signal"]}

    with pytest.raises(SimulationError, match="the simulator does not give x_HI, tau, as echo21 does"):
        draw_mock(template, SignalOnly(emulator), theta, rng)


def test_an_emulator_of_unknown_origin_needs_a_truth(tmp_path):
    from lstmfit import Emulator

    emulator = Emulator.load("echo21")
    del emulator.record["simulator"]
    emulator.save(tmp_path / "mine.h5")
    run = small_run() | {"emulator": str(tmp_path / "mine.h5")}
    run["data"]["mock"]["from"] = "emulator"
    with pytest.raises(InputError, match=r"does not say which simulator it emulates; name .* with --truth"):
        calibrate(run, tmp_path / "out", 1, jobs=1)
