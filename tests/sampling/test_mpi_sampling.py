"""PolyChord over MPI ranks, started by a real mpirun."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from gaussian import evidence as gaussian_evidence

from lstmfit import mpi
from lstmfit.errors import InputError
from lstmfit.mpi import RANK_VARIABLES, SIZE_VARIABLES
from lstmfit.sampling.polychord import ranks
from lstmfit.sampling.polychord.resume_file import read_resume_header
from lstmfit.sampling.polychord.settings import PolyChordSettings
from lstmfit.sampling.state import read_state

MPIRUN = shutil.which("mpirun")
pytestmark = pytest.mark.mpi
needs_mpirun = pytest.mark.skipif(MPIRUN is None, reason="mpirun is not installed")

SCRIPT = """
    import sys, time
    from types import SimpleNamespace
    import numpy as np
    from lstmfit.errors import InputError
    from lstmfit.mpi import rank, world, stopping_all_ranks, on_root
    from lstmfit.sampling.polychord.ranks import run_mpi
    from lstmfit.sampling.polychord.settings import PolyChordSettings

    case, folder = sys.argv[1:3]
    calls = 0
    MEAN, SIGMA = np.array([0.3, 0.5, 0.6, 0.55]), np.array([0.02, 0.04, 0.05, 0.06])

    def loglikelihood(theta):
        global calls
        calls += 1
        if calls > 1000:
            if case == "exception" or (case == "one" and rank() == 1):
                raise ZeroDivisionError("deep in the likelihood")
            if case == "inf":
                return np.inf
        if case == "slow":
            time.sleep(2e-4)
        if case == "nan" and theta[3] > 0.9:
            return np.nan
        r = (theta - MEAN) / SIGMA
        return -0.5 * r @ r - np.log(SIGMA).sum() - 2 * np.log(2 * np.pi), [theta[0] * 2]

    def make_problem():
        if case == "make" or (case == "make2" and rank() == 2):
            raise InputError("the data file is not there")
        return SimpleNamespace(loglikelihood=loglikelihood, prior_transform=lambda cube: cube,
                               names=list("abcd"), derived_names=["twice"], latex=list("abcde"))

    seen = []
    settings = PolyChordSettings(n_live=1 if case == "few" else 100, num_repeats=12, seed=1) if case != "many" else \\
        PolyChordSettings(n_live=2, num_repeats=4, seed=1)
    if case == "agree":
        with stopping_all_ranks():
            print(on_root(world(), lambda: f"said by {rank()} of {world().Get_size()}"))
            on_root(world(), lambda: 1 / 0)
    result = run_mpi(make_problem, settings, folder, resume="resume" in sys.argv, progress=seen.append)
    if rank() == 0:
        print("RESULT", result.n_like, result.n_nan, result.ranks, result.finished, len(seen) > 0)
"""


def command(tmp_path, case, *more, ranks=3):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    line = [MPIRUN, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), sys.executable, str(script)]
    return [*line, case, str(tmp_path / "out"), *more]


def mpirun(tmp_path, case, *more, ranks=3):
    line = command(tmp_path, case, *more, ranks=ranks)
    return subprocess.run(line, capture_output=True, text=True, timeout=90, check=False)


def any_process(script):
    """Whether some process still runs the script."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(script) in line.read_bytes():
                return True
        except OSError:
            continue
    return False


def evidence(root):
    from anesthetic import read_chains

    samples = read_chains(str(root))
    return *gaussian_evidence(samples), samples


@needs_mpirun
def test_gaussian_over_three_ranks(tmp_path):
    done = mpirun(tmp_path, "gaussian")
    assert done.returncode == 0, done.stderr
    assert "Resume data" not in done.stdout
    logZ, error, samples = evidence(tmp_path / "out" / "chain")
    assert abs(logZ) < 3 * error
    np.testing.assert_allclose(samples["twice"], 2 * samples["a"], rtol=1e-12)
    n_like, n_nan, ranks, finished, progressed = done.stdout.split("RESULT ")[1].split()
    assert (n_nan, ranks, finished, progressed) == ("0", "3", "True", "True")
    # PolyChord's own count leaves out what the ranks were still doing at the end.
    counted = read_resume_header(tmp_path / "out" / "chain.resume")["n_like"]
    assert counted <= int(n_like) < 1.05 * counted
    assert read_state(tmp_path / "out", "chain")["finished"]
    # Finished: the same again is no run.
    again = mpirun(tmp_path, "gaussian", "resume")
    assert again.stdout.split("RESULT ")[1].split()[0] == n_like


@needs_mpirun
def test_nan_is_counted_over_all_ranks(tmp_path):
    done = mpirun(tmp_path, "nan")
    assert int(done.stdout.split("RESULT ")[1].split()[1]) > 0


