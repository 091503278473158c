"""A likelihood of one's own: what docs/own_likelihood.py shows, and a test to copy with it."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lstmfit.config import load
from lstmfit.errors import InputError
from lstmfit.problem import build

DOCS = Path(__file__).parents[2] / "docs"
NAME = "own_likelihood.TroughDepth"
THETA = {"fX": 0.1, "fLy": 1.0, "fesc": 0.05, "Tmin_vir": 1e4, "tstar": 0.5, "sLy": 2.64, "wX": 1.5}


@pytest.fixture
def make(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)

    def make(options, **more):
        run = {
            "emulator": "echo21",
            "data": {"mock": {"theta": THETA, "from": "emulator", "noise": 25, "seed": 1}},
            "likelihood": {"global_signal": {"noise": {"sigma": 25}}, NAME: options},
        }
        return build(load(run | more))

    return make


def test_it_agrees_with_the_formula_and_brings_its_parameter(make, rng):
    problem = make({"depth": -150.0, "err": 20.0})
    assert problem.names[-1] == "gain"
    theta = problem.prior.sample(1, rng)[0]
    total, derived = problem.loglikelihood(theta)
    signal = problem.signal(problem.signal_parameters(theta))
    expected = stats.norm(-150.0, 20.0).logpdf(theta[-1] * signal.min())
    assert derived[1] == pytest.approx(expected, rel=1e-6)
    assert total == pytest.approx(derived[0] + derived[1], rel=1e-12)
    assert problem.derived_names[1] == "loglike_own_likelihood_TroughDepth"


def test_its_prior_can_be_changed_and_its_mock_lies_at_the_truth(make):
    problem = make({"depth": 0.0, "err": 20.0, "mock": True}, params={"gain": 1.0})
    assert "gain" not in problem.names
    truth = np.array([THETA[name] for name in problem.names])
    _, derived = problem.loglikelihood(truth)
    assert derived[1] == pytest.approx(stats.norm.logpdf(0.0) - np.log(20.0), rel=1e-9)


def test_its_mistakes_are_the_users(make):
    with pytest.raises(InputError, match=r"likelihood own_likelihood.TroughDepth: missing a required argument: 'err'"):
        make({"depth": -150.0})
    with pytest.raises(InputError, match=r"likelihood own_likelihood.TroughDepth: err is -1"):
        make({"depth": -150.0, "err": -1})
    with pytest.raises(InputError, match="mock needs the true gain; fix it: gain: VALUE"):
        make({"depth": 0.0, "err": 20.0, "mock": True})


class WritesIntoTheSignal:
    """A mistake that would spoil what other likelihoods, and the next call that keeps the signal, are handed."""

    outputs, names = ("signal",), ("offset",)
    params = {"offset": {"prior": {"min": -1.0, "max": 1.0}}}  # noqa: RUF012

    def __init__(self, redshifts, /):
        pass

    def __call__(self, signal, values):
        signal -= values[0]
        return -0.5 * float(signal @ signal)


@pytest.mark.parametrize("offset", [0.5, {"prior": {"min": -1.0, "max": 1.0}}])
def test_the_signal_cannot_be_written_into(offset, rng):
    name = f"{__name__}.{WritesIntoTheSignal.__name__}"
    run = {
        "emulator": "echo21",
        "data": {"mock": {"theta": THETA, "from": "emulator", "noise": 25, "seed": 1}},
        "likelihood": {"global_signal": {"noise": {"sigma": 25}}, name: {}},
        "params": {"offset": offset},
    }
    problem = build(load(run))
    with pytest.raises(ValueError, match="read-only"):
        problem.loglikelihood(problem.prior.sample(1, rng)[0])
