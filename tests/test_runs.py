"""Every run file that ships: it is read, built and evaluated; two are run to the end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lstmfit import config
from lstmfit.config import shipped_runs
from lstmfit.problem import build

EDGES = Path(__file__).parents[2] / "shared" / "data" / "edges2018_figure1.csv"
NEEDED = {
    "mock_5mK",
    "mock_10mK",
    "mock_25mK",
    "mock_50mK",
    "mock_25mK_foreground",
    "mock_25mK_foreground_sampled",
    "joint_mock",
    "joint_real",
    "edges2018",
    "edges2018_flattened_gaussian",
}


@pytest.fixture
def edges(tmp_path, monkeypatch):
    """The fetched EDGES spectrum in a cache of its own."""
    from lstmfit.datasets.public import fetch

    if not EDGES.is_file():
        pytest.skip("no copy of the EDGES spectrum at hand")
    monkeypatch.setenv("LSTMFIT_DATA", str(tmp_path / "cache"))
    fetch("edges2018", source=str(EDGES))


def test_they_are_all_there():
    assert set(shipped_runs()) >= NEEDED


@pytest.mark.parametrize("name", sorted(shipped_runs()))
def test_it_evaluates_on_prior_draws(name, request):
    pytest.importorskip("echo21")
    if "public: edges2018" in shipped_runs()[name].read_text():
        request.getfixturevalue("edges")
    run = config.load(name)
    assert run.output == f"chains/{name}"
    problem = build(run)
    for theta in problem.prior.sample(20, np.random.default_rng(1)):
        total, parts = problem.loglikelihood(theta)
        assert np.isfinite([total, *parts]).all()
    if name.startswith("mock_") and "foreground" not in name:
        sigma, n = float(name[5:-2]), len(problem.spectrum.frequency)
        at_truth = problem.loglikelihood(np.array([problem.truth[n] for n in problem.names]))[0]
        chi2 = -2.0 * at_truth - n * np.log(2.0 * np.pi * sigma**2)
        assert chi2 == pytest.approx(n, abs=5.0 * np.sqrt(2.0 * n))


def test_the_flattened_gaussian_has_bowmans_best_fit(edges):
    """The published model, by its published parameters, is in the file beside the data."""
    import pandas as pd

    from lstmfit.likelihoods.foregrounds import flattened_gaussian

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


def test_the_examples_of_the_documentation_build(rng):
    """docs/likelihoods.md shows two blocks of a run file: the likelihoods and the parameters."""
    pytest.importorskip("echo21")
    text = (Path(__file__).parents[1] / "docs" / "likelihoods.md").read_text(encoding="utf-8")
    first, second = (yaml.safe_load(part.split("```")[0]) for part in text.split("```yaml")[1:])
    likelihoods = {name: block for name, block in first["likelihood"].items() if not name.startswith("my_package")}
    assert len(likelihoods) == len(first["likelihood"]) - 1
    likelihoods["global_signal"]["noise"]["sigma"] = "free"
    # YAML 1.1 takes 1e-3 for a text, which lstmfit's own loader does not.
    second["params"]["fX"]["prior"]["min"] = 1e-3
    theta = dict(zip(NAMES, (0.1, 1.0, 0.05, 1e4, 0.5, 2.64, 1.5)))
    mock = {"theta": theta, "from": "emulator", "noise": 25, "seed": 2}
    problem = build(config.load({"emulator": "echo21", "data": {"mock": mock}, "likelihood": likelihoods} | second))
    assert "log10_fLy" in problem.names
    assert problem.derived_names[-2:] == ("fLy", "ratio")
    assert np.isfinite(problem.loglikelihood(problem.prior.sample(1, rng)[0])[0])


def test_the_python_of_the_documentation_runs_as_a_script(tmp_path):
    """Every block of docs/python.md, one after the other."""
    pytest.importorskip("echo21")
    text = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    script = "\n".join(part.split("```")[0] for part in text.split("```python")[1:])
    script += "\nassert run.truth() == {'fX': -1.0, 'Tmin_vir': 4.0}\nassert compare(a.samples, b.samples, names)"
    script += "['parameters']['fX']['ks'] == 0.0\nassert result['verdict']['trusted']\nassert theta.shape == (5, 2)\n"
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the emulator is good for these data" in done.stdout


NAMES = ("fX", "fLy", "fesc", "Tmin_vir", "tstar", "sLy", "wX")
