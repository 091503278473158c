"""The simulators: ECHO21 against itself and against signals made elsewhere, and the registry."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lstmfit.errors import InputError
from lstmfit.simulators import History, SimulationError, Simulator, load
from lstmfit.simulators.echo21 import INITIAL_STATE, MODEL, PARAMETERS

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "data" / "echo21_reference.h5"

# Asked without importing it: its import would start MPI here, and then in every process that a test starts.
INSTALLED = importlib.util.find_spec("echo21") is not None
needs_echo21 = pytest.mark.skipif(not INSTALLED, reason="echo21 is not installed")

# Reionisation not over by z = 5, and over by z = 7: see the class docstring on why they differ.
EARLY = np.array([0.1, 1.0, 0.005, 1e4, 0.5, 2.64, 1.5])
LATE = np.array([0.3, 20.0, 0.05, 3e3, 0.36, 1.29, 1.0])


@pytest.fixture(scope="module")
def simulate():
    if not INSTALLED:
        pytest.skip("echo21 is not installed")
    return load("echo21")


def upstream(theta):
    """ECHO21 as it comes: 1+z, x_HI, signal in mK, and tau."""
    from echo21.const import Z_CD
    from echo21.single_set_solver import cosmic_dawn_beyond

    values = {p.name: v for p, v in zip(PARAMETERS, theta)}
    with np.errstate(all="ignore"):
        _, _, x_HI, _, _, signal, tau, _ = cosmic_dawn_beyond({**MODEL, **values}, *INITIAL_STATE)
    return Z_CD, x_HI, signal, float(tau[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("theta", [EARLY, LATE], ids=["early", "late"])
def test_equals_upstream_on_its_own_grid(simulate, theta):
    one_plus_z, x_HI, signal, tau = upstream(theta)
    history = simulate.at(theta, one_plus_z[:0:-1] - 1)
    before = x_HI[:0:-1] > 0.01
    error = np.abs(history.signal - signal[:0:-1])
    assert before.sum() > 30
    assert error[before].max() < 1e-9
    assert error.max() < 1e-3
    assert np.abs(history.x_HI - x_HI[:0:-1])[before].max() < 1e-11
    # Ours sums Q at the 60 points themselves, ECHO21 a spline through its coarse grid.
    assert history.tau == pytest.approx(tau, rel=2e-3)


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} is not there")
def test_equals_reference_signals(simulate):
    import h5py

    with h5py.File(REFERENCE) as file:
        np.testing.assert_array_equal(simulate.redshifts, file["z"][:])
        assert tuple(file.attrs["initial_state"]) == INITIAL_STATE
        theta, signal, x_HI, tau = (file[k][:] for k in ("theta", "signal_mK", "x_HI", "tau"))
        one_plus_z = file["upstream/one_plus_z"][:]
        coarse, coarse_x_HI = file["upstream/signal_mK"][:], file["upstream/x_HI"][:]
    histories = [simulate(row) for row in theta]
    error = np.abs(np.array([h.signal for h in histories]) - signal)
    assert error[x_HI > 0.01].max() < 1e-7
    assert error.max() < 1e-3
    assert np.median(error.max(axis=1)) < 1e-7
    assert np.abs(np.array([h.x_HI for h in histories]) - x_HI).max() < 1e-5
    assert np.abs(np.array([h.tau for h in histories]) - tau).max() < 1e-6

    for row, expected, expected_x_HI in zip(theta, coarse, coarse_x_HI):
        error = np.abs(simulate.at(row, one_plus_z[::-1] - 1).signal[::-1] - expected)
        assert error[expected_x_HI > 0.01].max() < 1e-7
        assert error.max() < 1e-3


def test_grid_specs_and_protocol(simulate):
    assert isinstance(simulate, Simulator)
    assert simulate.name == "echo21"
    assert simulate.version.count(".") == 2
    np.testing.assert_allclose(simulate.redshifts, np.arange(50, 501) / 10, rtol=1e-15)
    assert [p.name for p in simulate.parameters] == ["fX", "fLy", "fesc", "Tmin_vir", "tstar", "sLy", "wX"]
    assert [p.log for p in simulate.parameters] == [True] * 5 + [False] * 2


def test_history_is_physical(simulate):
    history = simulate(EARLY)
    assert isinstance(history, History)
    assert history.signal.shape == history.x_HI.shape == history.redshifts.shape == (451,)
    assert isinstance(history.tau, float)
    assert 0.01 < history.tau < 0.2
    assert np.all(np.diff(history.x_HI) > -1e-6)
    assert -250 < history.signal.min() < -50
    # Gas and CMB part at high redshift, before stars: a shallow absorption from collisions, tens of mK.
    assert -40 < history.signal[-1] < -5
    with pytest.raises(AttributeError):
        history.tau = 0.0


def test_no_starlight_leaves_hydrogen_neutral(simulate):
    history = simulate([1e-3, 1e-2, 1e-3, 10**5.5, 10.0, 2.0, 1.5])
    assert history.x_HI.min() > 0.99
    assert history.tau < 0.01


def test_more_x_rays_make_warmer_gas(simulate):
    cold, warm = (simulate({**dict(zip([p.name for p in PARAMETERS], EARLY)), "fX": fX}) for fX in (0.01, 10.0))
    assert warm.signal[20] > cold.signal[20]


def test_mapping_array_and_repeat_agree_and_input_stays(simulate):
    theta = EARLY.copy()
    theta.flags.writeable = False
    first = simulate(theta)
    by_name = simulate(dict(zip([p.name for p in reversed(PARAMETERS)], theta[::-1])))
    simulate(LATE)
    again = simulate(list(theta))
    for other in (by_name, again):
        np.testing.assert_array_equal(first.signal, other.signal)
        np.testing.assert_array_equal(first.x_HI, other.x_HI)
        assert first.tau == other.tau
    np.testing.assert_array_equal(theta, EARLY)


def test_solution_does_not_depend_on_the_grid_asked_for(simulate):
    whole = simulate(EARLY)
    few = simulate.at(EARLY, whole.redshifts[[3, 100, 400]])
    np.testing.assert_allclose(few.signal, whole.signal[[3, 100, 400]], rtol=0, atol=1e-9)
    assert few.tau == pytest.approx(whole.tau, rel=1e-12)


def test_slope_of_one_is_a_limit(simulate):
    """ECHO21 has a formula of its own at wX = 1."""
    at, near = EARLY.copy(), EARLY.copy()
    at[6], near[6] = 1.0, 1.0 + 1e-6
    np.testing.assert_allclose(simulate(at).signal, simulate(near).signal, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        (EARLY[:6], r"theta has shape \(6,\); expected \(7,\)"),
        (np.tile(EARLY, (2, 1)), r"theta has shape \(2, 7\); give one parameter set at a time"),
        ({"fX": 1.0}, "missing fLy, fesc, Tmin_vir, tstar, sLy, wX"),
        ({**{p.name: p.max for p in PARAMETERS}, "fx": 1}, "unknown fx"),
        ({p.name: np.ones(2) for p in PARAMETERS}, r"fX is array\(\[1., 1.\]\), not a number; .* shape \(n, 7\)"),
        (["a"] * 7, r"expected 7 numbers in the order fX, fLy"),
        (np.where(np.arange(7) == 3, np.nan, EARLY), "Tmin_vir is nan; expected a finite value above 0"),
        (np.where(np.arange(7) == 0, -1.0, EARLY), r"fX is -1; .* in physical units \(not log10\)"),
    ],
)
def test_wrong_theta(simulate, theta, message):
    with pytest.raises(InputError, match=message):
        simulate(theta)


@pytest.mark.parametrize(
    ("redshifts", "message"),
    [
        ([10.0, 9.0], "strictly ascending"),
        ([[5.0, 6.0]], r"shape \(1, 2\); expected one axis"),
        ([], "expected one axis"),
        ([5.0, 80.0], "span 5..80; ECHO21 needs redshifts within 0..59"),
    ],
)
def test_wrong_redshifts(simulate, redshifts, message):
    with pytest.raises(InputError, match=message):
        simulate.at(EARLY, redshifts)


def test_nonfinite_result_is_an_error_that_names_theta(simulate):
    theta = EARLY.copy()
    theta[0] = 1e300
    with pytest.raises(SimulationError, match=r"the signal of ECHO21 is not finite at fX=1e\+300, fLy=1"):
        simulate(theta)


def test_compiled_functions():
    from scipy.integrate import quad
    from scipy.special import airy, erfc

    from lstmfit.simulators import _kernel

    for xi in (0.0, 0.1, 0.5, 1.0, 2.0):
        ai, _, bi, _ = airy(-xi)
        assert _kernel.airy_modulus(xi) == pytest.approx(ai**2 + bi**2, rel=1e-14)
    ai, _, bi, _ = airy(-5.0)
    assert _kernel.airy_modulus(5.0) == pytest.approx(ai**2 + bi**2, rel=1e-6)
    for b in (0.0, 0.1, 1.0, 10.0):
        expected = quad(lambda s, b=b: np.exp(-b * s * s - s**6 / 3) * erfc(s**3), 0, 2, epsabs=0, epsrel=1e-13)
        assert _kernel.injected_integral(b) == pytest.approx(expected[0], rel=1e-13)


def run(code, *, cwd=None):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_light():
    code = (
        "import sys, lstmfit.simulators.echo21, lstmfit.simulators.campaign\n"
        "print([m for m in ('scipy', 'numba', 'h5py', 'mpi4py', 'echo21', 'colossus', 'tqdm', 'tensorflow') "
        "if m in sys.modules])"
    )
    assert run(code).strip() == "[]"


@needs_echo21
def test_loading_echo21_leaves_the_process_as_it_was():
    code = """
import warnings
from colossus.cosmology import cosmology
mine = cosmology.setCosmology("planck18")
from lstmfit.simulators import load
simulate = load("echo21")
simulate([0.1, 1, 0.005, 1e4, 0.5, 2.64, 1.5])
assert cosmology.getCurrent() is mine
assert ("ignore", None, Warning, None, 0) not in warnings.filters
import mpi4py
from mpi4py import MPI
assert mpi4py.rc.initialize
assert not MPI.Is_initialized()
"""
    assert run(code) == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("echo12", r"unknown simulator 'echo12'; did you mean 'echo21'\?"),
        ("21cmfast4", "unknown simulator '21cmfast4'"),
        ("nowhere.to:find", "no module 'nowhere'; install it or add its folder to PYTHONPATH"),
        ("math:nothing", "module math has no 'nothing'"),
        ("math:cos", "lacks redshifts, parameters, name, version"),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(InputError, match=message):
        load(name)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "echo21", None)
    with pytest.raises(InputError, match=r'pip install "lstmfit\[simulate\]"'):
        load("echo21")
