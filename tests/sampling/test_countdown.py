"""What a run says of how long it still takes."""

import math

import numpy as np
import pytest

from lstmfit.console import progress_text
from lstmfit.sampling.countdown import Countdown
from lstmfit.sampling.result import Progress


def perfect_run(rng, n_live, d, precision, width=0.01):
    """Nested sampling of a Gaussian in a unit ball, without a sampler: a new point fills the contour's ball evenly."""
    log_volume = np.log(rng.uniform(size=n_live))
    log_live, log_dead, folds, states = math.inf, -math.inf, 0.0, []

    def logL(x):
        return -0.5 * (np.exp(x / d) / width) ** 2

    while True:
        values = logL(log_volume)
        log_live = np.logaddexp.reduce(values) - math.log(n_live) - folds
        states.append((folds, values, log_live - log_dead))
        if log_live - log_dead < math.log(precision):
            return states
        worst = np.argmax(log_volume)
        log_dead = np.logaddexp(log_dead, values[worst] - folds - math.log(n_live))
        log_volume[worst] += math.log(rng.uniform())
        folds += 1.0 / n_live


@pytest.mark.parametrize(("d", "n_live"), [(2, 50), (7, 100), (7, 500)])
def test_what_is_left_is_a_bound_and_then_right(rng, d, n_live):
    states = perfect_run(rng, n_live, d, 1e-3)
    total, climbing = states[-1][0], []
    for state in states[:: n_live // 5]:
        countdown = Countdown(1e-3)
        countdown.update(*state)
        left = total - state[0]
        climbing.append(countdown.climbing)
        if countdown.climbing:
            assert 4.0 < countdown.folds_left < left + 0.5
        else:
            assert countdown.folds_left == pytest.approx(left, rel=0.25, abs=0.5)
    assert climbing[0]
    assert not climbing[-1]
    assert sorted(climbing, reverse=True) == climbing


def test_seconds_are_at_the_pace_of_the_last_updates(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    countdown = Countdown(1e-3)
    assert countdown.seconds() is None
    for folds in range(8):
        # Slow at first, then a fold in 2 s.
        now[0] += 20.0 if folds < 3 else 2.0
        countdown.update(float(folds), np.zeros(10), 0.0)
        assert (countdown.seconds() is None) == (folds == 0)
    left = math.log(1e3) - math.log(2.0)
    assert countdown.folds_left == pytest.approx(left)
    assert countdown.seconds() == pytest.approx(2.0 * left)
    now[0] += 3.0
    assert countdown.seconds() == pytest.approx(2.0 * left - 3.0)
    countdown.update(7.0, np.zeros(10), math.log(1e-3))
    assert countdown.folds_left == pytest.approx(0.0, abs=0.01)


def test_it_is_said_as_a_bound_while_it_is_one():
    facts = {"n_dead": 100, "n_like": 5000, "logZ": -10.0, "logZ_err": 0.2, "elapsed": 10.0}
    assert progress_text(Progress(**facts, remaining=75.0, climbing=True)).endswith("10 s   at least 1 min 15 s left")
    assert progress_text(Progress(**facts, remaining=75.0)).endswith("10 s   about 1 min 15 s left")
    assert progress_text(Progress(**facts)).endswith("10 s")
