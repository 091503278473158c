"""A foreground given by an emulator of spectra in K."""

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import yaml
from helpers import THETA, small_run
from networks import PARAMETERS, draw_theta, write_sky
from scipy import stats
from scipy.interpolate import CubicSpline

from lstmfit import Emulator
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.same_problem import compared
from lstmfit.config import load
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.driver import fit
from lstmfit.errors import InputError
from lstmfit.likelihoods import make_likelihood
from lstmfit.parameters import Parameter
from lstmfit.problem import build
from lstmfit.run_folder import load_problem
from lstmfit.spectrum_emulator import SpectrumEmulator

NODES = np.linspace(12.0, 26.0, 45)
GRID = redshift_to_frequency(NODES)
FREQUENCY = np.linspace(55.0, 105.0, 60)
INSIDE = np.array([0.3, 0.2, 1.7])
VALUES = dict(zip("abc", INSIDE.tolist()))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_sky(tmp_path_factory.mktemp("sky") / "sky.h5", np.random.default_rng(4), NODES)


def sky(file, theta, frequency=FREQUENCY):
    """The float64 reference engine, interpolated by SciPy."""
    spectrum = Emulator.load(file, engine="numpy")(np.asarray(theta, dtype=float), "raise")
    return CubicSpline(NODES, spectrum)(1420.405751768 / frequency - 1.0)


def likelihood(file, frequency=FREQUENCY, grid=NODES, **options):
    temperature = sky(file, INSIDE, frequency) + np.random.default_rng(1).normal(0.0, 25.0, len(frequency))
    spectrum = Spectrum(frequency, temperature, np.linspace(0.5, 2.0, len(frequency)))
    block = {"noise": {"sigma": 25}, "foreground": {"model": "emulator", "file": file}}
    return make_likelihood("global_signal", grid, block | options, spectrum, load_emulator=SpectrumEmulator)


@pytest.mark.parametrize("frequency", [FREQUENCY, GRID, GRID[::-1]], ids=["between", "grid", "ascending"])
def test_it_is_interpolated_to_the_channels(file, frequency, rng):
    made = likelihood(file, frequency)
    assert made.names == ("a", "b", "c")
    signal = -100.0 * np.exp(-0.5 * ((NODES - 17.0) / 2.0) ** 2)
    at_channels = CubicSpline(NODES, signal)(1420.405751768 / frequency - 1.0)
    for theta in draw_theta(rng, 20):
        expected = sky(file, theta, frequency)
        np.testing.assert_allclose(made.foreground(signal, theta), expected, rtol=0, atol=2.0)
        residual = made.spectrum.temperature - at_channels - made.foreground(signal, theta)
        density = stats.norm(0.0, 25.0 / np.sqrt(made.spectrum.weight)).logpdf(residual).sum()
        assert made(signal, theta) == pytest.approx(density, rel=1e-9)


def test_its_mean_keeps_the_digits_that_single_precision_loses(file, rng):
    """5000 K is rounded to 0.25 or 0.5 mK by the emulator itself."""
    spectrum, theta = SpectrumEmulator(file), draw_theta(rng, 300)
    exact = Emulator.load(file, engine="numpy")(theta)
    single = Emulator.load(file)(theta) - exact
    double = np.array([spectrum.mean + spectrum.unit * spectrum.deviation(t).astype(float) for t in theta]) - exact
    assert 3.0 * double.std() < single.std()


def test_priors_are_the_training_range(file):
    params = likelihood(file).params
    assert params["a"]["prior"] == {"dist": "loguniform", "min": 1e-2, "max": 1e2}
    assert (params["b"]["prior"]["min"], params["b"]["prior"]["max"]) == (-1.0, 1.0)
    assert "K" in params["a"]["latex"]


