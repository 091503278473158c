"""Compiled spectra against the matrix of the interpolation and the densities in NumPy."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.likelihoods import make_likelihood
from lstmfit.likelihoods._spectrum_kernel import residual
from lstmfit.likelihoods.compiled_spectra import CompiledSpectra
from lstmfit.likelihoods.compiled_spectrum import spline_table
from lstmfit.likelihoods.global_signal import GlobalSignal
from lstmfit.likelihoods.interpolation import interpolation_matrix

Z = np.linspace(5.0, 50.0, 451)
NU = np.linspace(52.0, 109.0, 120)


def grids(rng):
    yield Z, NU
    yield Z, np.linspace(redshift_to_frequency(50.0), redshift_to_frequency(5.0), 300)
    yield Z, np.array([60.0])
    yield Z, redshift_to_frequency(Z[100:200])
    yield np.sort(rng.uniform(5, 50, 300)), np.linspace(60, 100, 80)
    yield np.geomspace(5.0, 50.0, 12), NU
    yield np.linspace(5.0, 50.0, 8), NU
    yield Z, np.linspace(redshift_to_frequency(5.3), redshift_to_frequency(5.0), 20)


def test_the_spline_is_that_of_the_matrix(rng):
    for z, nu in grids(rng):
        nu = rng.permutation(nu)
        factor = rng.uniform(0.5, 2.0, len(nu))
        table, matrix = spline_table(z, nu, factor), interpolation_matrix(z, nu)
        for signal in (rng.normal(0, 100, len(z)), rng.normal(0, 100, len(z)).astype(np.float32)):
            data = rng.normal(0, 100, len(nu))
            expected = data - factor * (matrix @ signal)
            found = residual(signal, data, *table)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-13 * np.abs(matrix @ signal).max() + 1e-12)


def likelihood(nu=NU, **options):
    rng = np.random.default_rng(3)
    weight = rng.uniform(0.3, 3.0, len(nu))
    sky = 1e6 * (nu / 75) ** -2.5 + rng.normal(0, 25, len(nu))
    return make_likelihood("global_signal", Z, {"noise": {"sigma": 25}} | options, Spectrum(nu, sky, weight))


FOREGROUND = {"terms": 5, "reference": 75}


@pytest.mark.parametrize(
    "options",
    [
        {"foreground": FOREGROUND},
        {"foreground": FOREGROUND | {"scale": 1e-3}},
        {"noise": {"sigma": "free"}, "foreground": FOREGROUND},
        {"noise": {"model": "radiometer", "channel_width": 0.4, "integration_time": 10, "floor": "free"},
         "foreground": FOREGROUND | {"terms": 9}, "emulator_error": 3.0},
        {"noise": {"sigma": "free"}, "foreground": FOREGROUND, "systematics": {"model": "sinusoid"}},
        {"noise": {"sigma": "free"}, "foreground": FOREGROUND | {"marginalise": False}},
        {"noise": {"sigma": "free"}, "foreground": {"model": "physical_linear", "reference": 75, "scale": 1e5}},
    ],
)  # fmt: skip
def test_ln_l_is_that_of_numpy(options, rng):
    made = likelihood(**options)
    assert made._compiled is not None
    plain = copy.copy(made)
    plain._compiled = plain.compiled = None
    for scale in (1.0, 100.0, 1e4, 1e7):
        signal = rng.normal(0, scale, len(Z))
        values = np.concatenate([[rng.uniform(5, 50)], rng.normal(10, 1, 10)])[: len(made.names)]
        assert made(signal, values) == pytest.approx(plain(signal, values), rel=1e-10, abs=1e-7)
        np.testing.assert_allclose(made.residual(signal, values), plain.residual(signal, values), rtol=1e-9, atol=1e-7)
        again = pickle.loads(pickle.dumps(made))
        assert again(signal, values) == made(signal, values)


def test_impossible_noise_and_signals_give_what_numpy_gives():
    made = likelihood(noise={"sigma": "free"}, foreground=FOREGROUND)
    signal = np.zeros(len(Z))
    for sigma in (0.0, np.nan):
        assert made(signal, np.array([sigma])) == -np.inf
    assert np.isfinite(made(signal, np.array([25.0])))
    signal[200] = np.nan
    assert np.isnan(made(signal, np.array([25.0])))


def test_a_read_only_signal_is_taken():
    made, signal = likelihood(foreground=FOREGROUND), np.zeros(len(Z))
    value = made(signal, np.empty(0))
    signal.flags.writeable = False
    assert made(signal, np.empty(0)) == value


def test_correlated_and_student_noise_and_the_grid_itself_are_left_to_numpy(tmp_path):
    np.save(tmp_path / "C.npy", np.eye(len(NU)) + 0.1)
    for options in (
        {"noise": {"model": "student_t", "sigma": 3, "dof": 4}},
        {"noise": {"model": "covariance", "file": str(tmp_path / "C.npy")}},
        {"nu": redshift_to_frequency(Z)},
    ):
        assert likelihood(**options)._compiled is None


def several():
    free, fixed = {"noise": {"sigma": "free"}}, {"noise": {"sigma": 20}}
    return [
        likelihood(np.linspace(60.0, 90.0, 70), **free, foreground=FOREGROUND),
        likelihood(np.linspace(55.0, 200.0, 50), **fixed),
        likelihood(**fixed, foreground=FOREGROUND | {"terms": 7}, systematics={"model": "sinusoid"}),
        likelihood(np.array([80.0]), **free),
    ]


def test_several_spectra_have_the_ln_l_of_each(rng):
    likelihoods = several()
    together = CompiledSpectra(likelihoods)
    for made in (together, pickle.loads(pickle.dumps(together)), copy.deepcopy(together)):
        for scale in (1.0, 100.0, 1e4, 1e7):
            signal = rng.normal(0, scale, len(Z))
            values = [
                np.concatenate([[rng.uniform(5, 50)], rng.normal(10, 1, 9)])[: len(one.names)] for one in likelihoods
            ]
            expected = [one(signal, own) for one, own in zip(likelihoods, values)]
            np.testing.assert_allclose(made(signal, values), expected, rtol=1e-11)


def test_several_spectra_with_impossible_noise_or_signal():
    likelihoods = several()
    together, signal = CompiledSpectra(likelihoods), np.zeros(len(Z))
    values = [np.full(len(one.names), 10.0) for one in likelihoods]
    good = together(signal, values)
    for sigma in (0.0, np.nan):
        values[0] = np.array([sigma])
        assert together(signal, values) == [-np.inf, *good[1:]]
    values[0] = np.array([10.0])
    assert together(signal, values) == good
    signal[np.searchsorted(Z, 1420.4 / 130 - 1)] = np.nan
    assert np.isnan(together(signal, values)[1])


def test_several_spectra_in_threads(rng):
    likelihoods = several()
    together, signal = CompiledSpectra(likelihoods), rng.normal(0, 100, len(Z))
    points = [[np.full(len(one.names), sigma) for one in likelihoods] for sigma in rng.uniform(5, 50, 200)]
    expected = [together(signal, values) for values in points]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda values: together(signal, values), points)) == expected


def test_only_spectra_with_compiled_likelihoods_are_joined():
    class Own(GlobalSignal):
        """A likelihood that a user derives."""

    made = likelihood()
    assert CompiledSpectra.can_join(made)
    own = Own(made.spectrum, Z, made.noise)
    assert own.compiled is not None
    assert not CompiledSpectra.can_join(own)
    for options in ({"noise": {"model": "student_t", "sigma": 3, "dof": 4}}, {"emulator_error": {"fraction": 0.01}}):
        assert not CompiledSpectra.can_join(likelihood(**options))
