"""One tolerance for every range check, whatever the signs and magnitudes; calls outside the training range."""

import math
import sys
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import PARAMETERS, draw_theta, random_network

from lstmfit import Emulator
from lstmfit.checks import check_run
from lstmfit.config import load
from lstmfit.errors import InputError
from lstmfit.parameter_space import _check_range, natural_prior
from lstmfit.parameters import Parameter, check_name, is_inside, widened
from lstmfit.priors import make_distribution
from lstmfit.problem import Problem, build

THETA = {"fX": 0.1, "fLy": 1.0, "fesc": 0.05, "Tmin_vir": 1e4, "tstar": 0.5, "sLy": 2.64, "wX": 1.5}

numbers = st.floats(-1e90, 1e90).filter(lambda x: x == 0 or abs(x) > 1e-90)


@st.composite
def ranges(draw):
    """Linear ranges of both signs and any magnitude, and logarithmic ones."""
    if draw(st.booleans()):
        low, high = sorted(10.0 ** draw(st.floats(-80, 80)) for _ in range(2))
        log = True
    else:
        low, high = sorted(draw(numbers) for _ in range(2))
        log = False
    assume(low < high)
    return low, high, log


class Config:
    extrapolate, signal, simulator = False, None, None


@given(ranges(), st.floats(0.0, 1.0))
def test_a_range_contains_its_ends_and_what_is_between(given_range, u):
    low, high, log = given_range
    parameter = Parameter("p", low, high, log)
    between = low * (high / low) ** u if log else low + u * (high - low)
    assert parameter.is_inside([low, high, between]).all()
    # The prior over the range itself, and the range written with ten digits.
    _check_range(Config, parameter, *natural_prior(parameter).support, "prior")
    if high - low > 1e-6 * max(abs(low), abs(high)):
        assert parameter.is_inside([float(f"{end:.16g}") for end in (low, high)]).all()


@given(ranges())
def test_what_lies_beyond_is_outside(given_range):
    low, high, log = given_range
    parameter = Parameter("p", low, high, log)
    step = 1e-6 * (high - low)
    assume(low - step < low and high + step > high and step > 1e-14 * max(abs(low), abs(high)))
    beyond = (low / (1 + 1e-6), high * (1 + 1e-6)) if log else (low - step, high + step)
    assert not parameter.is_inside(beyond).any()
    for ends in ((beyond[0], high), (low, beyond[1])):
        with pytest.raises(InputError, match=r"the prior of p spans .* narrow the prior"):
            _check_range(Config, parameter, *ends, "prior")


@given(ranges())
def test_widened_moves_outwards(given_range):
    low, high, log = given_range
    wide = widened(low, high, log)
    assert wide[0] <= low < high <= wide[1]
    assert not is_inside(math.nan, low, high, log)
    assert widened(-math.inf, math.inf) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "not a valid name"),
        ({"name": "x" * 300}, "at most 64 letters"),
        ({"name": "fX\x00"}, "not a valid name"),
        ({"name": "1a"}, "do not start with a digit"),
        ({"name": 3}, "not a valid name"),
        ({"min": float("nan")}, "p: min: nan is not a finite number"),
        ({"max": float("inf")}, "p: max: inf is not a finite number"),
        ({"max": True}, "p: max: True is not a number"),
        ({"min": 3.0}, r"the range 3..2 is empty"),
        ({"log": 1}, "log is 1; give true or false"),
        ({"unit": 5}, "unit is 5; give text"),
        ({"zero": 1e-6}, "requires log: true and zero > 0"),
        ({"log": True, "min": -1.0}, "needs min > 0"),
    ],
)
def test_impossible_parameters(changes, message):
    with pytest.raises(InputError, match=message) as error:
        Parameter(**({"name": "p", "min": 1.0, "max": 2.0} | changes))
    assert len(str(error.value)) < 400


def test_names_of_columns():
    for name in ("fX", "a0", "_x", "log10_L_X", "x" * 64):
        assert check_name(name) == name
    for name in ("", "x-y", "a,b", "a\n", "σ", "a%", "x" * 65, None):
        with pytest.raises(InputError, match="not a valid name"):
            check_name(name)


NEGATIVE = """
import numpy as np
from lstmfit.parameters import Parameter
from lstmfit.simulators import History


class Toy:
    name, version = "toy", "1"
    redshifts = np.linspace(5, 50, 451)
    parameters = (Parameter("nu0", 60.0, 100.0), Parameter("lgA", -3.0, -0.5))

    def __call__(self, theta):
        nu = 1420.405751768 / (1 + self.redshifts)
        nu0, lgA = (theta[p.name] for p in self.parameters) if isinstance(theta, dict) else theta
        signal = -1000 * 10**lgA * np.exp(-0.5 * ((nu - nu0) / 8) ** 2)
        return History(self.redshifts, signal, np.zeros(451), 0.05)
"""


