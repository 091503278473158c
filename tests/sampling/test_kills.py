"""Runs that are killed with -9 at any moment, disks that are full, folders that are read-only: nothing is lost."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from anesthetic import read_chains
from gaussian import live_points
from helpers import small_run

from lstmfit.calibration import calibrate
from lstmfit.driver import fit
from lstmfit.errors import InputError
from lstmfit.simulators.campaign import simulate_set

KILLS = 20
FULL = "cannot write .*: No space left on device; free some space, and "


def assert_complete(folder, reference=None):
    """A finished run whose files are whole, with the evidence and the posterior of an uninterrupted one."""
    summary = json.loads((folder / "summary.json").read_text())
    rows = [line.split() for line in (folder / "chain_dead-birth.txt").read_text().splitlines()]
    assert {len(row) for row in rows} == {5}
    assert np.isfinite(np.array(rows, dtype=float)[:, :-1]).all()
    assert len({tuple(row) for row in rows}) == len(rows)
    samples = read_chains(str(folder / "chain"))
    assert live_points(samples) == summary["n_live"]
    for part in (folder / "parts").iterdir():
        assert len((part / "chain_dead-birth.txt").read_text().splitlines()) > 0
    leftovers = [p.name for p in folder.rglob("*") if p.name.endswith((".part", ".kept", ".new"))]
    assert not leftovers
    for picture in ("corner.png", "signal.png"):
        assert (folder / picture).read_bytes().endswith(b"IEND\xaeB\x60\x82")
    if reference is not None:
        assert abs(summary["logZ"] - reference["logZ"]) < 4 * np.hypot(summary["logZ_err"], reference["logZ_err"])
        for name, p in summary["parameters"].items():
            q = reference["parameters"][name]
            assert abs(p["mean"] - q["mean"]) < 0.5 * q["std"]
            assert p["std"] == pytest.approx(q["std"], rel=0.4)
    return summary


# ---------------------------------------------------------------- kill -9

COMMAND = [sys.executable, "-m", "lstmfit", "fit"]


def start(run, folder):
    """Start a fit as a user does, and wait until it has written its run file."""
    line = [*COMMAND, str(run), "-o", str(folder), "--jobs", "2"]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "run.yaml").is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process, time.monotonic()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_resumed(tmp_path):
    """From the first file to the last, one moment in each twentieth; resumed at once, while children may still live."""
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(small_run()))
    process, began = start(run, tmp_path / "whole")
    assert process.wait(timeout=300) == 0
    duration = time.monotonic() - began
    reference = assert_complete(tmp_path / "whole")
    unfinished, failed = 0, []
    for i, moment in enumerate((np.arange(KILLS) + np.random.default_rng(1).uniform(size=KILLS)) / KILLS):
        folder = tmp_path / f"killed_{i}"
        process, began = start(run, folder)
        time.sleep(max(0.0, began + moment * duration - time.monotonic()))
        process.send_signal(signal.SIGKILL)
        process.wait()
        unfinished += not (folder / "summary.json").is_file()
        try:
            fit(str(run), folder, jobs=2, resume=True)
            assert_complete(folder, reference)
        except Exception as error:
            failed.append(f"killed at {moment:.2f} of the run: {type(error).__name__}: {error}")
    assert not failed, f"{KILLS - len(failed)} of {KILLS} resumed; {failed}"
    # Others may have been faster than the first, but not most of them.
    assert unfinished > KILLS // 2


# ---------------------------------------------------------------- disks


@pytest.fixture
def disk(tmp_path):
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def leave(disk, kilobytes):
    """Fill the disk up to so much."""
    filler = disk / "filler"
    filler.write_bytes(bytes(1024 * (2048 - kilobytes)))
    return filler


LEFT = [
    pytest.param(10, marks=pytest.mark.slow),  # not even the data
    pytest.param(60, marks=pytest.mark.slow),  # not the first live points
    300,  # while it samples: PolyChord's own files are cut short
    pytest.param(600, marks=pytest.mark.slow),  # when the parts are merged
    pytest.param(800, marks=pytest.mark.slow),  # for the pictures
]


@pytest.mark.parametrize("left", LEFT)
def test_fit_on_a_full_disk_is_resumed_when_there_is_space(disk, left):
    run = small_run()
    filler = leave(disk, left)
    with pytest.raises(InputError, match=FULL + ".*resume; finished work is kept"):
        fit(run, disk / "out", jobs=2)
    states = [json.loads(f.read_text()) for f in disk.glob("out/parts/*/chain.state.json")]
    filler.unlink()
    fit(run, disk / "out", jobs=2, resume=True)
    summary = assert_complete(disk / "out")
    # Not from the beginning: what had been done counts.
    assert summary["n_like"] >= sum(state["n_like"] for state in states)
    if left == 300:
        # A part that began just before may have no dead points yet.
        assert max(state["n_dead"] for state in states) > 0


def test_the_command_says_one_line(disk):
    (disk / "run.yaml").write_text(yaml.safe_dump(small_run()))
    leave(disk, 100)
    line = [*COMMAND, str(disk / "run.yaml"), "-o", str(disk / "out"), "--jobs", "1"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    said = [text for text in done.stderr.splitlines() if text.startswith("lstmfit: ")]
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert "Traceback" not in done.stderr


def test_simulate_on_a_full_disk(disk):
    settings = dict(n_val=16, n_test=16, jobs=1, progress=False)
    for left in (4, 60):
        filler = leave(disk, left)
        with pytest.raises(InputError, match=FULL + "repeat the command; finished work is kept"):
            simulate_set(disk / "set.h5", 40, **settings)
        assert not (disk / "set.h5").exists()
        assert not list(disk.rglob("*.part"))
        filler.unlink()
    assert simulate_set(disk / "set.h5", 40, **settings).complete


@pytest.mark.parametrize("left", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_calibrate_on_a_full_disk(disk, left):
    run = small_run(sampler={"polychord": {"nlive": 30, "num_repeats": 2, "seed": 1}})
    filler = leave(disk, left)
    with pytest.raises(InputError, match=FULL):
        calibrate(run, disk / "c", 1, points=0, jobs=1)
    filler.unlink()
    assert calibrate(run, disk / "c", 1, points=0, jobs=1)["n"] == 1


def test_a_read_only_folder(disk):
    (disk / "out").mkdir()
    (disk / "out" / "run.yaml").write_text("precious")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    run = small_run()
    for folder in (disk / "out", disk / "new"):
        with pytest.raises(InputError, match=r"cannot write into .*; choose another folder with -o"):
            fit(run, folder, jobs=1)
    with pytest.raises(InputError, match=r"cannot write .*: Read-only file system; fix this or choose another folder"):
        simulate_set(disk / "set.h5", 4, jobs=1, progress=False)
    with pytest.raises(InputError, match=r"cannot write .*: Read-only file system"):
        calibrate(run, disk / "c", 1, jobs=1)
    assert [p.name for p in disk.iterdir()] == ["out"]
    assert (disk / "out" / "run.yaml").read_text() == "precious"
