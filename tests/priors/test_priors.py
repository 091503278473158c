"""Priors against scipy.stats, and their error messages."""

import numpy as np
import pytest
import yaml
from scipy import stats
from scipy.integrate import trapezoid

from lstmfit.emulator.emulator import Emulator
from lstmfit.errors import InputError
from lstmfit.priors import Prior, compile_expression, load_set, make_distribution
from lstmfit.priors.sets import shipped_sets

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
    np.testing.assert_allclose(prior.transform(np.stack([cube, 2 * cube**2])), [theta, prior.transform(2 * cube**2)])
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
        ({"min": 1.0, "max": 1.0}, "needs min < max"),
        ({"dist": "loguniform", "min": 0.0, "max": 1.0}, "min > 0"),
        ({"dist": "normal", "loc": 0.0, "scale": 1.0}, "did you mean 'norm'"),
        ({"dist": "levi_civita"}, "or one of uniform"),
        ({"dist": "norm", "loc": 0.0, "scale": -1.0}, "scale > 0"),
        ({"dist": "norm", "loc": 0.0}, "needs scale"),
        ({"min": "1e-3x", "max": 1.0}, "'1e-3x' is not a number"),
        ({"min": 0.0, "max": 1.0, "width": 3}, "has no key 'width'"),
        ({"dist": "truncnorm", "loc": 0.0, "scale": 1e-3, "min": 5.0, "max": 6.0}, "entirely outside"),
    ],
)
def test_bad_priors_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make_distribution(spec)


def test_a_prior_of_no_parameter(rng):
    prior = Prior({})
    assert len(prior) == 0
    assert prior.transform(np.empty(0)).shape == (0,)
    assert prior.sample(5, rng).shape == (5, 0)
    assert prior.logpdf(np.empty(0)) == 0.0


SCIPY = [
    ({"dist": "lognorm", "s": 0.5, "scale": 2.0}, stats.lognorm(0.5, scale=2.0)),
    ({"dist": "beta", "a": 2.0, "b": 3.0, "min": 1.0, "max": 5.0}, stats.beta(2, 3, 1, 4)),
    ({"dist": "gamma", "a": 2.0, "scale": 10.0}, stats.gamma(2, scale=10)),
    ({"dist": "cauchy", "loc": 1.0}, stats.cauchy(1)),
    ({"dist": "halfnorm", "scale": 3.0}, stats.halfnorm(scale=3)),
]


@pytest.mark.parametrize(("spec", "reference"), SCIPY)
def test_log_normal_and_any_of_scipys(spec, reference):
    prior = make_distribution(spec)
    u = np.linspace(0.001, 0.999, 51)
    np.testing.assert_allclose(prior.ppf(u), reference.ppf(u), rtol=1e-9)
    np.testing.assert_allclose(prior.logpdf(reference.ppf(u)), reference.logpdf(reference.ppf(u)), rtol=1e-9, atol=1e-9)
    assert prior.support == pytest.approx(reference.support())
    assert make_distribution(prior.spec()) == prior
    assert np.isneginf(prior.logpdf(-1.0)) or spec["dist"] == "cauchy"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dist": "gamma"}, "needs a; got nothing"),
        ({"dist": "gamma", "a": -1.0}, "not valid for a gamma prior"),
        ({"dist": "gamma", "a": 1.0, "scale": 0.0}, "scale > 0"),
        ({"dist": "beta", "a": 1.0, "b": 1.0, "min": 1.0}, "either min and max or loc and scale"),
        ({"dist": "beta", "a": 1.0, "b": 1.0, "min": 1.0, "max": 1.0}, "needs min < max"),
        ({"dist": "beta", "a": 1.0, "b": 1.0, "c": 1.0}, "has no key 'c'"),
        ({"dist": "poisson", "mu": 1.0}, "unknown prior distribution"),
        ({"dist": "lognorm", "s": 0.0}, "s > 0"),
    ],
)
def test_bad_priors_of_scipy_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make_distribution(spec)


