"""Direct fits with the simulator itself: the committed ones of seven parameters, and a small one made here."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from anesthetic import read_chains
from helpers import THETA, small_run

from lstmfit import config as run_file
from lstmfit.analysis.bias import bias_between, measure_bias, reweighted, to_natural
from lstmfit.analysis.chains import Run, read_run
from lstmfit.analysis.reweight import choose_points
from lstmfit.config import shipped_runs
from lstmfit.datasets.spectrum import read_written_spectrum
from lstmfit.driver import fit, load_problem
from lstmfit.problem import build

DATA = Path(__file__).parents[1] / "data"
BARS = {25: (0.03, 0.005), 5: (0.1, 0.05)}
"""Mean bias over parameters in sigma, and D_KL in nats, by noise in mK."""


def direct_run(noise, target):
    for file in (DATA / f"direct_{noise}mK").iterdir():
        if file.suffix == ".gz":
            (target / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        else:
            shutil.copy(file, target / file.name)
    return Run(target, read_chains(str(target / "chain")), load_problem(target))


def emulated_problem(noise, folder):
    """The shipped run of the same data."""
    config = run_file.load(shipped_runs()[f"mock_{noise}mK"])
    return build(config, {"global_signal": read_written_spectrum(folder / "data.csv")})


@pytest.mark.parametrize("noise", sorted(BARS))
def test_the_shipped_emulator_holds_its_bars_against_the_direct_fit(noise, tmp_path):
    """From the points of the direct fit: no simulator and no emulated chain is needed."""
    direct = direct_run(noise, tmp_path)
    emulated = emulated_problem(noise, tmp_path)
    rows, base = choose_points(direct.samples.get_weights(), 1500, np.random.default_rng(0))
    theta = direct.samples[list(emulated.names)].to_numpy()[rows]
    ratio = [emulated.loglikelihood(t)[0] for t in theta] - direct.samples["logL"].to_numpy()[rows]
    got = reweighted(to_natural(direct, theta), base, ratio, list(emulated.names), from_truth=True)
    assert got["khat"] < got["khat_limit"]
    mean_bias, d_kl = BARS[noise]
    assert got["mean_bias"] < mean_bias
    assert got["D_KL"] + 2 * got["D_KL_err"] < d_kl
    assert max(p["bias_err"] for p in got["parameters"].values()) < mean_bias / 2


@pytest.mark.parametrize("noise", sorted(BARS))
def test_the_direct_fits_hold_the_simulators_likelihood(noise, tmp_path):
    direct = direct_run(noise, tmp_path)
    rows = np.linspace(0, len(direct.samples) - 1, 12).astype(int)[-8:]
    theta = direct.samples[list(direct.problem.names)].to_numpy()[rows]
    got = [direct.problem.loglikelihood(t)[0] for t in theta]
    np.testing.assert_allclose(got, direct.samples["logL"].to_numpy()[rows], atol=0.02)


@pytest.mark.slow
def test_a_small_direct_fit_agrees_with_the_reweighted_one(tmp_path):
    free = ("fX", "Tmin_vir", "fesc")
    content = small_run(
        params={name: value for name, value in THETA.items() if name not in free},
        sampler={"polychord": {"nlive": 80, "num_repeats": 8, "seed": 1}},
    )
    truth = {key: value for key, value in content.items() if key != "emulator"} | {"simulator": "echo21"}
    folders = [fit(run, tmp_path / name) for name, run in (("emulated", content), ("direct", truth))]
    runs = [read_run(folder) for folder in folders]
    forward, backward = measure_bias(runs[0], n=1000), bias_between(*runs)
    for name in free:
        pair = [result["parameters"][name] for result in (forward, backward)]
        assert abs(pair[0]["shift"] - pair[1]["shift"]) < 4 * np.hypot(pair[0]["bias_err"], pair[1]["bias_err"])
        chains = backward["chains"]["parameters"][name]
        assert abs(chains["shift"] - pair[0]["shift"]) < 4 * chains["bias_err"]
    assert abs(forward["D_KL"] - backward["D_KL"]) < 4 * np.hypot(forward["D_KL_err"], backward["D_KL_err"])
    assert abs(forward["dlogZ"] - backward["dlogZ"]) < 4 * np.hypot(forward["dlogZ_err"], backward["dlogZ_err"])
    chains = backward["chains"]
    evidence = chains["logZ_b"] - chains["logZ_a"], np.hypot(chains["logZ_a_err"], chains["logZ_b_err"])
    assert abs(forward["dlogZ"] - evidence[0]) < 3.5 * evidence[1]
