"""Every run file that ships: it is read, built and evaluated; two are run to the end."""

import json

import numpy as np
import pytest
from conftest import EDGES

from lstmfit import config
from lstmfit.config import shipped_runs
from lstmfit.problem import build

NEEDED = {
    "mock_5mK",
    "mock_10mK",
    "mock_25mK",
    "mock_50mK",
    "mock_25mK_foreground",
    "mock_25mK_foreground_sampled",
    "joint_mock",
    "joint_21cmfast",
    *(f"dj24_{name}_{sigma}mK" for name in ("21cmgem", "ares") for sigma in (5, 10, 25)),
    "edges2018",
    "edges2018_flattened_gaussian",
}


def test_they_are_all_there():
    assert set(shipped_runs()) >= NEEDED


@pytest.mark.parametrize("name", sorted(shipped_runs()))
def test_it_evaluates_on_prior_draws(name, request):
    if "public: edges2018" in shipped_runs()[name].read_text():
        request.getfixturevalue("edges")
    run = config.load(name)
    assert run.output == f"chains/{name}"
    problem = build(run)
    for theta in problem.prior.sample(20, np.random.default_rng(1)):
        total, parts = problem.loglikelihood(theta)
        assert np.isfinite([total, *parts]).all()
    if name.startswith("mock_") and "foreground" not in name:
        sigma, n = float(name[5:-2]), len(problem.data["global_signal"].frequency)
        at_truth = problem.loglikelihood(np.array([problem.truth[n] for n in problem.names]))[0]
        chi2 = -2.0 * at_truth - n * np.log(2.0 * np.pi * sigma**2)
        assert chi2 == pytest.approx(n, abs=5.0 * np.sqrt(2.0 * n))


def test_the_flattened_gaussian_has_bowmans_best_fit(edges):
    """The published model, by its published parameters, is in the file beside the data."""
    import pandas as pd

    from lstmfit.signal_functions import flattened_gaussian

    table = pd.read_csv(EDGES, skipinitialspace=True)
    published = table[table.iloc[:, 1] > 0]
    ours = flattened_gaussian(published.iloc[:, 0].to_numpy(), (0.53, 78.1, 18.7, 7.0))
    assert np.abs(ours - published.iloc[:, 5].to_numpy()).max() < 0.03


@pytest.mark.slow
def test_edges_recovers_the_published_profile(edges, tmp_path):
    """Bowman et al. (2018): 0.5 (+0.5 -0.2) K, 78 +- 1 MHz, 19 (+4 -2) MHz, at 99 per cent."""
    from lstmfit.driver import fit

    folder = fit("edges2018_flattened_gaussian", tmp_path / "run")
    found = json.loads((folder / "summary.json").read_text())["parameters"]
    assert 300 < found["A"]["mean"] < 1000
    assert 77 < found["nu_0"]["mean"] < 79
    assert 17 < found["w"]["mean"] < 23


@pytest.mark.slow
def test_marginalised_and_sampled_foregrounds_agree(tmp_path):
    """The same evidence within two sigma, the same posterior within a tenth of one; two coefficients."""
    from lstmfit.driver import fit

    results = []
    for marginalise in (True, False):
        run = {
            "signal": "flattened_gaussian",
            "data": {
                "mock": {
                    "theta": {"A": 500.0, "nu_0": 78.0, "w": 19.0, "tau": 7.0},
                    "foreground": {"reference": 75, "coefficients": [10.0, -1.0]},
                    "noise": 100,
                    "seed": 3,
                },
                "band": [50, 110],
            },
            "likelihood": {
                "global_signal": {
                    "noise": {"sigma": 100},
                    "foreground": {"terms": 2, "reference": 75, "marginalise": marginalise, "scale": 20},
                }
            },
            "params": {"tau": 7.0},
            "sampler": {"polychord": {"nlive": 500, "seed": 1}},
        }
        folder = fit(run, tmp_path / str(marginalise))
        results.append(json.loads((folder / "summary.json").read_text()))
    one, other = results
    sigma = np.hypot(one["logZ_err"], other["logZ_err"])
    assert abs(one["logZ"] - other["logZ"]) < 2 * sigma
    for name, p in one["parameters"].items():
        assert abs(p["mean"] - other["parameters"][name]["mean"]) < 0.1 * p["std"]
