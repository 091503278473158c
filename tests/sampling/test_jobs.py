"""Serial PolyChord runs side by side: merged to one run, errors of children, interruption and resumption."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gaussian import (
    LATEX,
    MEAN,
    NAMES,
    SIGMA,
    Failing,
    N,
    dead,
    evidence,
    identity,
    live_points,
    make_gaussian,
    read,
    settings,
)  # fmt: skip

from lstmfit.errors import InputError
from lstmfit.sampling.polychord import jobs as jobs_module
from lstmfit.sampling.polychord.jobs import run_here, run_jobs, share_live_points
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.state import read_state, write_state


def make_failing(error):
    return SimpleNamespace(
        loglikelihood=Failing(error), prior_transform=identity, names=NAMES, derived_names=[], latex=LATEX
    )


def make_dying():
    def die(theta):
        if os.environ.get(jobs_module.OWN_OUTPUT_VARIABLE):
            sys.stderr.write("about to die\n")
            sys.stderr.flush()
            os._exit(7)
        return 0.0

    return SimpleNamespace(loglikelihood=die, prior_transform=identity, names=NAMES, derived_names=[], latex=LATEX)


def test_jobs_merge_to_one_run(tmp_path):
    """Evidence and information are those of anesthetic's own merge of the parts, and right."""
    from anesthetic.samples import merge_nested_samples

    seen = []
    result = run_jobs(make_gaussian, settings(n_live=151), tmp_path, jobs=2, progress=seen.append)
    samples = read(tmp_path / "chain")
    parts = [read(tmp_path / "parts" / str(i) / "chain") for i in range(8)]
    merged = merge_nested_samples(parts)
    # Twelve repeats: eight draws from the prior for each live point.
    assert [part.nlive.max() for part in parts] == [8 * 19] * 7 + [8 * 18]
    assert samples.nlive.max() == 8 * 151
    assert live_points(samples) == 151
    assert samples.logZ() == pytest.approx(merged.logZ(), abs=1e-9)
    assert samples.D_KL() == pytest.approx(merged.D_KL(), abs=1e-9)
    assert result.logZ == pytest.approx(merged.logZ(), abs=1e-9)
    logZ, error = evidence(samples)
    assert abs(logZ) < 3 * error
    assert result.logZ_err == pytest.approx(error)
    assert result.n_dead == len(samples) == sum(map(len, parts))
    assert result.n_like == sum(read_state(tmp_path / "parts" / str(i), "chain")["n_like"] for i in range(8))
    np.testing.assert_allclose(samples["total"], samples["p0"] + samples["p1"], rtol=1e-12)
    # The posterior files say the same as the birth contours.
    weighted = np.loadtxt(tmp_path / "chain.txt")
    assert weighted.shape == (len(weighted), 2 + N + 1)
    assert weighted[:, 0].max() == 1
    mean = np.average(weighted[:, 2 : 2 + N], weights=weighted[:, 0], axis=0)
    np.testing.assert_allclose(mean, samples[NAMES].mean().to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(mean, MEAN, atol=0.1 * SIGMA.max())
    equal = np.loadtxt(tmp_path / "chain_equal_weights.txt")
    assert (equal[:, 0] == 1).all()
    np.testing.assert_allclose(equal[:, 2 : 2 + N].mean(axis=0), mean, atol=0.2 * SIGMA.max())
    assert seen[-1].n_dead <= len(samples)
    # Finished: nothing runs again.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("chain*.txt")}
    assert run_jobs(make_gaussian, settings(n_live=151), tmp_path, jobs=2, resume=True) == result
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("chain*.txt")} == before


def test_runs_are_reproducible_and_independent_of_how_many_run_at_once(tmp_path):
    """One, two or eight processes, or this one: the same points, also where a process does several runs in turn."""
    for jobs in (1, 2, 8):
        run_jobs(make_gaussian, settings(n_live=100), tmp_path / str(jobs), jobs=jobs)
    run_here(make_gaussian(), settings(n_live=100), tmp_path / "here")
    one, *others = ((folder / "chain_dead-birth.txt").read_bytes() for folder in sorted(tmp_path.iterdir()))
    assert others == [one] * 3
    states = [read_state(folder, "chain") for folder in sorted(tmp_path.iterdir())]
    assert [state["ranks"] for state in states] == [1, 2, 8, 1]
    assert [state["mean_inflation"] for state in states[1:]] == [states[0]["mean_inflation"]] * 3
    assert (tmp_path / "1" / "parts" / "3" / "log.txt").is_file()


def test_one_run_of_an_older_version_is_resumed_as_one(tmp_path):
    run_polychord(make_gaussian(), tmp_path, "chain", settings(), stop=lambda: True)
    state = read_state(tmp_path, "chain")
    assert not state.get("finished")
    # It had no such setting.
    del state["settings"]["n_prior"]
    write_state(tmp_path, "chain", state)
    result = run_here(make_gaussian(), settings(), tmp_path, resume=True)
    assert result.finished
    assert not (tmp_path / "parts").exists()
    assert live_points(read(tmp_path / "chain")) == 100


