"""Optical depth, neutral fraction and luminosity functions: against scipy, numerical integrals and ECHO21 itself."""

import math

import mpmath as mp
import numpy as np
import pytest
from scipy import integrate, stats

from lstmfit.errors import InputError
from lstmfit.likelihoods import asymmetric, make_likelihood
from lstmfit.outputs import OutputLayout

Z = np.linspace(5.0, 50.0, 451)
NONE = np.empty(0)


def test_tau_is_plancks_gaussian():
    likelihood = make_likelihood("planck_tau", Z, {})
    assert likelihood(0.06, NONE) == pytest.approx(stats.norm(0.0544, 0.0073).logpdf(0.06), rel=1e-12)
    wider = make_likelihood("planck_tau", Z, {"emulator_error": 0.002})
    assert wider(0.06, NONE) == pytest.approx(stats.norm(0.0544, math.hypot(0.0073, 0.002)).logpdf(0.06), rel=1e-12)


def test_tau_with_asymmetric_errors():
    split = make_likelihood("planck_tau", Z, {"measurement": "qin2020"})
    up, down = 0.0073, 0.0066
    for tau, sigma in ((0.065, up), (0.05, down)):
        expected = -0.5 * ((tau - 0.0569) / sigma) ** 2 - math.log((up + down) / 2 * math.sqrt(2 * math.pi))
        assert split(tau, NONE) == pytest.approx(expected, rel=1e-12)
    other = make_likelihood("planck_tau", Z, {"measurement": "qin2020", "form": "variable_width"})
    expected = -0.5 * 0.0081**2 / (up * down + (up - down) * 0.0081)
    assert other(0.065, NONE) - other(0.0569, NONE) == pytest.approx(expected, rel=1e-9)


def test_densities_are_normalised():
    total, _ = integrate.quad(
        lambda m: math.exp(asymmetric.two_piece(m, 0.4, 0.2, 0.1)), -2, 3, points=[0.4], epsabs=1e-11
    )
    assert total == pytest.approx(1.0, abs=1e-9)
    symmetric = [d(0.3, 0.4, 0.1, 0.1) for d in (asymmetric.two_piece, asymmetric.variable_width)]
    assert symmetric[0] == pytest.approx(symmetric[1], rel=1e-12)
    assert asymmetric.variable_width(10.0, 0.4, 0.1, 0.2) == -math.inf


def test_upper_limit_in_its_middle_and_in_its_tail():
    for m in (0.0, 0.1, 0.9):
        expected = 0.5 * (math.erf((1 + m - 0.1) / (0.2 * math.sqrt(2))) - math.erf((m - 0.1) / (0.2 * math.sqrt(2))))
        assert asymmetric.upper_limit(m, 0.1, 0.2) == pytest.approx(math.log(expected), rel=1e-9)
    tail = stats.norm.logsf(0.9 / 0.05)
    assert asymmetric.upper_limit(1.0, 0.1, 0.05) == pytest.approx(tail, rel=1e-9)
    assert asymmetric.half_gaussian(0.05, 0.1, 0.2) == 0.0
    assert asymmetric.half_gaussian(0.5, 0.1, 0.2) == pytest.approx(-2.0)


def history(z):
    return np.clip((z - 5.5) / 3.0, 0.0, 1.0)


def test_neutral_fraction_by_hand():
    likelihood = make_likelihood("x_HI", Z, {})
    x = history(Z)
    before = x.copy()
    expected = sum(
        asymmetric.upper_limit(np.interp(z, Z, x), limit, err)
        for z, limit, err in ((5.58, 0.04, 0.05), (5.87, 0.06, 0.05), (6.07, 0.38, 0.20))
    )
    expected += asymmetric.two_piece(np.interp(7.1, Z, x), 0.40, 0.21, 0.19)
    expected += asymmetric.two_piece(np.interp(7.54, Z, x), 0.60, 0.20, 0.23)
    assert likelihood(x, NONE) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(x, before)
    point = {"z": 8, "value": 0.76, "err_up": 0.1, "err_down": 0.1, "kind": "lower"}
    lower = make_likelihood("x_HI", Z, {"points": [point]})
    assert lower(np.ones(451), NONE) == pytest.approx(stats.norm.logcdf(2.4), rel=1e-6)
    assert lower(np.zeros(451), NONE) < -20


