"""PolyChord itself: answers that are known, errors, interruption and resumption."""

import logging
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from gaussian import (
    CORRELATION,
    LOG_NORM,
    MEAN,
    NAMES,
    SIGMA,
    Failing,
    N,
    Slow,
    dead,
    evidence,
    gaussian,
    identity,
    live_points,
    make_gaussian,
    read,
    settings,
)
from helpers import problem_of

from lstmfit.errors import InputError
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.polychord.settings import PolyChordSettings


def run(loglikelihood, folder, *, n=N, derived=(), prior=identity, keywords=None, **changes):
    names, labels = [f"p{i}" for i in range(n)], [f"p_{i}" for i in range(n)] + [f"d_{i}" for i in range(len(derived))]
    problem = problem_of(loglikelihood, prior, names, derived, labels)
    return run_polychord(problem, folder, "chain", settings(**changes), **(keywords or {}))












# ---------------------------------------------------------------- known answers


def test_gaussian_evidence_mean_and_covariance(tmp_path):
    result = run(gaussian, tmp_path, n_live=300)
    samples = read(tmp_path / "chain")
    logZ, error = evidence(samples)
    assert abs(logZ) < 3 * error
    assert result.finished
    assert result.n_dead == len(samples)
    assert result.logZ == pytest.approx(logZ, abs=0.1)
    assert result.n_nan == 0
    mean, covariance = samples[NAMES].mean().to_numpy(), samples[NAMES].cov().to_numpy()
    # Some 1,500 effective samples: 3 sigma of a mean is 0.08, of a correlation 0.08.
    np.testing.assert_allclose(mean, MEAN, atol=0.1 * SIGMA.max())
    np.testing.assert_allclose(covariance / np.outer(SIGMA, SIGMA), CORRELATION, atol=0.2)


@pytest.mark.parametrize("value", [0.0, -3.25, -2345.6])
def test_flat_likelihood_gives_the_prior_back(tmp_path, value):
    """PolyChord alone would look for a point above the plateau for ever."""
    from scipy.stats import kstwo

    run(lambda theta: value, tmp_path, n=3, n_live=500)
    samples = read(tmp_path / "chain")
    assert samples.logZ() == pytest.approx(value, abs=0.01)
    weights = samples.get_weights() / samples.get_weights().sum()
    n_effective = int(1 / np.sum(weights**2))
    for name in ("p0", "p1", "p2"):
        order = np.argsort(samples[name].to_numpy())
        distance = np.abs(np.cumsum(weights[order]) - samples[name].to_numpy()[order]).max()
        assert kstwo.sf(distance, n_effective) > 0.01


def test_likelihood_that_saturates_at_its_maximum(tmp_path):
    """A plateau at the top: the evidence is right, and the run ends."""
    cap = -2.0

    def saturating(theta):
        return min(cap, -0.5 * np.sum((theta - 0.5) ** 2) / 0.1**2)

    # With seed 3 the draws from the prior happen to be 3.1 errors off; the mean over twelve seeds is 0.008 +- 0.012.
    run(saturating, tmp_path, n=2, n_live=200, seed=4)
    grid = (np.arange(1000) + 0.5) / 1000
    x, y = np.meshgrid(grid, grid)
    expected = np.log(np.mean(np.exp(np.minimum(cap, -0.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.1**2))))
    logZ, error = evidence(read(tmp_path / "chain"))
    assert abs(logZ - expected) < 3 * error


def test_draws_from_the_prior(tmp_path):
    """They are killed one by one until the live points are left, at one call each."""
    for draws in (100, 3200):
        folder = tmp_path / str(draws)
        run(gaussian, folder, n_live=100, n_prior=draws)
        samples = read(folder / "chain")
        assert (samples.logL_birth.to_numpy() < -1e29).sum() == draws == samples.nlive.max()
        assert live_points(samples) == 100
        logZ, error = evidence(samples)
        assert abs(logZ) < 3 * error