def test_sorted_priors_are_order_statistics(rng):
    spec = {"dist": "loguniform", "min": 0.1, "max": 10.0}
    prior = Prior(
        {"b": make_distribution(spec), "x": make_distribution(CASES[2][0]), "a": make_distribution(spec)},
        sorted_groups={"pair": ["a", "b"]},
    )
    draws = prior.sample(20000, rng)
    assert (draws[:, 2] <= draws[:, 0]).all()
    expected = np.sort(stats.loguniform(0.1, 10.0).rvs((20000, 2), random_state=5), axis=1)
    for column, wanted in ((2, expected[:, 0]), (0, expected[:, 1])):
        assert stats.ks_2samp(draws[:, column], wanted).pvalue > 1e-3
    np.testing.assert_allclose(prior.transform(np.array([0.25, 0.5, 0.5]))[[0, 2]], [1.0, 0.1 * 100**0.25], rtol=1e-12)
    independent = stats.loguniform(0.1, 10.0).logpdf([2.0, 0.5]).sum() + stats.norm(0.054, 0.007).logpdf(0.05)
    assert prior.logpdf([2.0, 0.05, 0.5]) == pytest.approx(independent + np.log(2.0))
    assert np.isneginf(prior.logpdf([0.5, 0.05, 2.0]))
    marginal = prior.distributions["a"]
    x = np.geomspace(0.11, 9.9, 2001)
    assert trapezoid(np.exp(marginal.logpdf(x)), x) == pytest.approx(
        1 - (0.5 * np.log10(0.11 / 0.1)) * (2 - 0.5 * np.log10(1.1)) - (0.5 * np.log10(10 / 9.9)) ** 2, abs=2e-3
    )
    np.testing.assert_allclose(marginal.ppf(np.array([0.75])), [1.0], rtol=1e-9)
    with pytest.raises(InputError, match="two or more parameters with the same"):
        Prior({"a": make_distribution(spec), "b": make_distribution(CASES[2][0])}, sorted_groups={"p": ["a", "b"]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10**x", 100.0),
        ("2*x + y/4 - -1", 6.0),
        ("log10(x) + sqrt(y) * exp(0)", np.log10(2.0) + 2.0),
        ("max(x, y, 1) - min(x, y)", 2.0),
        ("pi * e", np.pi * np.e),
        ("1e2", 100.0),
        ("log(x - 2)", np.nan),
        ("x / (y - 4)", np.nan),
        ("(-x)**0.5", np.nan),
    ],
)
def test_expressions(text, expected):
    value = compile_expression(text, ("x", "y"))(np.array([2.0, 4.0]))
    assert value == pytest.approx(expected, nan_ok=True)
    assert type(value) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x +", "cannot be read"),
        ("z", "unknown name 'z'; the parameters are x, y"),
        ("open('f')", "unknown function 'open'"),
        ("x.real", "is not allowed"),
        ("[x]", "is not allowed"),
        ("lambda: x", "is not allowed"),
        ("x if y else 1", "is not allowed"),
        ("'text'", "is not allowed"),
        ("exp(x=1)", "is not allowed"),
        ("().__class__", "is not allowed"),
        ("x; y", "cannot be read"),
    ],
)
def test_expressions_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        compile_expression(text, ("x", "y"))


def test_parameter_sets_are_valid_and_found(tmp_path):
    assert set(shipped_sets()) == {"21cmgem", "ares", "echo21"}
    for name, count in (("21cmgem", 7), ("ares", 8), ("echo21", 7)):
        entries = load_set(name)
        assert len(entries) == count
        for entry in entries.values():
            make_distribution(entry["prior"])
            assert entry["latex"]
    (tmp_path / "bad.yaml").write_text("- fX\n")
    (tmp_path / "worse.yaml").write_text("a: [")
    for source, message in ((tmp_path / "bad.yaml", "not a mapping"), (tmp_path / "worse.yaml", "is not valid YAML")):
        with pytest.raises(InputError, match=message):
            load_set(source)
    with pytest.raises(InputError, match="did you mean '21cmgem'"):
        load_set("21cmGEN")
    assert load_set("21cmGEM") == load_set("21cmgem")


def test_parameter_sets_have_the_names_of_the_public_sets_of_signals():
    from importlib import resources

    presets = yaml.safe_load(resources.files("lstmfit.datasets").joinpath("presets.yaml").read_text(encoding="utf-8"))
    for name in ("21cmGEM", "ARES"):
        assert list(load_set(name)) == [p["name"] for p in presets[name]["parameters"]]
    for parameter in Emulator.load("echo21").parameters:
        prior = make_distribution(load_set("echo21")[parameter.name]["prior"])
        assert prior.support == pytest.approx((parameter.min, parameter.max), rel=1e-12)
        assert prior.log == parameter.log
