"""The insertion-index test: perfect runs pass, runs with correlated points fail, merged runs are one run."""

import numpy as np
import pytest
from anesthetic import NestedSamples
from anesthetic.utils import compute_insertion_indexes
from helpers import problem_of
from scipy.stats import kstest

from lstmfit.analysis.insertion import SMALL, insertion_p, insertion_ranks
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.polychord.settings import PolyChordSettings


def perfect_run(rng, n_live, steps, stuck=0.0):
    """Nested sampling of ln L = -x, x uniform in 0..X; a point is `stuck` with that chance to a live one."""
    live = [(-x, -np.inf) for x in rng.uniform(size=n_live)]
    dead = []
    for _ in range(steps):
        live.sort()
        contour = live[0][0]
        dead.append(live.pop(0))
        x = rng.uniform(0, -contour)
        if rng.uniform() < stuck:
            # Steps that are too short: close to a point that is well inside.
            x = -live[rng.integers(len(live) // 2, len(live))][0] * rng.uniform(0.99, 1.0)
        live.append((-x, contour))
    return np.array(sorted(dead + live))


def p_value(table):
    return insertion_p(NestedSamples(data=table[:, :1], columns=["x"], logL=table[:, 0], logL_birth=table[:, 1]))


def test_ranks_are_those_of_anesthetic(rng):
    table = perfect_run(rng, 30, 200)
    ranks, n_live = insertion_ranks(table[:, 0], table[:, 1])
    order = np.argsort(table[:, 1], kind="stable")
    born = order[np.isfinite(table[order, 1])]
    np.testing.assert_array_equal(ranks, compute_insertion_indexes(table[:, 0], table[:, 1])[born])
    assert set(n_live) == {30}


def test_perfect_runs_have_uniform_p_values(rng):
    single = [p_value(perfect_run(rng, 25, 250)) for _ in range(150)]
    assert kstest(single, "uniform").pvalue > 0.01


def test_merged_runs_have_uniform_p_values(rng):
    """Of different numbers of live points and of different lengths, as parallel runs are merged."""
    parts = [(12, 150), (20, 250), (13, 100)]
    runs = [np.concatenate([perfect_run(rng, *part) for part in parts]) for _ in range(150)]
    merged = [p_value(table[np.argsort(table[:, 0])]) for table in runs]
    assert kstest(merged, "uniform").pvalue > 0.01


def test_points_that_stick_to_live_ones_are_noticed(rng):
    assert p_value(perfect_run(rng, 50, 1500, stuck=0.3)) < SMALL
    parts = [perfect_run(rng, 25, 750, stuck=0.3) for _ in range(2)]
    table = np.concatenate(parts)
    assert p_value(table[np.argsort(table[:, 0])]) < SMALL


def test_there_is_none_without_births():
    table = perfect_run(np.random.default_rng(1), 30, 0)
    assert p_value(table) is None
    from anesthetic import MCMCSamples

    assert insertion_p(MCMCSamples(data=np.ones((5, 1)), columns=["x"], logL=np.ones(5))) is None


def gaussian(theta):
    return -0.5 * float(np.sum(((theta - 0.5) / 0.03) ** 2))


def polychord(folder, d, num_repeats, seed, loglikelihood=gaussian):
    names = tuple(f"x{i}" for i in range(d))
    settings = PolyChordSettings(n_live=60, num_repeats=num_repeats, seed=seed)
    run_polychord(problem_of(loglikelihood, lambda cube: cube.copy(), names), folder, "chain", settings)
    from lstmfit.analysis.chains import read_samples

    return insertion_p(read_samples(folder / "chain"))


def test_polychord_passes_with_enough_repeats(tmp_path):
    values = [polychord(tmp_path / str(seed), 2, 6, seed) for seed in range(8)]
    assert min(values) > SMALL
    assert kstest(values, "uniform").pvalue > 0.001


@pytest.mark.slow
def test_polychord_fails_with_too_few_repeats(tmp_path):
    """A twisted valley in eight dimensions, one slice for each new point: it stays where it came from."""

    def rosenbrock(theta):
        x = 10.0 * theta - 5.0
        return -float(np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2))

    few = [polychord(tmp_path / f"1-{seed}", 8, 1, seed, rosenbrock) for seed in range(3)]
    assert min(few) < SMALL