@pytest.mark.parametrize(
    ("given", "draws"), [(None, 1600), (250, 400), ("3nlive", 400), ("50d", 200), ("1nlive", 100), (100, 100)]
)
def test_number_of_draws_from_the_prior(given, draws):
    resolved = PolyChordSettings(nlive="25d", num_repeats="5d", nprior=given).resolved(4)
    assert (resolved.n_live, resolved.num_repeats, resolved.n_prior) == (100, 20, draws)
    parts = [resolved.share(n, seed=1) for n in (34, 33, 33)]
    assert sum(part.n_prior for part in parts) == draws
    assert [part.n_prior for part in parts] == [draws // 100 * n for n in (34, 33, 33)]


def test_prior_transform_and_derived_columns(tmp_path):
    """Names, labels and derived values arrive in the files in the order given."""
    lower, width = np.array([-5.0, 10.0]), np.array([10.0, 20.0])

    def likelihood(theta):
        return -0.5 * ((theta[0] - 1) ** 2 + (theta[1] - 20) ** 2), (theta[0] * theta[1], theta[0] - 7)

    run(likelihood, tmp_path, n=2, derived=["product", "shifted"], prior=lambda cube: lower + width * cube)
    lines = (tmp_path / "chain.paramnames").read_text().splitlines()
    assert lines == ["p0\tp_0", "p1\tp_1", "product*\td_0", "shifted*\td_1"]
    samples = read(tmp_path / "chain")
    np.testing.assert_allclose(samples["product"], samples["p0"] * samples["p1"], rtol=1e-12)
    np.testing.assert_allclose(samples["shifted"], samples["p0"] - 7, rtol=1e-12, atol=1e-12)
    logZ, error = evidence(samples)
    assert abs(logZ - np.log(2 * np.pi / 200)) < 3 * error
    weighted = np.loadtxt(tmp_path / "chain.txt")
    assert weighted.shape[1] == 2 + 4


def test_same_seed_gives_the_same_run_and_another_does_not(tmp_path):
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        run(gaussian, tmp_path / folder, seed=seed, n_live=50)
    a, b, c = ((tmp_path / folder / "chain_dead-birth.txt").read_bytes() for folder in "abc")
    assert a == b
    assert a != c


def test_likelihood_may_keep_theta(tmp_path):
    kept = []

    def likelihood(theta):
        kept.append(theta)
        return gaussian(theta)

    run(likelihood, tmp_path, n_live=20, num_repeats=4)
    assert len(np.unique(np.array(kept), axis=0)) == len(kept)


def test_two_speeds(tmp_path):
    run(gaussian, tmp_path, grade_dims=(2, 2), grade_frac=(0.5, 0.5))
    logZ, error = evidence(read(tmp_path / "chain"))
    assert abs(logZ) < 3 * error


def test_progress_and_output(tmp_path, capfd):
    """Progress comes in the caller's thread; what Fortran prints goes to a file, what Python prints does not."""
    seen = []

    def progress(now):
        seen.append(now)
        sys.stdout.write("progress\n")

    run(gaussian, tmp_path, keywords={"progress": progress})
    output = capfd.readouterr().out
    assert "progress" in output
    assert "PolyChord" not in output
    assert "Resume data" not in output
    assert "Resume data" in (tmp_path / "chain.polychord.log").read_text()
    last = seen[-1]
    assert last.n_dead == len(read(tmp_path / "chain"))
    assert last.remaining == 0
    assert [p.n_dead for p in seen] == sorted(p.n_dead for p in seen)
    assert last.logL_min < last.logL_max <= LOG_NORM + 1e-8


# ---------------------------------------------------------------- errors


def test_exception_in_the_likelihood_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError, match="at call 301"):
        run(Failing(ZeroDivisionError("at call 301")), tmp_path)