def test_too_many_jobs_for_the_live_points(caplog):
    with caplog.at_level(logging.INFO, logger="lstmfit"):
        assert share_live_points(70, 16, 7) == [24, 23, 23]
    assert "3 of 16 jobs are used" in caplog.text
    assert share_live_points(50, 2, 7) == [25, 25]
    assert share_live_points(175, 1, 7) == share_live_points(175, 8, 7) == [22] * 7 + [21]
    assert share_live_points(175, 3, 7) == [30] + [29] * 5
    assert len(share_live_points(175, 16, 7)) == 8
    assert share_live_points(100, 2, 15) == [50, 50]
    assert share_live_points(5, 4, 7) == [5]


def test_children_errors_come_back(tmp_path):
    with pytest.raises(InputError, match=r"^no such line$"):
        run_jobs(partial(make_failing, InputError("no such line")), settings(), tmp_path, jobs=2)
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: deep inside \(traceback in .*log.txt\)"):
        run_jobs(partial(make_failing, ZeroDivisionError("deep inside")), settings(), tmp_path, jobs=2)
    # Either child may be the first to fail, and the other is stopped.
    assert any("in __call__" in path.read_text() for path in (tmp_path / "parts").rglob("log.txt"))


def test_child_that_dies_is_noticed(tmp_path):
    with pytest.raises(RuntimeError, match=r"part 0 .* status 7 \(about to die\)"):
        run_jobs(make_dying, settings(), tmp_path, jobs=1)


def test_jobs_input_errors(tmp_path):
    with pytest.raises(InputError, match="jobs is 0"):
        run_jobs(make_gaussian, settings(), tmp_path, jobs=0)
    with pytest.raises(InputError, match="cannot be sent to another process"):
        run_jobs(lambda: make_gaussian(), settings(), tmp_path, jobs=1)


MAIN_SCRIPT = """
    import sys
    from types import SimpleNamespace
    from lstmfit.errors import InputError
    from lstmfit.sampling.polychord.jobs import run_jobs
    from lstmfit.sampling.polychord.settings import PolyChordSettings

    def make():
        return SimpleNamespace(loglikelihood=lambda theta: -theta[0] ** 2, prior_transform=lambda cube: cube,
                               names=["a"], derived_names=[], latex=["a"])

    {guard}
        result = run_jobs(make, PolyChordSettings(n_live=20, num_repeats=2, seed=1), {folder!r}, jobs=2)
        print("finished", result.finished)
"""


@pytest.mark.parametrize("guard", ["if __name__ == '__main__':", "if True:"])
def test_problem_in_a_script(tmp_path, guard):
    """A function of the script itself will do; without the guard the script would start itself without end."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(MAIN_SCRIPT.format(guard=guard, folder=str(tmp_path / "out"))))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    if "True" in guard:
        assert "put the code that starts it under if __name__ == '__main__':" in done.stderr.splitlines()[-1]
    else:
        assert done.stdout == "finished True\n"


# ---------------------------------------------------------------- interruption of jobs from outside

SCRIPT = """
    import sys
    from functools import partial
    sys.path.insert(0, {tests!r})
    from gaussian import make_gaussian, settings
    from lstmfit.sampling.polychord.jobs import run_jobs
    run_jobs(partial(make_gaussian, 2e-4), settings(n_live=100), {folder!r}, jobs=2)
"""


def start_jobs(folder):
    """A run in a process of its own, once both parts have gone some way."""
    script = textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    # A shell that starts things in the background lets its children ignore Ctrl-C; these must not.
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    files = [folder / "parts" / str(i) / "chain.resume" for i in range(2)]
    deadline = time.monotonic() + 60
    while not all(file.is_file() and dead(file) > 50 for file in files):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            continue
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_interrupted_jobs_resume(tmp_path, number, status):
    process = start_jobs(tmp_path)
    children = children_of(process.pid)
    assert len(children) == 2
    process.send_signal(number)
    assert process.wait(timeout=90) == status
    process.stderr.close()
    deadline = time.monotonic() + 60
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "children outlive their parent"
        time.sleep(0.05)
    roots = [tmp_path / "parts" / str(i) / "chain" for i in range(2)]
    n_dead = [dead(f"{root}.resume") for root in roots]
    before = [Path(f"{root}_dead-birth.txt").read_text().splitlines()[:n] for root, n in zip(roots, n_dead)]
    states = [read_state(root.parent, "chain") for root in roots]
    assert not any(state.get("finished") for state in states)
    spent = [state["n_like"] for state in states]
    assert min(spent) > 0
    result = run_jobs(make_gaussian, settings(n_live=100), tmp_path, jobs=2, resume=True)
    assert result.finished
    assert result.n_like > sum(spent)
    for root, lines in zip(roots, before):
        assert Path(f"{root}_dead-birth.txt").read_text().splitlines()[: len(lines)] == lines
    logZ, error = evidence(read(tmp_path / "chain"))
    assert abs(logZ) < 3 * error
    assert json.loads((tmp_path / "chain.state.json").read_text())["finished"]
    with pytest.raises(InputError, match="started with 4 parameters"):
        run_jobs(partial(make_gaussian, 0.0, 3), settings(n_live=100), tmp_path, jobs=2, resume=True)