@pytest.mark.parametrize("model", ["white", "student_t", "covariance", "fraction"])
def test_the_likelihood_is_zero_outside_its_range(file, model, tmp_path):
    np.save(tmp_path / "C.npy", 600.0 * np.eye(60) + 50.0)
    options = {
        "white": {},
        "student_t": {"noise": {"model": "student_t", "sigma": 25, "dof": 4}},
        "covariance": {"noise": {"model": "covariance", "file": str(tmp_path / "C.npy")}},
        "fraction": {"emulator_error": {"fraction": 0.1}},
    }[model]
    made = likelihood(file, **options)
    assert np.isfinite(made(np.zeros(45), INSIDE))
    outside = ([1e-3, 0.2, 1.7], [0.3, -1.01, 1.7], [0.3, 0.2, 3.1], [np.nan, 0.2, 1.7], [-0.3, 0.2, 1.7])
    for theta in outside:
        assert made(np.zeros(45), np.array(theta)) == -np.inf
    assert np.isfinite(made(np.zeros(45), np.array([100.0 * (1 + 1e-10), -1.0, 3.0])))
    values = np.array([INSIDE, *outside])
    for grid in (NODES, 1420.405751768 / FREQUENCY[::-1] - 1.0):
        # In batches too, with the signal on another grid and on the channels themselves.
        made = likelihood(file, grid=grid, frequency=FREQUENCY[::-1], **options)
        batch = made.loglikelihood_batch(np.zeros((6, len(grid))), values)
        np.testing.assert_array_equal(batch[1:], -np.inf)
        assert batch[0] == pytest.approx(made(np.zeros(len(grid)), INSIDE), rel=1e-9)


def test_it_survives_threads_pickles_and_copies(file, rng):
    made, theta = likelihood(file), draw_theta(rng, 200)
    expected = [made(np.zeros(45), t) for t in theta]
    for same in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda t, same=same: same(np.zeros(45), t), theta)) == expected


def run(file, **changes):
    content = small_run(
        likelihood={"global_signal": {"noise": {"sigma": 25}, "foreground": {"model": "emulator", "file": file}}},
        sampler={"polychord": {"nlive": 20, "num_repeats": 2, "seed": 1}},
    )
    mock = {"model": "emulator", "file": file, "coefficients": list(VALUES.values())}
    content["data"] = {"mock": content["data"]["mock"] | {"from": "emulator", "foreground": mock}, "band": [55, 105]}
    content["params"] = content["params"] | {"a": VALUES["a"], "c": VALUES["c"]}
    return content | changes


