"""Many points at a time: ln L and prior of a problem equal those of single calls."""

import numpy as np
import pandas as pd
import pytest
from helpers import small_run

from lstmfit import config
from lstmfit.errors import InputError
from lstmfit.likelihoods.global_signal import GlobalSignal
from lstmfit.likelihoods.noise import Noise
from lstmfit.problem import Problem, build

SKY = {"temperature": 300, "frequency": 150, "index": -2.5}
NOISE = {
    "white": {"sigma": 25},
    "free": {"sigma": "free"},
    "channels": {"model": "radiometer", "channel_width": 0.4, "integration_time": 100, "floor": 20, "sky": SKY},
    "student": {"model": "student_t", "sigma": "free", "dof": 4},
}
FOREGROUND = {
    "none": {},
    "marginalised": {"foreground": {"terms": 3, "marginalise": True}},
    "sampled": {"foreground": {"terms": 2, "marginalise": False}},
    "nonlinear": {"foreground": {"model": "hills"}},
}


def make(likelihood=None, **changes):
    run = small_run(**changes)
    run["data"]["mock"] |= {"from": "emulator"}
    run["likelihood"]["global_signal"] |= likelihood or {}
    return build(config.load(run))


def of_single_calls(problem, theta):
    values, derived = zip(*(problem.loglikelihood(point) for point in theta))
    return np.array(values), np.array(derived)


def check(problem, theta):
    expected, columns = of_single_calls(problem, theta)
    values, derived = problem.loglikelihood_batch(theta, return_derived=True)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    good = ~np.isneginf(expected)
    np.testing.assert_allclose(derived[good], columns[good], rtol=1e-9)
    assert np.isnan(derived[~good]).all()
    np.testing.assert_array_equal(problem.loglikelihood_batch(theta), values)
    return good


@pytest.mark.parametrize("name", sorted(config.shipped_runs()))
def test_shipped_run_files(rng, name, request):
    if "public: edges2018" in config.shipped_runs()[name].read_text():
        request.getfixturevalue("edges")
    problem = build(config.load(name))
    cube = rng.uniform(size=(100, len(problem.names)))
    theta = problem.prior_transform(cube)
    np.testing.assert_allclose(theta, [problem.prior_transform(u) for u in cube], rtol=1e-13)
    check(problem, theta)


@pytest.mark.parametrize("foreground", FOREGROUND)
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("error", [False, "diagonal", True])
def test_noise_foreground_and_emulator_error(rng, noise, foreground, error):
    if noise == "student" and (foreground == "marginalised" or error is True):
        pytest.skip("these cannot be combined")
    options = {"noise": NOISE[noise], "emulator_error": error} | FOREGROUND[foreground]
    problem = make(options)
    assert check(problem, problem.prior.sample(150, rng)).all()


def test_a_computed_parameter_out_of_range_and_a_derived_one(rng):
    params = {name: value for name, value in small_run()["params"].items() if name != "sLy"}
    params |= {"sLy": {"value": "2 * x"}, "x": {"prior": {"min": 0, "max": 4}}, "ratio": {"derived": "fX / sLy"}}
    problem = make(params=params)
    assert problem.derived_names[1:] == ("sLy", "ratio")
    good = check(problem, problem.prior.sample(1500, rng))
    assert 0.2 < good.mean() < 0.8
    nowhere = problem.prior.sample(3, rng)
    nowhere[:, problem.names.index("x")] = 3.0
    assert np.isneginf(problem.loglikelihood_batch(nowhere)).all()


def test_outside_the_range_of_the_signal(rng):
    problem = make()
    theta = problem.prior.sample(5, rng)
    theta[3, 0] = 200.0
    with pytest.raises(InputError, match=r"fX is 200, outside the training range 0.001..100"):
        problem.loglikelihood_batch(theta)
    parts = problem.signal, problem.space, problem.likelihoods, problem.truth
    values = Problem(*parts, outside="nan").loglikelihood_batch(theta)
    assert np.isnan(values).tolist() == [False, False, False, True, False]
    check(Problem(*parts, outside="allow"), theta)
    theta[3, 0] = np.nan
    assert np.isnan(Problem(*parts, outside="nan").loglikelihood_batch(theta)[3])


def test_the_residual_of_a_far_signal_keeps_its_digits(rng):
    """Chi-square of a marginalised spectrum is then not a difference."""
    problem = make({"noise": {"sigma": 1e-4}, "foreground": {"terms": 3, "marginalise": True}})
    theta = problem.prior.sample(20, rng)
    assert problem.loglikelihood_batch(theta).max() < -1e7
    check(problem, theta)


def test_tables_and_lists_by_name(rng):
    problem = make()
    theta = problem.prior.sample(4, rng)
    before = theta.copy()
    frame = pd.DataFrame(theta, columns=problem.names)[list(problem.names[::-1])].assign(other="text")
    expected = problem.loglikelihood_batch(theta)
    np.testing.assert_array_equal(problem.loglikelihood_batch(frame), expected)
    np.testing.assert_array_equal(problem.loglikelihood_batch(theta.tolist()), expected)
    np.testing.assert_array_equal(theta, before)
    assert problem.loglikelihood_batch(theta[:0]).shape == (0,)
    with pytest.raises(InputError, match=r"theta is one point; expected \(n, 2\) numbers, or use loglikelihood"):
        problem.loglikelihood_batch(theta[0])
    with pytest.raises(InputError, match=r"theta has shape \(4, 1\); expected .* in the order fX, Tmin_vir"):
        problem.loglikelihood_batch(theta[:, :1])
    with pytest.raises(InputError, match="theta: no column Tmin_vir"):
        problem.loglikelihood_batch(frame[["fX"]])


class Twice(GlobalSignal):
    """Changes the call, and must not be evaluated by the batch of its base class."""

    def __call__(self, signal, values):
        return 2.0 * super().__call__(signal, values)


class Own:
    """Has a batch of its own."""

    outputs, names, params = ("tau", "signal"), ("fX",), {}

    def __init__(self, redshifts, **options):
        pass

    def __call__(self, tau, signal, values):
        return float(-tau - signal.min() - values[0])

    def loglikelihood_batch(self, tau, signals, values):
        assert len(tau) > 1
        return -tau - signals.min(axis=1) - values[:, 0]


def test_likelihoods_of_ones_own(rng):
    problem = make()
    (found,) = problem.likelihoods.values()
    twice = Twice(found.spectrum, problem.signal.redshifts, Noise(25.0))
    own = Problem(problem.signal, problem.space, {"global_signal": twice, "own": Own(None)}, {})
    theta = problem.prior.sample(6, rng)
    check(own, theta)
    _, derived = own.loglikelihood_batch(theta, return_derived=True)
    np.testing.assert_allclose(derived[:, 0], 2 * problem.loglikelihood_batch(theta), rtol=1e-12)
