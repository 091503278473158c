"""Campaigns: the file they make, kill -9, growth, failures, MPI."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from lstmfit.errors import InputError
from lstmfit.simulators import SimulationError, campaign, load, load_once
from lstmfit.simulators.campaign import collect, simulate_set
from lstmfit.simulators.design import draw

# A simulator as a user would write it. It notes every call, fails where `a` is small and can be slow.
TOY = """
import os, time
import numpy as np
from lstmfit.parameters import Parameter
from lstmfit.simulators import History

class Toy:
    redshifts = np.linspace(5, 50, 7)
    parameters = (Parameter("a", 1e-2, 1e2, log=True, unit="K", latex="a"), Parameter("b", -1, 1))
    name = "toy"
    version = os.environ.get("TOY_VERSION", "1")

    def __call__(self, theta):
        a, b = theta
        time.sleep(float(os.environ.get("TOY_SLEEP", 0)))
        with open(os.environ["TOY_LOG"], "a") as file:
            file.write(f"{os.getpid()} {a!r}\\n")
        if os.environ.get("TOY_DIES") and a < 0.02:
            os._exit(9)
        if a < float(os.environ.get("TOY_FAILS_BELOW", 0)):
            raise ArithmeticError(f"a is {a:.3g}")
        if b > float(os.environ.get("TOY_NAN_ABOVE", 2)):
            b = np.nan
        return History(self.redshifts, -a * np.exp(b * self.redshifts / 50), np.full(7, 0.5), 0.05 + b / 100)

ready = Toy()

def no_simulator():
    pass