def test_exception_in_the_prior_is_raised_and_another_run_works(tmp_path):
    calls = []

    def prior(cube):
        calls.append(1)
        if len(calls) > 300:
            raise RuntimeError("prior broke")
        return cube

    with pytest.raises(RuntimeError, match="prior broke"):
        run(gaussian, tmp_path, prior=prior)
    # Past a run that never came out of Fortran.
    assert run(gaussian, tmp_path, n_live=20, num_repeats=4).finished


def test_nan_counts_as_zero_likelihood(tmp_path, caplog):
    n_seen = 0

    def likelihood(theta):
        nonlocal n_seen
        if theta[0] < 0.2:
            n_seen += 1
            return np.nan
        return 0.1 * theta[1]

    with caplog.at_level(logging.WARNING, logger="lstmfit"):
        result = run(likelihood, tmp_path, n=2, n_live=400)
    assert result.n_nan == n_seen > 0
    assert f"NaN in {n_seen} of {result.n_like} calls" in caplog.text
    assert (read(tmp_path / "chain")["p0"] >= 0.2).all()
    assert result.prior_fraction == pytest.approx(0.8, abs=3 * np.sqrt(0.8 * 0.2 / 400))


def test_plus_infinity_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"the log-likelihood is \+inf at p0 0\.[5-9]"):
        run(lambda theta: np.inf if theta[0] > 0.5 + 1e-9 else gaussian(theta), tmp_path)


