"""What a fit meets outside: hostile folders, odd environments, signals; one line each, and no code of strangers."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers import long_run, small_run

from lstmfit.errors import InputError
from lstmfit.files import replacing, user_path

LSTMFIT = str(Path(sys.executable).with_name("lstmfit"))
"""The console script: `python -m lstmfit` itself looks for modules in the current folder."""


def lstmfit(*arguments, cwd, **environment):
    return subprocess.run(
        [LSTMFIT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300,
        env={key: value for key, value in (os.environ | environment).items() if value is not None}, check=False,
    )  # fmt: skip


def one_line_of(done, status=2):
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert len(lines[0]) < 400
    return lines[0]


@pytest.fixture
def hostile(tmp_path):
    """A folder with modules of the names that a starting Python imports; each leaves a trace when it is run."""
    for name in ("json", "multiprocessing", "pickle", "numpy", "lstmfit", "sitecustomize", "random", "concurrent"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + ' ')\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.ci
def test_no_module_of_the_current_folder_is_run_by_a_fit(hostile):
    (hostile / "run.yaml").write_text(yaml.safe_dump(small_run()))
    done = lstmfit("fit", "run.yaml", "-o", "out", "--jobs", "2", cwd=hostile)
    assert done.returncode == 0, done.stderr
    assert not (hostile / "ran").exists(), (hostile / "ran").read_text()


@pytest.mark.slow
@pytest.mark.ci
def test_no_module_of_the_current_folder_is_run_by_pools(hostile):
    run = small_run(sampler={"polychord": {"nlive": 20, "num_repeats": 2}})
    (hostile / "run.yaml").write_text(yaml.safe_dump(run))
    done = lstmfit("calibrate", "run.yaml", "-n", "2", "--points", "0", "-o", "c", "--jobs", "2", cwd=hostile)
    assert done.returncode == 0, done.stderr
    assert not (hostile / "ran").exists(), (hostile / "ran").read_text()


def test_every_child_process_is_isolated():
    """Whoever starts Python from Python says so to it: -P, or PYTHONSAFEPATH as in the pools."""
    sources = [*Path(__file__).parents[2].joinpath("lstmfit").rglob("*.py")]
    starts = [line for path in sources for line in path.read_text().splitlines() if "[sys.executable," in line]
    assert starts
    assert all('"-P"' in line for line in starts), starts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "x" * 300), "is too long"),
        (("check", "~nouser/run.yaml"), "no such user"),
        (("fit", "mock_25mK", "-o", "y" * 300), "is too long"),
        (("report", "nowhere"), "is not a run folder"),
        (("plot", "."), "is not a run folder"),
        (("evaluate", "none.h5"), "none.h5"),
    ],
)
def test_paths_that_cannot_be_are_one_line(tmp_path, arguments, message):
    assert message in one_line_of(lstmfit(*arguments, cwd=tmp_path))


def test_a_shell_of_srun_with_one_task_is_not_mpi(tmp_path):
    """Slurm tells it a rank; MPI_Init would abort."""
    slurm = {"PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.1.0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    done = lstmfit("check", "mock_25mK", cwd=tmp_path, **slurm)
    assert done.returncode == 0, done.stderr


def test_an_unexpected_error_is_one_line_and_a_log(tmp_path):
    code = (
        "import sys, lstmfit.checks, lstmfit.cli\n"
        "def broken(*_): raise ZeroDivisionError('a bug\\nof ours')\n"
        "lstmfit.checks.check_run = broken\n"
        "sys.argv = ['lstmfit', 'check', 'mock_25mK']\n"
        "lstmfit.cli.main()"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    line = one_line_of(done, 1)
    assert "unexpected ZeroDivisionError: a bug of ours; the full log is in" in line
    log = Path(line.rsplit(" ", 1)[1])
    assert "Traceback" in log.read_text()
    assert "lstmfit check mock_25mK" in log.read_text()


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_fit_that_is_stopped_says_how_to_continue(tmp_path, number, status, word):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(long_run()))
    process = subprocess.Popen(
        [LSTMFIT, "fit", "run.yaml", "-o", "out", "--jobs", "2"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        # A shell lets its background jobs ignore Ctrl-C, and so this process, if the tests are one.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/parts/*/chain.resume")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    said = [line for line in error.splitlines() if "--resume" in line]
    assert len(said) == 1
    assert said[0].startswith(f"lstmfit: {word}; to resume, repeat the command with --resume")
    assert "Traceback" not in error


def test_a_folder_removed_during_a_run_is_one_line(tmp_path):
    import shutil

    (tmp_path / "run.yaml").write_text(yaml.safe_dump(long_run()))
    process = subprocess.Popen(
        [LSTMFIT, "fit", "run.yaml", "-o", "out", "--jobs", "2"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/parts/*/chain.resume")) and time.monotonic() < deadline:
        time.sleep(0.05)
    # Renamed first, because the run may write to the folder while it is removed.
    (tmp_path / "out").rename(tmp_path / "removed")
    shutil.rmtree(tmp_path / "removed")
    _, error = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert "Traceback" not in error
    assert sum(line.startswith("lstmfit: ") for line in error.splitlines()) == 1


def test_only_ordinary_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "not a regular file"), (tmp_path, "a folder")):
        with pytest.raises(InputError, match=f"cannot write .*: it is {what}"), replacing(path):
            pass
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["", "a\0b", "x/" + "y" * 256, "z/" * 2500])
def test_names_that_no_file_system_holds(name):
    with pytest.raises(InputError, match="path"):
        user_path(name)


def test_tables_print_what_stands_in_brackets(tmp_path):
    """Rich takes [nautilus] for markup and drops it."""
    from lstmfit import doctor

    code = (
        "import importlib.util, lstmfit.doctor, lstmfit.cli, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'nautilus' else find(name, *a)\n"
        "sys.argv = ['lstmfit', 'doctor']; lstmfit.cli.main()"
    )
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert 'pip install "lstmfit[nautilus]"' in done.stdout
    assert dict(doctor.EXTRAS)["nautilus"] == "nautilus"


def progress_in_a_terminal(width, **environment):
    """What a fit writes to a terminal of this width."""
    import pty

    code = (
        "import time; from lstmfit.console import ProgressLine; from lstmfit.sampling.result import Progress\n"
        "line = ProgressLine(every_s=0.5)\n"
        "for i in range(20):\n"
        "    line(Progress(n_dead=10**9, n_like=10**12, logZ=-1e9, logZ_err=123.45, elapsed=0.1 * i, remaining=1e6))\n"
        "    time.sleep(0.1)\n"
        "line.close()\n"
    )
    ours, theirs = pty.openpty()
    given = os.environ | {"COLUMNS": str(width), "TERM": "xterm"} | environment
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=given)
    process.wait(timeout=60)
    os.close(theirs)
    written = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:
            break
        if not block:
            break
        written += block
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("width", [40, 80])
def test_the_status_line_never_wraps(width):
    """A wrapped line is not written over: the screen fills with its beginnings."""
    text = progress_in_a_terminal(width)
    assert "dead 1,000" in text
    for line in text.replace("\r", "\n").split("\n"):
        visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)
        assert len(visible) <= width, visible


def test_a_notebook_gets_lines_now_and_then_not_frames():
    assert len(progress_in_a_terminal(80, JPY_PARENT_PID="1").splitlines()) < 8