"""
SIZES = dict(n_val=20, n_test=10, progress=False)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Folder of the toy simulator, which is importable here and in subprocesses."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "toy_simulator.py").write_text(TOY)
    monkeypatch.setenv("TOY_LOG", str(folder / "calls.log"))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(folder)
    load_once.cache_clear()
    sys.modules.pop("toy_simulator", None)
    yield folder
    load_once.cache_clear()
    sys.modules.pop("toy_simulator", None)


def calls(folder):
    log = folder / "calls.log"
    return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []


def datasets(path):
    with h5py.File(path) as file:
        found = {name: file[name][:] for name in file if name != "failed"}
        return found | {f"failed/{name}": item[:] for name, item in file["failed"].items()}


def assert_same_sets(path_a, path_b):
    a, b = datasets(path_a), datasets(path_b)
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


def test_echo21_set_has_the_public_layout(tmp_path):
    pytest.importorskip("colossus")
    path = tmp_path / "new" / "set.h5"
    made = simulate_set(path, 6, n_val=2, n_test=2, seed=3, jobs=1, progress=False)
    assert (made.n_train, made.n_val, made.n_test, made.n_failed, made.complete) == (6, 2, 2, 0, True)
    assert [p.name for p in path.parent.iterdir()] == ["set.h5"]
    simulate = load("echo21")
    with h5py.File(path) as file:
        assert file["par_train"].shape == (6, 7)
        assert file["signal_train"].shape == file["x_HI_train"].shape == (6, 451)
        assert file["signal_val"].shape == file["signal_test"].shape == (2, 451)
        assert file["tau_test"].shape == (2,)
        np.testing.assert_array_equal(file["redshifts"][:], simulate.redshifts)
        assert list(file.attrs["parameters"]) == [p.name for p in simulate.parameters]
        assert list(file.attrs["units"]) == [p.unit for p in simulate.parameters]
        assert list(file.attrs["latex"]) == [p.latex for p in simulate.parameters]
        np.testing.assert_array_equal(file.attrs["log"], [p.log for p in simulate.parameters])
        np.testing.assert_array_equal(file.attrs["min"], [p.min for p in simulate.parameters])
        np.testing.assert_array_equal(file.attrs["max"], [p.max for p in simulate.parameters])
        assert file.attrs["seed"] == 3
        assert file.attrs["design"] == "sobol"
        assert file.attrs["simulator"] == "echo21"
        assert file.attrs["simulator_version"] == simulate.version
        assert file.attrs["numpy_version"] == np.__version__
        assert file.attrs["complete"]
        for split in ("train", "val", "test"):
            for theta, values in zip(file[f"par_{split}"][:], file[f"signal_{split}"][:]):
                np.testing.assert_allclose(values, simulate(theta).signal, rtol=0, atol=2e-5)


def test_echo21_set_is_the_same_from_two_processes(tmp_path):
    pytest.importorskip("colossus")
    for jobs in (1, 2):
        simulate_set(tmp_path / f"{jobs}.h5", 6, n_val=2, n_test=2, jobs=jobs, progress=False)
    assert_same_sets(tmp_path / "1.h5", tmp_path / "2.h5")


def test_splits_are_independent_of_each_other_and_of_the_design(tmp_path, toy):
    for design in ("sobol", "uniform"):
        simulate_set(tmp_path / f"{design}.h5", 32, simulator="toy_simulator:Toy", design=design, jobs=1, **SIZES)
    sobol, uniform = datasets(tmp_path / "sobol.h5"), datasets(tmp_path / "uniform.h5")
    for split in ("val", "test"):
        np.testing.assert_array_equal(sobol[f"par_{split}"], uniform[f"par_{split}"])
    assert not np.array_equal(sobol["par_train"], uniform["par_train"])
    everything = np.concatenate([sobol["par_train"], *(uniform[f"par_{s}"] for s in ("train", "val", "test"))])
    assert len(np.unique(everything[:, 0])) == len(everything)


@pytest.mark.parametrize("design", ["sobol", "uniform"])
def test_design(toy, design):
    parameters = load("toy_simulator:ready").parameters
    theta = draw(design, 1024, parameters, np.random.default_rng(5))
    unit = np.stack([(np.log10(theta[:, 0]) + 2) / 4, (theta[:, 1] + 1) / 2], axis=1)
    assert unit.min() >= 0
    assert unit.max() <= 1
    counts = np.histogram2d(*unit.T, bins=(16, 16), range=[(0, 1), (0, 1)])[0]
    if design == "sobol":
        # What makes it Sobol: each of the 256 boxes holds exactly its four points.
        assert np.all(counts == 4)
    else:
        assert 150 < ((counts - 4) ** 2 / 4).sum() < 370
    for n in (1, 5, 64):
        np.testing.assert_array_equal(draw(design, n, parameters, np.random.default_rng(5)), theta[:n])
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(draw(design, 5, parameters, np.random.default_rng(6)), theta[:5])


SCRIPT = """
import sys
from lstmfit.simulators import campaign, tasks
campaign._FLUSH_SECONDS = 0.2
tasks._TASK_ROWS = 2
if __name__ == "__main__":
    campaign.simulate_set(sys.argv[1], 40, simulator="toy_simulator:Toy", n_val=20, n_test=10, jobs=int(sys.argv[2]),
                          progress=False)
"""


def shards(path):
    return list(campaign._parts(Path(path)).glob("*.npz"))


def start_and_kill(path, folder, jobs, n_shards):
    """Start a campaign in another process, end it with SIGKILL when it has some shards, return its pid."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, script, path, str(jobs)], env={**os.environ, "TOY_SLEEP": "0.05"})
    try:
        deadline = time.monotonic() + 60
        while len(shards(path)) < n_shards:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.pid