@pytest.mark.parametrize("name", ["uvlf_bouwens2015", "uvlf_bouwens2021"])
def test_luminosity_function_equals_echo21s_own(name):
    likelihood = make_likelihood(name, Z, {"brightest": None})
    from colossus.cosmology import cosmology

    from lstmfit.echo21_package import MODEL, import_echo21

    before = cosmology.current_cosmo
    echo21 = import_echo21()
    container = echo21.function_container
    try:
        for tstar in (0.1, 0.237, 1.7, 10.0):
            config = echo21.config({**MODEL, "tstar": tstar})
            basic = container.basic(config)
            own = container.uvlf(config, basic, container.halo(config, basic))
            expected = [own.lum_func(m, 1 + z) * 1e6 for m, z in zip(likelihood.magnitude, likelihood.z)]
            np.testing.assert_allclose(likelihood.predict(np.array([tstar])), expected, rtol=1e-6)
    finally:
        cosmology.current_cosmo = before


def test_beyond_the_table_it_is_evaluated_on_the_spot():
    predict = make_likelihood("uvlf_bouwens2021", Z, {}).predict
    inside, outside = predict(np.array([99.999999])), predict(np.array([100.000001]))
    np.testing.assert_allclose(inside, outside, rtol=1e-6)


@pytest.mark.parametrize("values", [(0.05, 2.8e11, 0.49, -0.61), (0.3, 1e10, 1.5, -3.5), (0.02, 1e13, 0.0, -0.1)])
def test_double_power_law_equals_counting_halos(values):
    """The luminosity function integrated over a bin equals the halos that shine in it."""
    from lstmfit.likelihoods.uvlf import UNIT, DoublePowerLaw, HaloMassFunction

    halos, z = HaloMassFunction(), 7.0
    edges = np.array([-21.0, -20.0, -18.5, -17.0])
    predict_at = np.linspace(edges[0], edges[-1], 1501)
    phi = DoublePowerLaw(np.full(predict_at.size, z), predict_at)(np.array(values)) * UNIT
    f, m_p, lo, hi = values
    log_m = np.linspace(np.log(1e6), np.log(1e16), 400001)
    mass = np.exp(log_m)
    om, c = 0.315, halos.const
    rate = 42.0 * (mass / 1e12) ** 1.127 * (1 + 1.17 * z) * math.sqrt(om * (1 + z) ** 3 + 1 - om) * 0.049 / om
    stars = 2 * f / ((mass / m_p) ** -lo + (mass / m_p) ** -hi) * rate
    magnitude = -2.5 * np.log10(stars * c.UVlum_by_SFR / (4 * np.pi * c.d10**2)) - 56.1
    grid = np.linspace(log_m[0], log_m[-1], 3000)
    density = np.exp(np.interp(log_m, grid, np.log(np.maximum(halos.dn_dlnm(np.exp(grid), z), 1e-300))))
    counts, _ = np.histogram(magnitude, edges, weights=density * (log_m[1] - log_m[0]))
    peak = magnitude.min()
    for low, high, count in zip(edges[:-1], edges[1:], counts):
        inside = (predict_at >= low) & (predict_at <= high)
        if low < peak + 0.2:
            continue  # The function diverges, integrably, at the brightest magnitude that there is.
        assert np.trapezoid(phi[inside], predict_at[inside]) == pytest.approx(count, rel=3e-3)


def test_table_cuts_limits_and_error_factor():
    whole = make_likelihood("uvlf_bouwens2015", Z, {"brightest": None, "error_factor": 2})
    assert len(whole.z) == 36
    limit = (whole.z == 10.4) & (whole.magnitude == -19.23)
    assert whole.phi[limit] == 0.0
    assert whole.err[limit] == 98.0
    corrected = (whole.z == 5.9) & (whole.magnitude == -18.77)
    assert whole.phi[corrected] == 1900.0  # ARES' copy has 1290
    faint = make_likelihood("uvlf_bouwens2015", Z, {"redshifts": [6]})
    np.testing.assert_array_equal(faint.magnitude, [-19.52, -18.77, -17.77, -16.77])
    r = (faint.predict(np.array([0.5])) - faint.phi) / faint.err
    expected = stats.norm.logpdf(r).sum() - np.log(faint.err).sum()
    assert faint(np.array([0.5])) == pytest.approx(expected, rel=1e-12)