def test_a_range_below_zero_in_a_run(tmp_path, monkeypatch):
    (tmp_path / "negative_toy.py").write_text(NEGATIVE)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = {
        "simulator": "negative_toy:Toy",
        "data": {"mock": {"theta": {"nu0": 78, "lgA": -0.9}, "from": "simulator", "noise": 25, "seed": 1}},
        "likelihood": {"global_signal": {"noise": {"sigma": 25}}},
    }
    try:
        assert check_run(run, 20)["finite_fraction"] == 1.0
        with pytest.raises(InputError, match=r"lgA spans -3.1..-0.5, but the simulator is made for -3..-0.5"):
            build(load(run | {"params": {"lgA": {"prior": {"min": -3.1, "max": -0.5}}}}))
        with pytest.raises(InputError, match=r"the value of lgA is -0.4"):
            build(load(run | {"params": {"lgA": -0.4}}))
    finally:
        sys.modules.pop("negative_toy", None)


@pytest.fixture
def emulator(rng):
    return Emulator(*random_network(rng), np.linspace(5, 50, 45), PARAMETERS, name="toy")


def test_an_emulator_warns_once(emulator, rng):
    theta = draw_theta(rng, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        emulator(theta)
        emulator([1e-2, 1.0, 3.0])
        # Rounding at the ends.
        emulator([1e-2 * (1 - 1e-12), 1.0 + 1e-12, 3.0])
    theta[2, 1] = -1.5
    with pytest.warns(UserWarning, match=r"toy: b is -1.5, outside the training range -1..1: the emulator extrap"):
        out = emulator(theta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(emulator(theta), out)
        np.testing.assert_array_equal(emulator(theta, outside="allow"), out)


def test_an_emulator_refuses_or_gives_nan(emulator, rng):
    theta = draw_theta(rng, 4)
    expected = emulator(theta)
    theta[2, 1] = -1.5
    for call in (emulator, emulator.histories, emulator.jacobian):
        with pytest.raises(InputError, match=r"toy: b is -1.5, outside the training range .* use outside"):
            call(theta, outside="raise")
    out = emulator(theta, outside="nan")
    assert np.isnan(out[2]).all()
    np.testing.assert_array_equal(out[[0, 1, 3]], expected[[0, 1, 3]])
    assert np.isnan(emulator(theta[2], outside="nan")).all()
    with pytest.raises(InputError, match="outside is 'stop'; expected one of warn, raise, nan, allow"):
        emulator(theta, outside="stop")


def problem(noise="free", **top):
    run = {
        "emulator": "echo21",
        "data": {"mock": {"theta": THETA, "from": "emulator", "noise": 25, "seed": 2}},
        "likelihood": {"global_signal": {"noise": {"sigma": noise}}},
    }
    return build(load(run | top))


@pytest.mark.parametrize("noise", [25, "free"])
def test_a_problem_refuses_what_its_emulator_was_not_trained_on(noise, rng):
    made = problem(noise)
    theta = made.prior.sample(2, rng)
    inside = made.loglikelihood_batch(theta)
    theta[1, 0] = 200.0
    for call in (lambda: made.loglikelihood(theta[1]), lambda: made.loglikelihood_batch(theta)):
        with pytest.raises(InputError, match=r"echo21: fX is 200, outside the training range 0.001..100; .*extrap"):
            call()
    parts = made.signal, made.space, made.likelihoods, made.truth
    nan = Problem(*parts, outside="nan")
    assert np.isnan(nan.loglikelihood(theta[1])[0])
    values, derived = nan.loglikelihood_batch(theta, return_derived=True)
    assert values[0] == inside[0]
    assert np.isnan(values[1])
    assert np.isnan(derived[1]).all()
    assert np.isfinite(Problem(*parts, outside="allow").loglikelihood(theta[1])[0])
    assert np.isfinite(problem(noise, extrapolate=True).loglikelihood(theta[1])[0])
    with pytest.raises(InputError, match="outside is 'ignore'"):
        Problem(*parts, outside="ignore")


def test_priors_of_cobaya_and_scipy_in_their_own_keys():
    same = [
        ({"dist": "loguniform", "a": 1e-3, "b": 10.0}, {"dist": "loguniform", "min": 1e-3, "max": 10.0}),
        ({"dist": "uniform", "loc": -2.0, "scale": 3.0}, {"min": -2.0, "max": 1.0}),
        ({"dist": "truncnorm", "loc": 1.0, "scale": 2.0, "a": -0.5, "b": 0.5},
         {"dist": "truncnorm", "loc": 1.0, "scale": 2.0, "min": 0.0, "max": 2.0}),
    ]  # fmt: skip
    for theirs, ours in same:
        assert make_distribution(theirs) == make_distribution(ours)
    with pytest.raises(InputError, match="either min and max or a and b; got a, min"):
        make_distribution({"dist": "loguniform", "a": 1.0, "min": 2.0})
