"""Pareto-smoothed weights over all scales: against ArviZ, monotonic, and never trusted where they are one point."""

import json
import math
import warnings

import numpy as np
import pytest

from lstmfit.analysis.bias import bias_lines, reweighted, verdict
from lstmfit.analysis.coverage import _emulation, read_mocks
from lstmfit.analysis.reweight import LEAST_SIZE, effective_size, k_hat_limit, pareto_smooth
from lstmfit.errors import InputError

NAMES = ["a", "b"]
SCALES = [1e-12, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 3.0, 5.0, 20.0, 60.0, 300.0, 1e3, 1e4, 1e6]

# k-hat of arviz.psislw, ArviZ 0.23.4, for s * numpy.random.default_rng(0).standard_normal(400).
ARVIZ = {
    1e-9: -0.02385435815693214,
    1e-3: -0.023494116493861076,
    1.0: 0.3295190826787566,
    5.0: 1.7644750858080525,
    20.0: 6.538489423430305,
    60.0: 18.023576068276817,
    300.0: 87.24918052224474,
    1e4: math.inf,
    1e6: math.inf,
}
# The same function's log weights of the 8 largest of s = 1, normalised, ascending.
WEIGHTS = [
    *(-4.4064855261949445, -4.345343748739489, -4.27500605017168, -4.191869961831016),
    *(-4.089636536407034, -3.9556528095903056, -3.757588930869758, -3.3876993591967057),
]