def test_mocks_lie_at_the_truth_and_scatter_by_the_errors(rng):
    for name, arguments, key in (("planck_tau", [0.061, NONE], "mean"), ("x_HI", [history(Z), NONE], "points")):
        likelihood = make_likelihood(name, Z, {})
        exact = make_likelihood(name, Z, likelihood.mocked(arguments, None))
        assert exact(*arguments) >= likelihood(*arguments)
        assert set(likelihood.mocked(arguments, rng)) == {key}
    likelihood = make_likelihood("planck_tau", Z, {"measurement": "qin2020"})
    draws = np.array([likelihood.mocked([0.06, NONE], rng)["mean"] for _ in range(4000)])
    assert np.mean(draws < 0.06) == pytest.approx(0.5, abs=0.03)
    assert np.mean(draws < 0.06 - 0.0073) == pytest.approx(0.1587, abs=0.02)
    assert np.mean(draws > 0.06 + 0.0066) == pytest.approx(0.1587, abs=0.02)
    counts = make_likelihood("uvlf_bouwens2021", Z, {"redshifts": [7]})
    truth = np.array([0.4])
    mock = make_likelihood("uvlf_bouwens2021", Z, {"redshifts": [7]} | counts.mocked([truth], None))
    np.testing.assert_allclose(mock.phi, mock.predict(truth), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("planck_tau", {"meann": 0.05}, "did you mean 'mean'"),
        ("planck_tau", {"measurement": "wmap"}, "known are planck2018"),
        ("planck_tau", {"form": "boxy"}, "planck_tau.form is 'boxy'; input should be 'two_piece' or"),
        ("planck_tau", {"err_up": -0.01}, "err_up is -0.01; input should be greater than 0"),
        ("x_HI", {"points": ["nobody2020"]}, "unknown point 'nobody2020'"),
        ("x_HI", {"points": []}, "no points"),
        ("x_HI", {"points": ["davies2018", "greig2019"]}, "same object 'J1342"),
        ("x_HI", {"points": [{"z": 60, "value": 0.9, "err_up": 0.1, "err_down": 0.1}]}, "model spans 5 to 50"),
        ("x_HI", {"points": [{"z": 6, "worth": 0.9}]}, "a point is a name or"),
        ("x_HI", {"points": [{"z": 6, "value": 0.9, "err_up": 0.0, "err_down": 0.1}]}, "err_up is 0.0; input"),
        ("x_HI", {"points": [{"z": 6, "value": 9, "err_up": 1, "err_down": 1, "kind": "upper"}]}, "between 0 and 1"),
        (
            "x_HI",
            {"points": [{"z": 6, "value": 0.9, "err_up": 1, "err_down": 1, "kind": "up"}]},
            "should be 'measurement'",
        ),
        ("x_HI", {"limit_form": "step"}, "input should be 'erf' or 'half_gaussian'"),
        ("uvlf_bouwens2015", {"redshifts": [9]}, "no redshift 9 in the table"),
        ("uvlf_bouwens2015", {"efficiency": "constan"}, "input should be 'constant' or"),
        ("uvlf_bouwens2015", {"brightest": -10}, "widen brightest"),
        ("uvlf_bouwens2015", {"error_factor": 0}, "error_factor is 0"),
        ("uvlf_bouwens2015", {"values": [1.0]}, "1 values for"),
        ("uvlf_bouwens2015", {"table": {6: {"z": 6, "bins": [[-19, "limit", 3]]}}}, "'limit' is not a number"),
        ("uvlf_bouwens2015", {"table": {6: {"z": 6, "bins": [[-19, 1, 0]]}}}, "write an upper limit as"),
        ("uvlf_bouwens2021", {"redshifts": [], "error_factor": "x"}, "redshifts is .*at least 1 item"),
        ("uvlf_bouwens2021", {"redshifts": 6}, "redshifts is 6; input should be a valid list"),
        ("uvlf_bouwens2021", {"error_factor": "x"}, "error_factor: 'x' is not a number"),
        ("uvlf_bouwens2021", {"error_factor": True}, "error_factor: True is not a number"),
        ("uvlf_bouwens2021", {"error_factor": None}, "error_factor: None is not a number"),
        ("uvlf_bouwens2021", {"brightest": float("nan")}, "brightest: nan is not a finite number"),
        ("uvlf_bouwens2021", {"values": [1.0, "a"]}, r"values.1: 'a' is not a number"),
        ("uvlf_bouwens2021", {"table": {}}, "table is {}"),
        ("uvlf_bouwens2021", {"table": None}, "table is None"),
        ("uvlf_bouwens2021", {"table": {6: {"z": 6, "bins": []}}}, "bins is"),
        ("planck_tau", {"measurement": None}, "measurement is None; input should be a valid string"),
        ("planck_tau", {"measurement": ["a"]}, "measurement is .'a'.; input should be a valid string"),
        ("planck_tau", {"mean": "high"}, "mean: 'high' is not a number"),
        ("planck_tau", {"mean": float("inf")}, "mean: inf is not a finite number"),
        ("planck_tau", {"emulator_error": -1}, "emulator_error is -1; input should be greater than or equal to 0"),
        ("planck_tau", {"emulator_error": 10**400}, "an integer of more than 30 digits is not a number"),
        ("planck_tau", {"measurements": {"mine": {"mean": 1}}, "measurement": "mine"}, "mine.err_up is missing"),
        ("x_HI", {"points": "greig2017"}, "points is 'greig2017'; input should be a valid list"),
        ("x_HI", {"points": None}, "points is None"),
        ("x_HI", {"points": [3]}, "a point is a name or"),
        ("x_HI", {"points": [{"z": "six", "value": 0.9, "err_up": 0.1, "err_down": 0.1}]}, "z: 'six' is not a number"),
        ("x_HI", {"points": [{"z": 6, "value": 0.9, "err_up": True, "err_down": 0.1}]}, "True is not a number"),
        ("x_HI", {"known": 3}, "known is 3"),
        ("planck_taus", {}, "did you mean 'planck_tau'"),
        ("nowhere.Tau", {}, "there is no module 'nowhere'"),
        ("lstmfit.likelihoods.uvlf.Tau", {}, "has no 'Tau'"),
        ("lstmfit.likelihoods.uvlf.UNIT", {}, "must be a class"),
        ("lstmfit.likelihoods.asymmetric.two_piece", {"dof": 3}, "its options are"),
        ("lstmfit.likelihoods.components.middle", {}, "lacks outputs, names"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message) as error:
        make_likelihood(name, Z, options)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("err", [1e-3, 0.05, 1.0, 9.9e3, 1.1e4, 1e9, 1e90])
@pytest.mark.parametrize("model", [-3.0, 0.0, 0.3, 1.0, 2.0])
def test_an_upper_limit_against_fifty_digits(model, err):
    limit = 0.3
    with mp.workdps(250):
        low, high = ((mp.mpf(x) + mp.mpf(model) - mp.mpf(limit)) / mp.mpf(err) for x in (0, 1))
        # From the tails, which is where the digits are.
        low, high = (-high, -low) if high < 0 else (low, high)
        exact = mp.log((mp.erfc(low / mp.sqrt(2)) - mp.erfc(high / mp.sqrt(2))) / 2)
    assert asymmetric.upper_limit(model, limit, err) == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


AXES = {"log10_uvlf": {"redshift": np.array([5.0, 7.0, 9.0]), "M_UV": np.linspace(-21, -15, 13)}}


def emitting_layout():
    return OutputLayout.of(len(Z), ("signal",), (), AXES)


def table(slope):
    """log10 of a luminosity function that is linear in redshift and magnitude, so that interpolation is exact."""
    z, magnitude = AXES["log10_uvlf"].values()
    return -3.0 - 0.2 * (z[:, None] - 6.0) + slope * (magnitude + 18.0)


@pytest.mark.parametrize("name", ["uvlf_bouwens2015", "uvlf_bouwens2021"])
def test_luminosity_functions_that_the_model_gives(name):
    likelihood = make_likelihood(name, Z, {"redshifts": [6, 7, 8]}, layout=emitting_layout())
    assert (likelihood.outputs, likelihood.names) == (("log10_uvlf",), ())
    phi = 10.0 ** (-3.0 - 0.2 * (likelihood.z - 6.0) + 0.4 * (likelihood.magnitude + 18.0)) / 1e-6
    np.testing.assert_allclose(likelihood.predict(table(0.4).ravel()), phi, rtol=1e-12)
    expected = stats.norm.logpdf(likelihood.phi, phi, likelihood.err).sum()
    assert likelihood(table(0.4).ravel(), np.empty(0)) == pytest.approx(expected, rel=1e-12)
    mock = likelihood.mocked([table(0.3).ravel(), np.empty(0)], None)
    again = make_likelihood(name, Z, {"redshifts": [6, 7, 8]} | mock, layout=emitting_layout())
    best = again(table(0.3).ravel(), np.empty(0))
    assert best > max(again(table(slope).ravel(), np.empty(0)) for slope in (0.28, 0.32))


def test_an_efficiency_that_is_named_comes_before_the_models_own():
    likelihood = make_likelihood("uvlf_bouwens2021", Z, {"efficiency": "constant"}, layout=emitting_layout())
    assert (likelihood.outputs, likelihood.names) == ((), ("tstar",))
    assert make_likelihood("uvlf_bouwens2021", Z, {}).names == ("tstar",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"redshifts": [10]}, r"a bin has redshift 10, but .* spans 5\.\.9; exclude it with redshifts"),
        ({"redshifts": [6], "brightest": None}, r"a bin has M_UV -22.52, but .* spans -21\.\.-15; exclude it with"),
    ],
)
def test_bins_outside_the_models_table(options, message):
    with pytest.raises(InputError, match=message):
        make_likelihood("uvlf_bouwens2021", Z, options, layout=emitting_layout())