@needs_mpirun
@pytest.mark.parametrize(
    ("case", "status", "message"),
    [
        ("exception", 1, "ZeroDivisionError: deep in the likelihood"),
        ("one", 1, "ZeroDivisionError: deep in the likelihood"),
        ("inf", 2, "the log-likelihood is +inf at a "),
        ("make", 2, "the data file is not there"),
        ("make2", 2, "the data file is not there"),
    ],
)
def test_an_error_stops_all_ranks_and_is_said_once(tmp_path, case, status, message):
    began = time.monotonic()
    done = mpirun(tmp_path, case)
    assert done.returncode == status
    assert done.stderr.count(message) == 1, done.stderr
    assert "RESULT" not in done.stdout
    assert ("Traceback" in done.stderr) == (status == 1)
    assert time.monotonic() - began < 80


@needs_mpirun
def test_more_ranks_than_live_points(tmp_path):
    done = mpirun(tmp_path, "many", ranks=4)
    assert done.returncode == 2
    assert done.stderr.count("4 MPI ranks give 3 workers, more than the 2 live points") == 1


@needs_mpirun
def test_one_rank_is_a_serial_run(tmp_path):
    done = mpirun(tmp_path, "gaussian", ranks=1)
    assert done.returncode == 0, done.stderr
    assert "RESULT" in done.stdout
    assert read_state(tmp_path / "out", "chain")["library"].endswith(("libchord.so", "pypolychord"))


@needs_mpirun
def test_root_speaks_for_all(tmp_path):
    done = mpirun(tmp_path, "agree")
    assert done.stdout.count("said by 0 of 3") == 3
    assert done.stderr.count("ZeroDivisionError: division by zero") == 1
    assert done.returncode == 1


@needs_mpirun
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_run_resumes(tmp_path, number):
    resume = tmp_path / "out" / "chain.resume"
    process = subprocess.Popen(command(tmp_path, "slow"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (resume.is_file() and read_resume_header(resume)["n_dead"] > 100):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=90) != 0
    while any_process(tmp_path / "script.py"):
        assert time.monotonic() < deadline, "ranks outlive mpirun"
        time.sleep(0.05)
    assert not read_state(tmp_path / "out", "chain").get("finished")
    header = read_resume_header(resume)
    before = (tmp_path / "out" / "chain_dead-birth.txt").read_text().splitlines()[: header["n_dead"]]
    done = mpirun(tmp_path, "gaussian", "resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "chain_dead-birth.txt").read_text().splitlines()[: len(before)] == before
    assert int(done.stdout.split("RESULT ")[1].split()[0]) > header["n_like"]
    logZ, error, _ = evidence(tmp_path / "out" / "chain")
    assert abs(logZ) < 3 * error


def test_nothing_of_mpi_without_mpirun():
    """No environment variable of mpirun: one rank, and mpi4py is not even imported."""
    code = (
        "import sys; from lstmfit import mpi; "
        "print(mpi.world(), mpi.rank(), 'mpi4py' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in SIZE_VARIABLES + RANK_VARIABLES}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "0", "False"]


def test_mpi_that_is_not_mpiruns():
    """As with an mpi4py over another MPI: mpirun promises 3 ranks, each process sees itself alone."""
    pytest.importorskip("mpi4py")
    code = """if True:
        from lstmfit import mpi
        with mpi.stopping_all_ranks():
            mpi.world()
    """
    environment = os.environ | {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "mpirun started 3 ranks, but mpi4py sees 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_mpi4py(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(InputError, match=r"mpi4py, which cannot be loaded .* pip install mpi4py"):
        mpi.world()


def test_missing_mpi_library(tmp_path, monkeypatch):
    from lstmfit.sampling.polychord import libraries

    (tmp_path / "libchord.so").write_text("")
    monkeypatch.setattr(libraries, "polychord_folder", lambda: tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"libchord_mpi.so, which does not exist; to fix this: apt-get install"):
        libraries.load_library(mpi=True)


def test_two_mpi_libraries(monkeypatch):
    lines = "\n".join(
        f"7f00-7f01 r-xp 0 0:0 1 {path}"
        for path in ("/usr/lib/libmpi.so.40.30.4", "/env/lib/libmpi.so.12.3.1", "/usr/lib/libmpi_mpifh.so.40.30.1")
    )
    monkeypatch.setattr("pathlib.Path.read_text", lambda self, **_: lines)
    with pytest.raises(
        InputError, match=r"use different MPI libraries .*/env/lib/libmpi.so.12.3.1 and /usr/lib/libmpi"
    ):
        ranks.check_one_mpi()


def test_settings_hold_for_mpi_too():
    with pytest.raises(ValueError, match="0 is out of bounds"):
        PolyChordSettings(n_live=0, num_repeats=1, seed=1)
