"""Errors of means: merged runs whose points are correlated, as of synthetic runs and of PolyChord."""

import numpy as np
import pytest
from gaussian import NAMES, make_gaussian, settings

from lstmfit.analysis.autocorrelation import effective_sizes
from lstmfit.analysis.chains import read_samples
from lstmfit.analysis.compare import compare
from lstmfit.analysis.reweight import effective_size
from lstmfit.sampling.mean_errors import mean_inflation
from lstmfit.sampling.polychord.jobs import run_jobs

N_RUNS, N, D = 8, 300, 5


def correlated_runs(rng, share):
    """Points of standard normal runs that share a part of their variance, and smooth weights.

    A run of n points moves together with a variance `share` / n, so that its mean has 1 + `share` times the variance of
    that of independent points.
    """
    common = rng.normal(size=(N_RUNS, 1, D)) * np.sqrt(share / N)
    x = (rng.normal(size=(N_RUNS, N, D)) + common).reshape(-1, D)
    weights = np.tile(np.exp(-0.5 * np.linspace(-3, 3, N) ** 2), N_RUNS)
    return x, weights, np.repeat(np.arange(N_RUNS), N)


def scatter_over_quoted(share, known=True):
    """Rms of (mean - truth) / error over seeds and parameters; without the inflation if not `known`."""
    pulls = []
    for seed in range(60):
        x, weights, runs = correlated_runs(np.random.default_rng(seed), share)
        w = weights / weights.sum()
        mean = w @ x
        error = np.sqrt(w @ (x - mean) ** 2 * np.sum(w**2))
        factor = mean_inflation(x, weights, runs, D) if known else 1.0
        pulls.append(mean / (error * factor))
    return np.sqrt(np.mean(np.square(pulls)))


@pytest.mark.parametrize("share", [0.0, 3.0, 10.0])
def test_means_scatter_as_quoted(share):
    """Over 60 seeds and 5 parameters, the rms is known to 4 %; the correlation makes it sqrt(1 + share) without."""
    # The effective size of a smooth weight is 0.6 of the points, whose common part it leaves alone.
    kish = 0.6
    assert scatter_over_quoted(share) == pytest.approx(0.97, abs=0.13)
    assert scatter_over_quoted(share, known=False) == pytest.approx(np.sqrt(1 + share * kish), rel=0.13)


def test_factors_do_not_depend_on_the_space():
    x, weights, runs = correlated_runs(np.random.default_rng(1), 10.0)
    factors = mean_inflation(x, weights, runs, D)
    np.testing.assert_allclose(mean_inflation(10.0**x, weights, runs, D), factors)
    assert (factors >= 1).all()
    assert mean_inflation(x, weights, np.zeros(len(x)), D) is None


def test_a_parameter_that_drifts_has_a_larger_factor():
    x, weights, runs = correlated_runs(np.random.default_rng(2), 0.0)
    x[:, 0] += np.random.default_rng(3).normal(size=N_RUNS)[runs] * np.sqrt(30.0 / N)
    factors = mean_inflation(x, weights, runs, D)
    assert factors.argmax() == 0
    assert factors[0] > 2


def sampled(folder, **changes):
    run_jobs(make_gaussian, settings(**changes), folder, jobs=1)
    return read_samples(folder / "chain")


def test_polychord_with_one_repeat_has_larger_errors(tmp_path):
    """One slice per point leaves a correlation that many slices do not; derived parameters have a factor as well."""
    few, many = (sampled(tmp_path / str(n), n_live=120, num_repeats=n, precision_criterion=0.01) for n in (1, 40))
    found = [np.sqrt(effective_size(s.get_weights()) / effective_sizes(s, [*NAMES, "total"])[0]) for s in (few, many)]
    assert found[0].min() > 2
    assert found[1].max() < 2
    compared = compare(few, many, NAMES)
    assert compared["notes"] == []
    assert compared["ess_a"] < 0.25 * effective_size(few.get_weights())
    # The errors of D_KL include it as well; the estimates do not change.
    unknown = few.copy()
    unknown.attrs["mean_inflation"] = None
    independent = compare(unknown, many, NAMES)
    for key in ("D_KL", "D_KL_reverse", "D_KL_gaussian", "D_KL_gaussian_reverse"):
        assert compared[key] == independent[key]
        assert compared[f"{key}_err"] > 1.3 * independent[f"{key}_err"]


def test_a_single_run_does_not_know_its_errors(tmp_path):
    """Then they are those of independent points, and the comparison says so."""
    one = sampled(tmp_path, n_live=15)
    assert one.attrs["mean_inflation"] is None
    sizes, _ = effective_sizes(one, NAMES)
    assert sizes == pytest.approx(effective_size(one.get_weights()))
    notes = compare(one, one, NAMES)["notes"]
    assert [note[:2] for note in notes] == ["A:", "B:"]
    assert all("assume that its points are independent" in note for note in notes)
