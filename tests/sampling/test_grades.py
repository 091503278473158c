"""Slow and fast parameters: those of the noise and of the foreground must not cost calls of the signal."""

import anesthetic
import numpy as np
import pytest
import yaml
from helpers import THETA, problem_of, small_run

from lstmfit.checks import check_run
from lstmfit.config import load
from lstmfit.driver import fit, load_problem, resolve
from lstmfit.errors import InputError
from lstmfit.problem import build
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.polychord.settings import PolyChordSettings
from lstmfit.sampling.samplers import make_sampler

DATA = {
    "mock": {
        "theta": THETA, "from": "simulator", "noise": 25, "seed": 2,
        "foreground": {"reference": 75, "coefficients": [0.5, -0.2]},
    }
}  # fmt: skip


def likelihood(marginalise):
    foreground = {"terms": 2, "reference": 75, "marginalise": marginalise, "scale": 1.0}
    return {"global_signal": {"noise": {"model": "white", "sigma": "free"}, "foreground": foreground}}


GRADES = {"grade_dims": [2, 3], "grade_frac": [4, 6]}


def graded_run(nlive=60, repeats="2d", **polychord):
    """Two parameters of the signal, sigma and two of the foreground."""
    sampler = {"polychord": {"nlive": nlive, "num_repeats": repeats, "seed": 1} | polychord}
    params = small_run()["params"] | {"sigma": {"prior": {"min": 10, "max": 50}}}
    return small_run(data=DATA, likelihood=likelihood(False), params=params, sampler=sampler)


@pytest.mark.slow
@pytest.mark.ci
def test_a_graded_run_can_be_repeated_from_its_resolved_run_file(tmp_path):
    folder = fit(graded_run(nlive=20, **GRADES), tmp_path / "run", jobs=1)
    block = yaml.safe_load((folder / "run.yaml").read_text())["sampler"]["polychord"]
    assert {key: block[key] for key in GRADES} == GRADES
    assert load_problem(folder).names == ("fX", "Tmin_vir", "sigma", "a0", "a1")
    again = fit(folder / "run.yaml", tmp_path / "again", jobs=1)
    assert (again / "chain_dead-birth.txt").read_bytes() == (folder / "chain_dead-birth.txt").read_bytes()


@pytest.mark.slow
@pytest.mark.ci
def test_no_grades_unless_asked_for(tmp_path):
    """Shared-out steps would make the evidence scatter by more than its quoted error."""
    folder = fit(graded_run(nlive=20), tmp_path / "run", jobs=1)
    assert not GRADES.keys() & yaml.safe_load((folder / "run.yaml").read_text())["sampler"]["polychord"].keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grade_dims": [2, 2], "grade_frac": [4, 4]}, "grade_dims add up to 4, but there are 5 sampled parameters"),
        ({"grade_dims": [2, 3]}, "only one of grade_dims and grade_frac is given"),
        ({"grade_dims": [2, 3], "grade_frac": [4]}, "grade_dims has 2 entries, grade_frac 1"),
        ({"grade_dims": [2, 3], "grade_frac": [4, 0]}, "grade_frac"),
        ({"grade_dims": [6, -1], "grade_frac": [4, 6]}, "sampler.polychord.grade_dims.1: -1 is out of bounds"),
        ({"grade_dims": [2, 3], "grade_frac": [0.5, 20]}, "grade_frac is .*; give integer numbers of repeats above 1"),
    ],
)
def test_grades_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        fit(graded_run(**given), tmp_path / "run", jobs=1)
    assert not (tmp_path / "run").exists()


def test_a_library_of_before_is_refused(tmp_path, monkeypatch):
    """It would set the repeats of the fast parameters by the clock."""
    monkeypatch.setattr("lstmfit.sampling.polychord.libraries.read_record", lambda folder: {"version": "1.14"})
    with pytest.raises(InputError, match=r"sets .*by timing.*doctor --install-polychord"):
        fit(graded_run(**GRADES), tmp_path / "run", jobs=1)
    assert not (tmp_path / "run").exists()


def test_steps_of_the_fast_parameters_leave_the_slow_ones_where_they_are(tmp_path):
    """Bit by bit, else the signal would be computed anew; the shares of the steps are those that are asked for."""
    sigma = np.array([0.05, 0.1, 0.02, 0.3])
    seen = []

    def gaussian(theta):
        seen.append(tuple(theta[:2]))
        return -0.5 * float((((theta - 0.5) / sigma) ** 2).sum())

    def run(name, frac):
        seen.clear()
        settings = PolyChordSettings(n_live=50, num_repeats=1, seed=1, grade_dims=(2, 2), grade_frac=frac)
        names = ["a", "b", "c", "d"]
        run_polychord(problem_of(gaussian, lambda cube: cube, names), tmp_path / name, "chain", settings)
        return np.mean([a != b for a, b in zip(seen, seen[1:])])

    mostly_fast, mostly_slow = run("fast", (4.0, 16.0)), run("slow", (16.0, 4.0))
    assert 0.15 < mostly_fast < 0.35
    assert 0.7 < mostly_slow < 0.9


def test_fast_steps_of_a_fit_cost_no_calls_of_the_signal(tmp_path):
    """With two slow steps of five, and somewhat more calls in each of the others."""
    config = load(graded_run(nlive=20, **GRADES))
    problem = build(config)
    calls, outputs = [], problem.signal.outputs
    problem.signal.outputs = lambda theta: calls.append(1) or outputs(theta)
    result = make_sampler(resolve(config, problem)).run_here(problem, tmp_path / "run")
    assert 0.2 * result.n_like < len(calls) < 0.6 * result.n_like


def test_the_check_charges_fast_steps_no_signal():
    report = check_run(graded_run(**GRADES), n_draws=50)
    assert report["signals_expected"] == pytest.approx(0.4 * report["calls_expected"])
    each = report["total_us"] + report["prior_us"] + 8.0 - 0.6 * report["signal_us"]
    assert report["seconds_expected_on_one_core"] == pytest.approx(1e-6 * report["calls_expected"] * each)
    ungraded = check_run(graded_run(), n_draws=50)
    assert ungraded["signals_expected"] == ungraded["calls_expected"]


@pytest.mark.slow
def test_evidence_and_posterior_with_grades_are_those_of_the_marginalised_foreground(tmp_path):
    """The analytic marginalisation is the truth."""
    found = {}
    for name, content in (
        ("graded", graded_run(nlive=300, grade_dims=[2, 3], grade_frac=[10, 15])),
        ("marginalised", graded_run(nlive=300, repeats="5d") | {"likelihood": likelihood(True)}),
    ):
        folder = fit(content, tmp_path / name)
        samples = anesthetic.read_chains(str(folder / "chain"))
        logZ = samples.logZ(200)
        found[name] = logZ.mean(), logZ.std(), samples.compress(2000)
    (a, a_err, x), (b, b_err, y) = found["graded"], found["marginalised"]
    assert abs(a - b) < 3 * np.hypot(a_err, b_err)
    for key in ("fX", "Tmin_vir", "sigma"):
        u, v = (np.log10(s[key].to_numpy()) for s in (x, y))
        assert abs(u.mean() - v.mean()) < 0.3 * v.std()
        assert 0.8 < u.std() / v.std() < 1.25