@pytest.mark.parametrize("jobs", [1, 2])
def test_kill_and_resume_gives_the_same_bits(tmp_path, toy, jobs):
    path, plain = tmp_path / "killed.h5", tmp_path / "plain.h5"
    start_and_kill(path, toy, jobs, 2)
    start_and_kill(path, toy, jobs, 4)
    assert not path.exists()

    partial = collect(path, partial=True)
    assert not partial.complete
    kept = partial.n_train + partial.n_val + partial.n_test
    assert 0 < kept < 70
    # Validation and test come first, so that what is there can be used.
    assert partial.n_train == 0 or partial.n_val + partial.n_test > 20

    workers = {int(line.split()[0]) for line in (toy / "calls.log").read_text().splitlines()}
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "workers outlive their parent"

    (toy / "calls.log").unlink()
    made = simulate_set(path, 40, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    assert made.complete
    assert len(calls(toy)) == 70 - kept
    assert not campaign._parts(path).exists()
    simulate_set(plain, 40, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    assert_same_sets(path, plain)
    everything = datasets(path)
    for split, n in (("train", 40), ("val", 20), ("test", 10)):
        np.testing.assert_array_equal(everything[f"row_{split}"], np.arange(n))
    # What was collected half-way is part of the whole.
    early = datasets(partial.path)
    np.testing.assert_array_equal(early["signal_val"], everything["signal_val"][early["row_val"]])
    np.testing.assert_array_equal(early["par_train"], everything["par_train"][early["row_train"]])


def test_damaged_shard_is_simulated_again(tmp_path, toy, caplog):
    path, plain = tmp_path / "killed.h5", tmp_path / "plain.h5"
    start_and_kill(path, toy, 1, 3)
    victim = sorted(shards(path))[1]
    victim.write_bytes(victim.read_bytes()[:100])
    simulate_set(path, 40, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    assert "its rows will be simulated again" in caplog.text
    simulate_set(plain, 40, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    assert_same_sets(path, plain)


def test_one_campaign_at_a_time(tmp_path, toy):
    path = tmp_path / "set.h5"
    (toy / "script.py").write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, toy / "script.py", path, "1"], env={**os.environ, "TOY_SLEEP": "0.2"})
    try:
        deadline = time.monotonic() + 60
        while not shards(path):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(InputError, match="is being simulated by another process"):
            simulate_set(path, 40, simulator="toy_simulator:Toy", jobs=1, **SIZES)
        assert collect(path, partial=True).n_val > 0
        with pytest.raises(InputError, match=r"\d+ of 70 rows are not simulated yet"):
            collect(path)
    finally:
        process.kill()
        process.wait()


def test_a_set_can_grow_and_no_row_is_simulated_twice(tmp_path, toy):
    path, whole = tmp_path / "grown.h5", tmp_path / "whole.h5"
    simulate_set(path, 10, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    simulate_set(path, 48, simulator="toy_simulator:Toy", jobs=1, **{**SIZES, "n_test": 12})
    assert len(calls(toy)) == 48 + 20 + 12
    simulate_set(whole, 48, simulator="toy_simulator:Toy", jobs=1, **{**SIZES, "n_test": 12})
    assert_same_sets(path, whole)
    with pytest.raises(InputError, match=r"more signals \(10 < 12 for test, 47 < 48 for train\).*can only be enlarged"):
        simulate_set(path, 47, simulator="toy_simulator:Toy", jobs=1, **SIZES)


def test_finished_set_is_left_alone(tmp_path, toy, monkeypatch):
    path = tmp_path / "set.h5"
    first = simulate_set(path, 8, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    before, n_calls = path.read_bytes(), len(calls(toy))
    assert simulate_set(path, 8, simulator="toy_simulator:Toy", jobs=1, **SIZES) == first
    for other, named in (
        ({"seed": 1}, "seed was 0, now 1"),
        ({"design": "uniform"}, "design was 'sobol', now 'uniform'"),
        ({"simulator": "toy_simulator:ready"}, "simulator was 'toy_simulator:Toy', now"),
    ):
        with pytest.raises(InputError, match=f"{named}.*force to start over"):
            simulate_set(path, 8, **{"simulator": "toy_simulator:Toy", "jobs": 1, **SIZES, **other})
    monkeypatch.setattr(sys.modules["toy_simulator"].Toy, "version", "2")
    with pytest.raises(InputError, match="simulator_version was '1', now '2'"):
        simulate_set(path, 8, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    assert path.read_bytes() == before
    assert len(calls(toy)) == n_calls
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.h5", "toy"]
    simulate_set(path, 8, simulator="toy_simulator:Toy", jobs=1, force=True, **SIZES)
    assert datasets(path).keys()
    with h5py.File(path) as file:
        assert file.attrs["simulator_version"] == "2"


def test_interrupted_set_with_other_settings(tmp_path, toy):
    path = tmp_path / "set.h5"
    start_and_kill(path, toy, 1, 1)
    with pytest.raises(InputError, match=r"started with different settings.*seed was 0, now 4"):
        simulate_set(path, 40, simulator="toy_simulator:Toy", jobs=1, seed=4, **SIZES)
    assert shards(path)
    made = simulate_set(path, 40, simulator="toy_simulator:Toy", jobs=1, seed=4, force=True, **SIZES)
    assert made.complete


def test_someone_elses_file_is_not_touched(tmp_path, toy):
    path = tmp_path / "set.h5"
    path.write_text("mine")
    with pytest.raises(InputError, match="is not a set made by lstmfit simulate"):
        simulate_set(path, 8, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("jobs", [1, 2])
def test_failures_are_recorded(tmp_path, toy, monkeypatch, caplog, jobs):
    monkeypatch.setenv("TOY_FAILS_BELOW", "0.1")
    monkeypatch.setenv("TOY_NAN_ABOVE", "0.9")
    path = tmp_path / "set.h5"
    made = simulate_set(path, 64, simulator="toy_simulator:Toy", jobs=jobs, **SIZES)
    assert made.complete
    assert made.n_failed > 10
    assert made.n_train + made.n_val + made.n_test + made.n_failed == 94
    assert f"{made.n_failed} of 94 simulations failed" in caplog.text
    found = datasets(path)
    assert found["par_train"][:, 0].min() >= 0.1
    assert found["par_train"][:, 1].max() <= 0.9
    np.testing.assert_allclose(
        found["signal_train"][:, 0],
        -found["par_train"][:, 0] * np.exp(found["par_train"][:, 1] / 10),
        rtol=1e-6,
    )
    theta, messages = found["failed/theta"], [m.decode() for m in found["failed/message"]]
    for (a, _), message in zip(theta, messages):
        expected = f"ArithmeticError: a is {a:.3g}" if a < 0.1 else "SimulationError: the result is not finite"
        assert message == expected
    split = np.array([s.decode() for s in found["failed/split"]])
    rows = np.sort(np.concatenate([found["row_train"], found["failed/row"][split == "train"]]))
    np.testing.assert_array_equal(rows, np.arange(64))


def test_all_failed_is_an_error(tmp_path, toy, monkeypatch):
    monkeypatch.setenv("TOY_FAILS_BELOW", "1000")
    with pytest.raises(SimulationError, match=r"every training simulation failed; first failure: ArithmeticError: a"):
        simulate_set(tmp_path / "set.h5", 4, simulator="toy_simulator:Toy", jobs=1, **SIZES)


@pytest.mark.parametrize(
    ("variable", "jobs", "message"),
    [
        ("TOY_FAILS_BELOW", "1", "every training simulation failed; first failure: ArithmeticError: a"),
        ("TOY_FAILS_BELOW", "2", "every training simulation failed; first failure: ArithmeticError: a"),
        ("TOY_DIES", "2", "a worker process died"),
    ],
)
def test_a_failure_is_one_line_on_the_command_line(tmp_path, toy, variable, jobs, message):
    command = [sys.executable, "-m", "lstmfit", "simulate", "-o", "set.h5", "-n", "400", "--jobs", jobs, "--simulator",
               "toy_simulator:Toy"]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {variable: "1000"}, capture_output=True, text=True, timeout=300
    )
    # Besides the progress bar, which is redrawn in its own line.
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and "signal" not in line]
    assert done.returncode == 1
    assert [line.startswith(f"lstmfit: {message}") for line in lines] == [True], done.stderr
    assert len(lines[0]) < 400


def test_dead_worker_is_an_error_that_keeps_what_was_finished(tmp_path, toy, monkeypatch):
    monkeypatch.setenv("TOY_DIES", "yes")
    path = tmp_path / "set.h5"
    with pytest.raises(SimulationError, match=r"a worker process died .*; repeat the command to continue"):
        simulate_set(path, 400, simulator="toy_simulator:Toy", jobs=2, **SIZES)
    monkeypatch.delenv("TOY_DIES")
    assert simulate_set(path, 400, simulator="toy_simulator:Toy", jobs=1, **SIZES).n_train == 400


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n is 0; expected a whole number, 1 or above"),
        ({"n": 2.5}, "n is 2.5; expected a whole number"),
        ({"n": 4, "n_test": -1}, "n_test is -1"),
        ({"n": 4, "jobs": 0}, "jobs is 0"),
        ({"n": 4, "seed": -1}, "seed is -1; expected a whole number, 0 or above"),
        ({"n": 4, "design": "sobel"}, r"unknown design 'sobel'; did you mean 'sobol'\?"),
        ({"n": 4, "design": "lhs"}, "unknown design 'lhs'; known are sobol, uniform"),
        ({"n": 4, "jobs": 1, "simulator": "echo12"}, "unknown simulator 'echo12'; did you mean 'echo21'"),
        ({"n": 4, "jobs": 1, "simulator": "toy_simulator:no_simulator"}, "lacks redshifts, parameters"),
    ],
)
def test_wrong_settings(tmp_path, toy, settings, message):
    with pytest.raises(InputError, match=message):
        simulate_set(tmp_path / "set.h5", **{"progress": False, **settings})
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_collect_without_a_campaign(tmp_path):
    with pytest.raises(InputError, match="there is no campaign at"):
        collect(tmp_path / "set.h5", partial=True)


def test_sizes_that_are_not_given():
    def sizes(n):
        return campaign._check_counts(n, None, None, None)

    assert sizes(10) == {"val": 16, "test": 16, "train": 10}
    assert sizes(1001)["val"] == 126
    assert sizes(10**6)["test"] == 2048


@pytest.mark.mpi
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
def test_ranks_make_the_same_set(tmp_path, toy):
    code = (
        "import sys, json, dataclasses\n"
        "from lstmfit.simulators.campaign import simulate_set\n"
        "made = simulate_set(sys.argv[1], 40, simulator='toy_simulator:Toy', n_val=20, n_test=10, progress=False)\n"
        "print(json.dumps(made is None))\n"
    )
    path, plain = tmp_path / "ranks.h5", tmp_path / "plain.h5"
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "TOY_SLEEP": "0.01"})
    assert done.returncode == 0, done.stderr
    # Ranks share one stdout: their lines can run into each other.
    assert (done.stdout.count("true"), done.stdout.count("false")) == (2, 1)
    # The first rank hands out the work, the other two do it.
    ranks = {line.split()[0] for line in (toy / "calls.log").read_text().splitlines()}
    assert len(ranks) == 2
    simulate_set(plain, 40, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    assert_same_sets(path, plain)
    done = subprocess.run([*command[:-1], tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0


@pytest.mark.mpi
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
def test_a_killed_rank_loses_nothing(tmp_path, toy):
    path, plain = tmp_path / "ranks.h5", tmp_path / "plain.h5"
    (toy / "script.py").write_text(SCRIPT)
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", sys.executable]
    process = subprocess.Popen(
        [*command, toy / "script.py", path, "2"],
        env={**os.environ, "TOY_SLEEP": "0.05"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(shards(path)) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # Of the ranks that the log names, which do the work, one.
    os.kill(int((toy / "calls.log").read_text().split()[0]), signal.SIGKILL)
    assert process.wait(timeout=90) != 0
    kept = collect(path, partial=True)
    kept = kept.n_train + kept.n_val + kept.n_test
    assert 0 < kept < 70
    (toy / "calls.log").unlink()
    more = ["-m", "lstmfit", "simulate", "-o", path, "-n", "40", "--simulator", "toy_simulator:Toy"]
    done = subprocess.run(
        [*command, *more, "--n-val", "20", "--n-test", "10"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("40 training, 20 validation, 10 test signals") == 1
    assert len(calls(toy)) == 70 - kept
    simulate_set(plain, 40, simulator="toy_simulator:Toy", jobs=1, **SIZES)
    assert_same_sets(path, plain)
