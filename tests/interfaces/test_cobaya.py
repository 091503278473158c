"""The same problem in Cobaya: ln L of the real Cobaya equals ours."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import yaml
from cobaya.input import get_default_info, load_input_file
from cobaya.log import LoggedError
from cobaya.model import get_model
from helpers import THETA, lstmfit, small_run
from scipy.stats import norm

from lstmfit import Emulator
from lstmfit import config as run_file
from lstmfit.driver import fit
from lstmfit.errors import InputError
from lstmfit.interfaces import cobaya as components
from lstmfit.interfaces.cobaya_input import write_input
from lstmfit.interfaces.cobaya_params import cobaya_function
from lstmfit.problem import build
from lstmfit.run_folder import load_problem

SHIPPED = sorted(name for name in run_file.shipped_runs())


def model_of(tmp_path, source):
    """Cobaya's model of a run file, and our problem."""
    config = run_file.load(source)
    path = write_input(config, tmp_path / "cobaya.yaml")
    content = yaml.safe_load(path.read_text())
    logging.disable(logging.INFO)
    try:
        return get_model({key: value for key, value in content.items() if key != "sampler"}), build(config)
    finally:
        logging.disable(logging.NOTSET)


def agree(model, problem, rng, n=100):
    """Compare prior and likelihood at random points of the prior."""
    names = list(model.parameterization.sampled_params())
    assert set(names) == set(problem.names)
    finite = 0
    for cube in rng.uniform(size=(n, len(names))):
        theta = problem.prior_transform(cube)
        point = dict(zip(problem.names, theta))
        ours = problem.loglikelihood(theta)[0]
        theirs = model.logposterior(point)
        if np.isfinite(ours):
            finite += 1
            assert theirs.loglike == pytest.approx(ours, rel=1e-9, abs=1e-9)
            assert theirs.logprior == pytest.approx(problem.prior.logpdf(theta), rel=1e-9, abs=1e-9)
        else:
            assert not np.isfinite(theirs.loglike)
    assert finite > n // 3


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_run_files_have_the_same_likelihood(tmp_path, rng, name, request):
    if "public: edges2018" in run_file.shipped_runs()[name].read_text():
        request.getfixturevalue("edges")
    model, problem = model_of(tmp_path, name)
    agree(model, problem, rng)


SPECTRA = {
    "one": {"mock": small_run()["data"]["mock"] | {"from": "emulator"}},
    "two": {"mock": small_run()["data"]["mock"] | {"from": "emulator", "noise": 40, "seed": 3}},
}
FOREGROUND = {"model": "log_polynomial", "terms": 3, "reference": 75.0, "scale": 100.0}


@pytest.mark.parametrize("shared", [[], ["a0", "a1"]])
@pytest.mark.parametrize("marginalise", [True, False])
def test_several_spectra(tmp_path, rng, shared, marginalise):
    """Parameters of each spectrum, shared ones, and coefficients that are marginalised jointly."""
    block = {"class": "global_signal", "noise": {"sigma": "free"}, "shared": shared, "emulator_error": True}
    block |= {"foreground": FOREGROUND | {"marginalise": marginalise}}
    likelihood = {"one": block, "two": block | {"noise": {"sigma": 40}}}
    model, problem = model_of(tmp_path, small_run(data=SPECTRA, likelihood=likelihood))
    assert "sigma_one" in problem.names
    agree(model, problem, rng)


def test_computed_derived_sorted_and_other_priors(tmp_path, rng):
    run = small_run()
    run["params"] = {
        "fX": {"value": "10**x"},
        "x": {"prior": {"dist": "norm", "loc": -1, "scale": 0.5}, "latex": "x"},
        "fLy": {"prior": {"dist": "lognorm", "s": 0.5}},
        "fesc": {"prior": {"dist": "beta", "a": 2, "b": 9}},
        "Tmin_vir": {"value": "1e4 + 0 * min(x, 1)"},
        "sLy": {"prior": {"min": 1, "max": 3, "sorted": "slopes"}},
        "wX": {"prior": {"min": 1, "max": 3, "sorted": "slopes"}},
        "tstar": {"prior": {"dist": "truncnorm", "loc": 0.5, "scale": 0.3, "min": 0.1, "max": 1}},
        "ratio": {"derived": "log10(fX) / exp(sLy) + pi"},
    }
    run["extrapolate"] = True
    model, problem = model_of(tmp_path, run)
    agree(model, problem, rng)
    theta = problem.prior_transform(np.full(len(problem.names), 0.4))
    derived = model.logposterior(dict(zip(problem.names, theta))).derived
    ours = problem.loglikelihood(theta)[1][problem.derived_names.index("ratio")]
    assert derived[list(model.parameterization.derived_params()).index("ratio")] == pytest.approx(ours, rel=1e-12)