def draws(n=400, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize(("scale", "k"), ARVIZ.items())
def test_k_hat_is_that_of_arviz_at_every_scale(scale, k):
    got = pareto_smooth(scale * draws())[1]
    # Where ratios hardly differ ArviZ takes differences of exponentials and loses digits; ours are all good.
    assert got == k or got == pytest.approx(k, rel=1e-6, abs=1e-4 if scale < 1e-6 else 0.0)


def test_smoothed_weights_are_those_of_arviz():
    got = pareto_smooth(draws())[0]
    got = got - np.logaddexp.reduce(got)
    np.testing.assert_allclose(np.sort(got)[-8:], WEIGHTS, rtol=1e-10)


@pytest.mark.parametrize("n", [25, 60, 400, 5000])
@pytest.mark.parametrize("scale", SCALES)
def test_against_arviz_itself(n, scale):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz

        x = scale * draws(n, seed=n)
        weights, k = (np.asarray(v) for v in arviz.psislw(x.copy()))
    got, got_k = pareto_smooth(x)
    np.testing.assert_allclose(np.exp(got - np.logaddexp.reduce(got)), np.exp(weights), atol=1e-12)
    assert got_k == k or got_k == pytest.approx(float(k), rel=1e-6, abs=2e-3 if scale < 1e-9 else 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_k_hat_grows_with_the_scale_and_knows_no_offset(seed):
    x = draws(seed=seed)
    k = [pareto_smooth(s * x)[1] for s in SCALES]
    # Equal weights have the tail of the normal; whatever varies more has a heavier one.
    # Beyond 300 ever fewer points are more than zero beside the largest.
    assert (np.diff(np.minimum(k, 20.0)) > -1e-3).all()
    assert k[0] == pytest.approx(k[2], abs=1e-3)
    assert min(k[SCALES.index(5.0) :]) > 1.0
    assert k[-1] == math.inf
    for offset in (-1e5, 1e3):
        assert pareto_smooth(x + offset)[1] == pytest.approx(pareto_smooth(x)[1], abs=1e-6)


def test_ties_are_those_of_the_weights():
    x = draws()
    assert pareto_smooth(np.full(400, -31.7))[1] == 0.0
    # Equal but for the rounding of two large log-likelihoods.
    assert pareto_smooth(-12345.678 + 1e-12 * x)[1] == 0.0
    cut = np.minimum(x, np.sort(x)[300])
    assert pareto_smooth(cut)[1] == 0.0
    # All the rest is nothing beside a few points, which is not a tie.
    few = np.full(400, -5000.0)
    few[:3] = 0.0, -0.1, -0.2
    assert pareto_smooth(few)[1] == math.inf
    assert pareto_smooth(np.where(np.arange(400) == 7, 0.0, -np.inf))[1] == math.inf
    assert pareto_smooth(np.full(400, -np.inf))[1] == math.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_ratio_is_refused(bad):
    x = draws()
    x[3] = bad
    with pytest.raises(InputError, match=r"1 of 400 log ratios are NaN or \+inf"):
        pareto_smooth(x)
    with pytest.raises(InputError, match=r"1 of 400 log ratios are NaN or \+inf"):
        reweighted(np.ones((400, 2)), np.full(400, 1 / 400), x, NAMES)


def judged(x, base, ratio):
    """Figures and verdict; none, and no trust, where one point is left exactly."""
    try:
        got = reweighted(x, base, ratio, NAMES) | {"failures": {"n": 0, "first": None}}
    except InputError as error:
        if "a single one of" not in str(error):
            raise
        return None, {"trusted": False}
    return got, verdict(got)


@pytest.mark.parametrize("n", [25, 50, 200, 1000])
@pytest.mark.parametrize("scale", SCALES)
def test_what_is_trusted_has_a_sample_behind_it(n, scale):
    """Over 18 decades of the emulator's error: trusted only where the reweighted mean is right."""
    rng = np.random.default_rng(n)
    for _ in range(10):
        x = rng.standard_normal((n, 2))
        got, said = judged(x, np.full(n, 1 / n), scale * x[:, 0])
        if got is not None:
            assert all(np.isfinite(p["bias"]) for p in got["parameters"].values())
        if said["trusted"]:
            assert got["ess"] >= LEAST_SIZE
            # exp(s a) moves a standard normal by s.
            p = got["parameters"]["a"]
            assert abs(p["shift"] + scale) < 5 * p["bias_err"] + 0.15 * scale
        if scale >= 5:
            assert not said["trusted"]
        if scale <= 0.1:
            assert said["trusted"]


def test_one_point_is_no_posterior():
    x = draws(100)[:, None] * [1.0, 1.0]
    with pytest.raises(InputError, match=r"single one of 100 points .* has no width: .* run a direct fit"):
        reweighted(x, np.full(100, 0.01), 1e6 * x[:, 0], NAMES)


def test_the_report_of_a_hopeless_emulator(rng):
    x = rng.standard_normal((50, 2))
    got, said = judged(x, np.full(50, 0.02), 15.0 * x[:, 0])
    assert not said["trusted"]
    assert "only a lower limit" in said["text"]
    line = bias_lines(got | {"verdict": said})[1]
    assert "effective sample size" in line
    assert "k-hat" in line


def test_a_single_heavy_point_of_the_chain_is_not_trusted(rng):
    """Its own weights, not the ratios, leave one point: the ratios alone cannot tell."""
    x, base = rng.standard_normal((100, 2)), np.full(100, 1e-4)
    base[0] = 1.0 - base[1:].sum()
    got, said = judged(x, base, 1e-3 * x[:, 0])
    assert got["efficiency"] > 0.99
    assert not said["trusted"]
    assert "effective sample size 1.0 of 100, below 10" in said["text"]


def test_calibrations_of_the_first_version_are_judged_again():
    mock = {"shift": {"a": 0.1}, "D_KL": 0.1, "trusted": True, "ess": 1.2}
    assert _emulation([mock, mock | {"ess": 150.0}], ["a"])["trusted"] == 0.5


def test_effective_size_has_no_scale(rng):
    w = rng.exponential(size=100)
    for factor in (1e-300, 1e-170, 1e150, 1e300):
        assert effective_size(factor * w) == pytest.approx(effective_size(w), rel=1e-12)
    assert effective_size(np.ones(7)) == 7.0
    assert k_hat_limit(25) < k_hat_limit(500) < 0.7


GOOD = {"rank": {"a": 0.4}, "z": {"a": 0.1}, "std": {"a": 1.0}, "chi2": 1.0, "ess": 100.0, "theta": [1.0]}


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"rank": {"a": "x"}}', json.dumps(GOOD | {"z": {"b": 1}}), json.dumps(GOOD | {"rank": []}),
     json.dumps(GOOD | {"rank": {"b": 0.1}, "z": {"b": 0.1}}), json.dumps(GOOD | {"chi2": "1"}), '{"failed": 3}',
     json.dumps(GOOD | {"emulation": {"shift": {"b": 1.0}, "D_KL": 0.1, "ess": 3.0, "trusted": True}}),
     json.dumps(GOOD | {"emulation": {"shift": {"a": None}}}), json.dumps(GOOD | {"emulation": 3})],
)  # fmt: skip
def test_damaged_mocks_of_a_calibration_are_one_line(tmp_path, content):
    folder = tmp_path / "mocks"
    folder.mkdir()
    (folder / "00000.json").write_text(json.dumps(GOOD))
    (folder / "00001.json").write_text(content)
    with pytest.raises(InputError, match=r"00001.json (is|has) .*; remove it and repeat the command") as found:
        read_mocks(tmp_path)
    assert len(str(found.value)) < 400
    (folder / "00001.json").write_text(json.dumps({"failed": "no star", "theta": [1.0]}))
    (folder / "notes.json").write_text("mine")
    assert [m.get("failed") for m in read_mocks(tmp_path)] == [None, "no star"]