def test_likelihood_that_is_zero_everywhere_is_an_error(tmp_path):
    with pytest.raises(InputError, match="zero or NaN at all of the first 10000 points"):
        run(lambda theta: -np.inf, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_live": 1}, "nlive is 1, but at least 2"),
        ({"n_live": 10.5}, "10.5 is neither an integer nor a multiple of d"),
        ({"n_live": True}, "True is neither an integer nor a multiple of d"),
        ({"n_live": 2**32 + 1}, "4294967297 is out of bounds; give 1 to 1000000"),
        ({"n_live": "99999999999d"}, "out of bounds"),
        ({"seed": "one"}, "'one' is not a whole number"),
        ({"seed": -1}, "-1 is out of bounds; give a whole number from 0 to 2147483647"),
        ({"seed": 2**31}, "2147483648 is out of bounds; give a whole number from 0 to 2147483647"),
        ({"num_repeats": 0}, "0 is out of bounds"),
        ({"n_prior": 99}, "nprior is 99, fewer than the 100 live points; give at least nlive"),
        ({"n_prior": "0nlive"}, "'0nlive' is out of bounds; give 1nlive to 999999nlive"),
        ({"n_prior": "many"}, "'many' is neither an integer nor a multiple of d"),
        ({"precision_criterion": 1.0}, "less than 1"),
        ({"grade_dims": (4,)}, "only one of grade_dims and grade_frac"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_answers_of_the_wrong_shape(tmp_path):
    with pytest.raises(InputError, match=r"returned shape \(3,\), but must return \(4,\)"):
        run(gaussian, tmp_path, prior=lambda cube: cube[:3])
    with pytest.raises(InputError, match="returned 2 derived values, but there are 1 derived names"):
        run(lambda theta: (0.0, [1, 2]), tmp_path, derived=["d"])
    with pytest.raises(InputError, match="1 derived values"):
        run(gaussian, tmp_path, derived=["d"])
    with pytest.raises(InputError, match="must be unique, but p1 is repeated"):
        run_polychord(problem_of(gaussian, identity, ("p0", "p1", "p2", "p1")), tmp_path, "chain", settings())


def test_path_longer_than_fortran_holds(tmp_path):
    with pytest.raises(InputError, match="more than the 299"):
        run(gaussian, tmp_path / ("x" * 150) / ("y" * 150))


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write into"):
        run(gaussian, tmp_path / "file" / "folder")


def test_missing_library(tmp_path, monkeypatch):
    monkeypatch.setattr("lstmfit.sampling.polychord.libraries.polychord_folder", lambda: tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"PolyChord is not installed .* --install-polychord, or use .*nautilus: {}}"):
        run(gaussian, tmp_path)


# ---------------------------------------------------------------- stopping and resuming in one process


def test_stopped_run_goes_on_where_it_was(tmp_path):
    """`stop` ends a run at its next likelihood call; resumed, it has the same dead points first."""
    header = tmp_path / "chain.resume"
    partial_result = run(
        Slow(1e-4), tmp_path, derived=["d"], keywords={"stop": lambda: header.is_file() and dead(header) > 150}
    )
    assert not partial_result.finished
    before = (tmp_path / "chain_dead-birth.txt").read_text().splitlines()[: dead(header)]
    result = run(make_gaussian().loglikelihood, tmp_path, derived=["d"], keywords={"resume": True})
    after = (tmp_path / "chain_dead-birth.txt").read_text().splitlines()
    assert after[: len(before)] == before
    assert result.finished
    assert result.n_like > partial_result.n_like
    assert result.wall_s > partial_result.wall_s
    logZ, error = evidence(read(tmp_path / "chain"))
    assert abs(logZ) < 3 * error




def test_finished_run_is_not_run_again(tmp_path):
    first = run(gaussian, tmp_path, n_live=20, num_repeats=4)
    content = (tmp_path / "chain_dead-birth.txt").read_bytes()
    again = run(gaussian, tmp_path, n_live=20, num_repeats=4, keywords={"resume": True})
    assert again == first
    assert (tmp_path / "chain_dead-birth.txt").read_bytes() == content
    anew = run(gaussian, tmp_path, n_live=20, num_repeats=4, seed=8)
    assert anew.n_like != first.n_like


def test_resume_refuses_another_problem(tmp_path):
    run(gaussian, tmp_path, n_live=20, num_repeats=4)
    with pytest.raises(InputError, match=r"started with 4 parameters .*, but now there are 3"):
        run(lambda theta: 0.0, tmp_path, n=3, n_live=20, num_repeats=4, keywords={"resume": True})
    with pytest.raises(InputError, match=r"started with num_repeats 4 \(now 5\)"):
        run(gaussian, tmp_path, n_live=20, num_repeats=5, keywords={"resume": True})
    # Without our record there is still PolyChord's.
    (tmp_path / "chain.state.json").unlink()
    with pytest.raises(InputError, match=r"has 4 parameters, but now there are 3"):
        run(lambda theta: 0.0, tmp_path, n=3, n_live=20, num_repeats=4, keywords={"resume": True})


def test_broken_resume_file(tmp_path):
    run(gaussian, tmp_path, n_live=20, num_repeats=4)
    (tmp_path / "chain.state.json").unlink()
    (tmp_path / "chain.resume").write_text("=== Number of dimensions ===\n")
    with pytest.raises(InputError, match="not a complete PolyChord resume file"):
        run(gaussian, tmp_path, n_live=20, num_repeats=4, keywords={"resume": True})


# ---------------------------------------------------------------- pypolychord

# Its interface (polychord.py, settings.py and _pypolychord.cpp of 1.22.2), and the built 1.14 below it: Python stays
# locked while Fortran works, arrays are views, the prior and the dumper return nothing.
PYPOLYCHORD = """
    import ctypes as c
    import numpy as np
    from lstmfit.sampling.polychord.build import polychord_folder

    __version__ = "1.22.2"
    d, i, b, P = c.c_double, c.c_int, c.c_bool, c.POINTER(c.c_double)

    def run_polychord(loglikelihood, nDims, nDerived, settings, prior, dumper):
        view = np.ctypeslib.as_array

        def c_likelihood(theta, n, phi, m):
            logL = loglikelihood(view(theta, (n,)))
            try:
                logL, view(phi, (m,))[:] = logL
            except TypeError:
                pass
            assert type(logL) is float
            return logL

        def c_prior(cube, theta, n):
            view(theta, (n,))[:] = prior(view(cube, (n,)))

        def c_dumper(n_dead, n_live, n, live, dead, logw, logZ, logZerr):
            dumper(view(live, (n_live, n)) if n_live else np.empty((0, n)), view(dead, (n_dead, n)),
                   view(logw, (n_dead,)), logZ, logZerr)

        s = settings
        call = c.PyDLL(str(polychord_folder() / "libchord.so")).polychord_c_interface
        keep = [c.PYFUNCTYPE(d, P, i, P, i)(c_likelihood), c.PYFUNCTYPE(None, P, P, i)(c_prior),
                c.PYFUNCTYPE(None, i, i, i, P, P, P, d, d)(c_dumper)]
        call(*keep, i(s.nlive), i(s.num_repeats), i(s.nprior), b(s.do_clustering), i(s.feedback),
             d(s.precision_criterion), d(s.logzero), i(s.max_ndead), d(s.boost_posterior), b(s.posteriors), b(s.equals),
             b(s.cluster_posteriors), b(s.write_resume), b(s.write_paramnames), b(s.read_resume), b(s.write_stats),
             b(s.write_live), b(s.write_dead), b(s.write_prior), d(s.compression_factor), i(nDims), i(nDerived),
             c.create_string_buffer(s.base_dir.encode(), 300), c.create_string_buffer(s.file_root.encode(), 300),
             i(len(s.grade_dims)), (d * len(s.grade_frac))(*s.grade_frac), (i * len(s.grade_dims))(*s.grade_dims),
             i(0), (d * 1)(), (i * 1)(), i(s.seed))
"""
PYPOLYCHORD_SETTINGS = """
    KNOWN = (
        "nlive num_repeats nprior nfail do_clustering feedback precision_criterion logzero max_ndead boost_posterior "
        "posteriors equals cluster_posteriors write_resume write_paramnames read_resume write_stats write_live "
        "write_dead write_prior maximise compression_factor synchronous base_dir file_root seed grade_dims grade_frac "
        "nlives"
    ).split()

    class PolyChordSettings:
        def __init__(self, nDims, nDerived, **kwargs):
            assert set(kwargs) <= set(KNOWN)
            self.__dict__.update(kwargs)
"""


@pytest.fixture
def pypolychord(tmp_path, monkeypatch):
    package = tmp_path / "site" / "pypolychord"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(PYPOLYCHORD))
    (package / "settings.py").write_text(textwrap.dedent(PYPOLYCHORD_SETTINGS))
    monkeypatch.syspath_prepend(package.parent)
    yield package
    for name in ("pypolychord", "pypolychord.settings"):
        sys.modules.pop(name, None)


def test_pypolychord_comes_first_and_gives_the_same(tmp_path, pypolychord, monkeypatch):
    likelihood = make_gaussian().loglikelihood
    result = run(likelihood, tmp_path / "a", derived=["total"])
    assert (result.version, result.library) == ("1.22.2", str(pypolychord))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(likelihood, tmp_path / "b", derived=["total"]).version == "1.14"
    a, b = ((tmp_path / folder / "chain_dead-birth.txt").read_bytes() for folder in "ab")
    assert a == b


def test_pypolychord_stops_and_raises(tmp_path, pypolychord):
    with pytest.raises(ZeroDivisionError, match="at call 301"):
        run(Failing(ZeroDivisionError("at call 301")), tmp_path)
    header = tmp_path / "chain.resume"
    stopped = run(gaussian, tmp_path, keywords={"stop": lambda: header.is_file() and dead(header) > 150})
    assert not stopped.finished
    assert run(gaussian, tmp_path, keywords={"resume": True}).n_like > stopped.n_like
    logZ, error = evidence(read(tmp_path / "chain"))
    assert abs(logZ) < 3 * error


def test_import_stays_cheap():
    """No MPI, numba or anesthetic before they are needed."""
    code = (
        "import sys, lstmfit.sampling.polychord.jobs, lstmfit.mpi, lstmfit.sampling.polychord.build; "
        "print([m for m in ('mpi4py', 'numba', 'anesthetic', 'pandas', 'scipy', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