class Slope:
    """A likelihood of the user's own."""

    outputs = ("signal", "x_HI")
    names = ("gain",)
    params = {"gain": {"prior": {"min": 0.5, "max": 2}, "latex": "g"}}  # noqa: RUF012

    def __init__(self, redshifts, weight=1.0):
        self.weight = weight

    def __call__(self, signal, x_HI, values):
        return -self.weight * values[0] * float(signal @ x_HI) ** 2 * 1e-9


def test_a_likelihood_of_your_own(tmp_path, rng):
    likelihood = small_run()["likelihood"] | {f"{__name__}.Slope": {"weight": 2.0}, "x_HI": {}}
    model, problem = model_of(tmp_path, small_run(likelihood=likelihood))
    assert "gain" in problem.names
    agree(model, problem, rng)


def test_outside_the_training_range_the_likelihood_is_zero(tmp_path):
    model, _ = model_of(tmp_path, small_run())
    content = yaml.safe_load((tmp_path / "cobaya.yaml").read_text())
    content["params"]["fX"]["prior"] = {"min": 0, "max": 1e4}
    del content["sampler"]
    wide = get_model(content)
    inside = {"fX": 0.1, "Tmin_vir": 1e4}
    assert wide.loglike(inside, return_derived=False) == pytest.approx(model.loglike(inside, return_derived=False))
    assert wide.loglike(inside | {"fX": 200.0}, return_derived=False) == -np.inf


def test_derived_numbers_are_products(tmp_path):
    """The optical depth of the emulator is a parameter for a likelihood of Cobaya's own kind."""
    content = {
        "theory": {"lstmfit.interfaces.cobaya.Signal": {"emulator": "echo21"}},
        "likelihood": {"measured": {"external": "lambda tau: stats.norm.logpdf(tau, 0.054, 0.007)"}},
        "params": {"tau": None},
    }
    model = get_model(content)
    assert set(model.parameterization.sampled_params()) == set(THETA)
    loglike, (tau,) = model.loglike(THETA)
    assert tau == pytest.approx(float(Emulator.load("echo21").histories(THETA)["tau"]))
    assert loglike == pytest.approx(norm.logpdf(tau, 0.054, 0.007))


@pytest.mark.parametrize(
    ("theory", "likelihood", "message"),
    [
        ({"emulator": "21cmgem"}, {"lstmfit.interfaces.cobaya.NeutralFraction": {}}, "needs x_HI, which 21cmgem"),
        ({"emulator": "echo22"}, {"lstmfit.interfaces.cobaya.PlanckTau": {}}, "'echo22' is not a shipped emulator"),
        ({}, {"lstmfit.interfaces.cobaya.PlanckTau": {}}, "give exactly one of emulator, simulator and signal"),
        ({"emulator": "echo21"}, {"lstmfit.interfaces.cobaya.PlanckTau": {"measurement": "plank"}}, "plank"),
        (
            {"emulator": "echo21"},
            {"lstmfit.interfaces.cobaya.GlobalSignal": {"data": {"file": "none.csv"}, "noise": {"sigma": 1}}},
            "no data file",
        ),
    ],
)
def test_mistakes_name_the_remedy(theory, likelihood, message):
    def evaluate():
        content = {"theory": {"lstmfit.interfaces.cobaya.Signal": theory}, "likelihood": likelihood}
        model = get_model(content | {"stop_at_error": True})
        model.logposterior(dict(zip(model.parameterization.sampled_params(), model.prior.sample(random_state=1)[0])))

    with pytest.raises((InputError, LoggedError), match=message):
        evaluate()


def test_nothing_is_overwritten(tmp_path):
    config = run_file.load(small_run())
    path = write_input(config, tmp_path / "cobaya.yaml")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"cobaya.yaml already exists; use --force"):
        write_input(config, path)
    path.unlink()
    with pytest.raises(InputError, match=r"cobaya_global_signal.csv already exists; use --force"):
        write_input(config, path)
    assert write_input(config, path, force=True).read_bytes()[:60] == before[:60]


@pytest.mark.parametrize("name", ["input", "updated"])
def test_names_that_cobaya_reserves_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="reserved file names"):
        load_input_file(str(tmp_path / f"{name}.yaml"))
    with pytest.raises(InputError, match=f"{name}.yaml: Cobaya reserves the names input and updated; give another"):
        write_input(run_file.load(small_run()), tmp_path / f"{name}.yaml")
    assert not list(tmp_path.iterdir())


def test_expressions_are_functions_of_numpy():
    text = cobaya_function("log10(fX) + max(b, e) ** 2 - pi * abs(c)")
    assert text == "lambda b, c, fX: np.log10(fX) + max(b, np.e) ** 2 - np.pi * abs(c)"