@pytest.mark.filterwarnings("ignore:.*neighbouring channels scatter")
def test_a_mock_and_its_fit(file, tmp_path):
    """The grid of the emulator only covers the band of the mock; files travel with the run folder."""
    shutil.copy(file, tmp_path / "sky.h5")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run("sky.h5")))
    config = load(tmp_path / "run.yaml")
    problem = build(config)
    assert problem.names == ("fX", "Tmin_vir", "b")
    assert {n: problem.truth[n] for n in "abc"} == VALUES
    spectrum = problem.data["global_signal"]
    rest = spectrum.temperature - spectrum.truth - sky(file, INSIDE, spectrum.frequency)
    assert rest.std() == pytest.approx(25.0, rel=0.2)
    theta = np.array([0.1, 1e4, 0.2])
    assert np.isfinite(problem.loglikelihood(theta)[0])
    assert problem.prior.distributions["b"].support == (-1.0, 1.0)
    fit(tmp_path / "run.yaml", tmp_path / "chain", jobs=1)
    (tmp_path / "sky.h5").unlink()
    assert {path.name for path in (tmp_path / "chain" / "inputs").iterdir()} == {"sky.h5"}
    assert load_problem(tmp_path / "chain").loglikelihood(theta) == problem.loglikelihood(theta)
    assert len(compared(read_run(tmp_path / "chain"))["likelihood.global_signal.foreground"]["file"]) == 64
    assert np.isfinite(json.loads((tmp_path / "chain" / "summary.json").read_text())["logZ"])
    (tmp_path / "chain" / "inputs" / "sky.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"the foreground file .*sky.h5 has changed since the fit"):
        load_problem(tmp_path / "chain")


def test_bad_emulators_are_refused(file, tmp_path, rng):
    (tmp_path / "text.h5").write_text("no")
    clash = (Parameter("fX", 1e-2, 1e2, log=True), *PARAMETERS[1:])
    write_sky(tmp_path / "clash.h5", rng, NODES, clash)
    wide = Spectrum(np.linspace(45.0, 105.0, 60), np.full(60, 1e6), np.ones(60))
    block = {"noise": {"sigma": 25}, "foreground": {"model": "emulator", "file": file}}
    with pytest.raises(InputError, match=r"^foreground: sky.h5: 8 of 60 channels lie outside .* exclude them"):
        make_likelihood("global_signal", np.linspace(10, 40, 45), block, wide, load_emulator=SpectrumEmulator)
    with pytest.raises(InputError, match=r"foreground: model emulator needs a function that loads its file; pass"):
        make_likelihood("global_signal", NODES, block, Spectrum(FREQUENCY, np.ones(60), np.ones(60)))
    for foreground, message in [
        ({"file": str(tmp_path / "no.h5")}, r"foreground: no file .*no.h5; give an emulator that"),
        ({"file": str(tmp_path / "text.h5")}, r"text.h5"),
        ({}, r"foreground.file is missing"),
        ({"file": file, "terms": 3}, r"unknown key .*foreground.terms"),
        ({"file": file, "marginalise": True}, r"emulator is not linear in its parameters and cannot be marginalised"),
        ({"file": str(tmp_path / "clash.h5")}, r"fX"),
    ]:
        content = run(file)
        content["likelihood"]["global_signal"]["foreground"] = {"model": "emulator"} | foreground
        with pytest.raises(InputError, match=message) as error:
            build(load(content))
        assert "\n" not in str(error.value)


def test_bad_mocks_are_refused(file):
    for coefficients, message in [
        ([0.3, 0.2], r"2 coefficients for 3 parameters of the emulator; give a value of each"),
        ([0.3, 1.2, 1.7], r"coefficients \[0.3, 1.2, 1.7\] are outside the training range of sky.h5 \(a, b, c\)"),
    ]:
        content = run(file)
        content["data"]["mock"]["foreground"]["coefficients"] = coefficients
        with pytest.raises(InputError, match=message):
            build(load(content))
    content = run(file)
    content["data"]["band"] = [40, 105]
    with pytest.raises(InputError, match=r"sky.h5: .* channels lie outside the emulator's"):
        build(load(content))


@pytest.mark.filterwarnings("ignore:.*neighbouring channels scatter")
def test_several_spectra_have_emulators_of_their_own(file, tmp_path, rng):
    other = write_sky(tmp_path / "other.h5", rng, NODES)
    blocks = {name: {"class": "global_signal", "noise": {"sigma": 25}, "foreground": {"model": "emulator", "file": f}}
              for name, f in (("lst1", file), ("lst2", other))}  # fmt: skip
    blocks["lst2"]["shared"] = ["b"]
    mock = run(file)["data"]
    data = {name: {"mock": mock["mock"] | {"seed": i}, "band": [55, 105]} for i, name in enumerate(blocks)}
    fixed = {name: THETA[name] for name in THETA if name != "fX"}
    problem = build(load(small_run(data=data, likelihood=blocks, params=fixed)))
    assert problem.names == ("fX", "a_lst1", "b", "c_lst1", "a_lst2", "c_lst2")
    theta = np.array([0.1, 0.3, 0.2, 1.7, 2.0, 0.9])
    total, derived = problem.loglikelihood(theta)
    signal = problem.signal_at(theta)
    parts = [problem.spectra[name](signal, v) for name, v in (("lst1", [0.3, 0.2, 1.7]), ("lst2", [2.0, 0.2, 0.9]))]
    assert total == pytest.approx(sum(parts), rel=1e-12)
    assert all(np.isfinite(derived[:2]))
