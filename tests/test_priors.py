"""Priors against scipy.stats, and their error messages."""

import numpy as np
import pytest
from scipy import stats

from lstmfit.errors import InputError
from lstmfit.priors import Prior, make_distribution

CASES = [
    ({"min": -1.0, "max": 3.0}, stats.uniform(-1, 4)),
    ({"dist": "loguniform", "min": 1e-3, "max": 1e2}, stats.loguniform(1e-3, 1e2)),
    ({"dist": "norm", "loc": 0.054, "scale": 0.007}, stats.norm(0.054, 0.007)),
    ({"dist": "truncnorm", "loc": 1.0, "scale": 2.0, "min": 0.0, "max": 2.0}, stats.truncnorm(-0.5, 0.5, 1, 2)),
    ({"dist": "truncnorm", "loc": 0.0, "scale": 1.0, "min": 6.0, "max": 9.0}, stats.truncnorm(6, 9)),
    ({"dist": "truncnorm", "loc": 0.0, "scale": 1.0, "min": 2.0}, stats.truncnorm(2, np.inf)),
]


@pytest.mark.parametrize(("spec", "reference"), CASES)
def test_agrees_with_scipy(spec, reference):
    prior = make_distribution(spec)
    u = np.linspace(0.001, 0.999, 101)
    np.testing.assert_allclose(prior.ppf(u), reference.ppf(u), rtol=1e-9)
    x = reference.ppf(u)
    np.testing.assert_allclose(prior.logpdf(x), reference.logpdf(x), rtol=1e-9, atol=1e-9)


def test_density_is_zero_outside_the_support():
    for spec, _ in CASES[:2] + CASES[3:]:
        prior = make_distribution(spec)
        low, high = prior.support
        assert np.isneginf(prior.logpdf(low - 1.0))
        assert np.isinf(high) or np.isneginf(prior.logpdf(high + 1.0))


def test_joint_prior_keeps_the_order_and_its_input():
    prior = Prior({"b": make_distribution(CASES[0][0]), "a": make_distribution(CASES[1][0])}, {"a": r"\alpha"})
    cube = np.array([0.25, 0.5])
    theta = prior.transform(cube)
    assert prior.names == ("b", "a")
    assert prior.latex == {"b": "b", "a": r"\alpha"}
    np.testing.assert_allclose(theta, [0.0, np.sqrt(1e-3 * 1e2)])
    np.testing.assert_array_equal(cube, [0.25, 0.5])
    expected = stats.uniform(-1, 4).logpdf(0.0) + stats.loguniform(1e-3, 1e2).logpdf(theta[1])
    assert prior.logpdf(theta) == pytest.approx(expected)


def test_samples_follow_the_prior():
    prior = Prior({str(i): make_distribution(spec) for i, (spec, _) in enumerate(CASES)})
    draws = prior.sample(5000, np.random.default_rng(3))
    for column, (_, reference) in zip(draws.T, CASES):
        assert stats.kstest(column, reference.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"min": 1.0, "max": 1.0}, "needs a width"),
        ({"dist": "loguniform", "min": 0.0, "max": 1.0}, "min > 0"),
        ({"dist": "normal", "loc": 0.0, "scale": 1.0}, "did you mean 'norm'"),
        ({"dist": "levi_civita"}, "known are uniform"),
        ({"dist": "norm", "loc": 0.0, "scale": -1.0}, "scale > 0"),
        ({"dist": "norm", "loc": 0.0}, "needs scale"),
        ({"min": "1e-3x", "max": 1.0}, "needs a number"),
        ({"min": 0.0, "max": 1.0, "width": 3}, "has no 'width'"),
        ({"dist": "truncnorm", "loc": 0.0, "scale": 1e-3, "min": 5.0, "max": 6.0}, "wholly outside"),
    ],
)
def test_bad_priors_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make_distribution(spec)


def test_no_free_parameter_is_refused():
    with pytest.raises(InputError, match="nothing to sample"):
        Prior({})