@pytest.mark.slow
@pytest.mark.ci
def test_cobaya_run_evaluates_and_samples(tmp_path):
    """The command line of Cobaya: `evaluate`, and a Markov chain that agrees with nested sampling."""
    folder = fit(small_run(), tmp_path / "nested")
    done = lstmfit("cobaya", folder / "run.yaml", "-o", tmp_path / "cobaya.yaml")
    assert done.returncode == 0, done.stderr
    assert "to run it: cobaya-run" in done.stdout
    content = yaml.safe_load((tmp_path / "cobaya.yaml").read_text())
    cobaya_run = [sys.executable, "-m", "cobaya", "run"]

    def run(sampler, name):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content | {"sampler": sampler, "output": str(tmp_path / name)}))
        done = subprocess.run([*cobaya_run, str(path)], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    run({"evaluate": {"override": {"fX": 0.1, "Tmin_vir": 1e4}}}, "point")
    row = np.loadtxt(tmp_path / "point.1.txt")
    problem = load_problem(folder)
    theta = np.array([{"fX": 0.1, "Tmin_vir": 1e4}[name] for name in problem.names])
    assert -row[1] == pytest.approx(problem.loglikelihood(theta)[0] + problem.prior.logpdf(theta), rel=1e-6)
    for name, width in (("fX", 0.02), ("Tmin_vir", 1e3)):
        content["params"][name] |= {"proposal": width, "ref": {"fX": 0.1, "Tmin_vir": 1e4}[name]}
    run({"mcmc": {"max_samples": 2000, "seed": 1, "Rminus1_stop": 1e-9, "learn_proposal": True}}, "chain")
    done = lstmfit("compare", folder, tmp_path / "chain", "--burn-in", "0.2", "--log10", "fX,Tmin_vir",
                   "--json", tmp_path / "compare.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for p in json.loads((tmp_path / "compare.json").read_text())["parameters"].values():
        assert abs(p["bias"]) < 0.5
        assert 0.6 < p["width_ratio"] < 1.6


def test_with_a_likelihood_of_cobayas_own(tmp_path):
    """Our signal and spectrum, and Cobaya's Gaussian mixture on two of the parameters."""
    model, _ = model_of(tmp_path, small_run(params={n: v for n, v in THETA.items() if n not in ("sLy", "wX")}))
    content = yaml.safe_load((tmp_path / "cobaya.yaml").read_text())
    del content["sampler"]
    content["likelihood"]["gaussian_mixture"] = {
        "means": [[2.0, 1.5]], "covs": [[[0.2, 0.0], [0.0, 0.1]]], "input_params": ["sLy", "wX"], "derived": False,
        "output_params": [], "input_params_prefix": "",
    }  # fmt: skip
    both = get_model(content)
    theta = {"sLy": 2.2, "wX": 1.4}
    extra = norm.logpdf(2.2, 2.0, np.sqrt(0.2)) + norm.logpdf(1.4, 1.5, np.sqrt(0.1))
    loglike = both.loglike(theta, return_derived=False)
    assert loglike == pytest.approx(model.loglike(theta, return_derived=False) + extra, rel=1e-9)


def cobaya(*arguments):
    """A command of Cobaya."""
    command = [sys.executable, "-m", "cobaya", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


CLASSES = {
    "Signal": ("theory", "DorigoJones2024"),
    "GlobalSignal": ("likelihood", "SimsPober2020"),
    "Spectra": ("likelihood", "SimsPober2020"),
    "PlanckTau": ("likelihood", "Planck2018VI"),
    "NeutralFraction": ("likelihood", "McGreer2015"),
    "UVLFBouwens2015": ("likelihood", "Bouwens2015"),
    "UVLFBouwens2021": ("likelihood", "Bouwens2021"),
    "Own": ("likelihood", None),
}


@pytest.mark.parametrize("name", CLASSES)
def test_cobaya_doc_prints_the_defaults(name):
    """They are the defaults that a model gets, and say what the options mean."""
    text = cobaya("doc", f"lstmfit.interfaces.cobaya.{name}")
    kind, _ = CLASSES[name]
    (printed,) = yaml.safe_load(text)[kind].values()
    assert " # " in text
    component = getattr(components, name)
    used = get_default_info(component)
    assert printed.items() <= used.items()
    # Every option that the class uses has a default.
    assert set(component.__annotations__) - {"_files"} <= set(used)
    assert not any(key.startswith("_") or key.isupper() for key in used)


def test_cobaya_bib_prints_the_references(tmp_path):
    names = [f"lstmfit.interfaces.cobaya.{name}" for name in CLASSES]
    text = cobaya("bib", *names)
    for key in filter(None, (key for _, key in CLASSES.values())):
        assert f"@article{{{key}," in text
    assert text.count("no bibliography information found") == 1
    # Also those of an input file that names its components by their paths.
    (tmp_path / "input.yaml").write_text(
        "theory: {lstmfit.interfaces.cobaya.Signal: {emulator: echo21}}\n"
        "likelihood: {lstmfit.interfaces.cobaya.PlanckTau: {}}\n"
    )
    text = cobaya("bib", str(tmp_path / "input.yaml"))
    assert "@article{DorigoJones2024," in text
    assert "@article{Planck2018VI," in text
