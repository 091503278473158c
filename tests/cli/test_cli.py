"""The command line as a user types it: exit status, one line for each mistake, JSON."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import lstmfit, small_run

from lstmfit._version import __version__
from lstmfit.cli.options import writable, writable_folder
from lstmfit.errors import InputError


def test_help_names_every_command():
    done = lstmfit("--help")
    assert done.returncode == 0
    for command in ("fit", "check", "plot", "simulate", "train", "evaluate", "emulators", "data", "bench", "doctor"):
        assert command in done.stdout
    assert lstmfit("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "none.yaml"), "no run file none.yaml"),
        (("fit", "mock_25mk"), "did you mean 'mock_25mK'"),
        (("evaluate", "eco21"), "did you mean 'echo21'"),
        (("train", "none.h5", "-o", "e.h5"), "no set of signals none.h5"),
        (("simulate", "-o", "s.h5", "-n", "0"), "n is 0"),
        (("simulate", "-o", "s.h5", "-n", "4", "--simulator", "eco21"), "did you mean 'echo21'"),
        (("plot", "."), "is not a run folder"),
        (("data", "fetch", "edges2019"), "did you mean 'edges2018'"),
        (("data", "fetch", "edges2018", "-o", "d", "--from", "none.csv"), "no file none.csv"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, message, tmp_path):
    done = lstmfit(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not [path for path in tmp_path.iterdir() if path.name != "d"]


def test_a_typing_error_is_status_2():
    assert lstmfit("fit").returncode == 2
    assert lstmfit("fti").returncode == 2


def test_check_reports_and_writes_nothing(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small_run()))
    done = lstmfit("check", "run.yaml", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "expected likelihood calls" in done.stderr
    assert report["finite_fraction"] == 1.0
    assert all(report[f"{part}_us"] > 0 for part in ("prior", "signal", "likelihood", "total"))
    assert report["D_KL_bound_p95"] > report["D_KL_bound_mean"] > 0.0
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_evaluate_json(tmp_path):
    done = lstmfit("evaluate", "echo21", "--json", tmp_path / "e.json")
    assert done.returncode == 0, done.stderr
    errors = json.loads((tmp_path / "e.json").read_text())
    assert {"mean_percent", "median_percent", "p95_percent", "max_percent", "mean_mK", "n"} <= set(errors)
    assert errors["n"] == 1024


@pytest.mark.slow
@pytest.mark.ci
def test_simulate_train_evaluate_end_to_end(tmp_path):
    sizes = ("-n", "64", "--n-val", "16", "--n-test", "32", "--jobs", "1")
    done = lstmfit("simulate", "-o", "s.h5", *sizes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    options = ("--updates", "20", "--batch", "32", "--units", "16", "--steps", "3")
    done = lstmfit("train", "s.h5", "-o", "e.h5", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"s.h5", "e.h5", "e_test.h5"}
    assert lstmfit("train", "s.h5", "-o", "e.h5", *options, cwd=tmp_path).returncode == 2
    done = lstmfit("evaluate", "e.h5", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 32


def test_data_fetch_refuses_a_file_that_is_not_the_public_one(tmp_path):
    """Its own checksum must not become the expected one."""
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    for _ in range(2):
        done = lstmfit("data", "fetch", "edges2018", "-o", "cache", "--from", "mine.csv", cwd=tmp_path)
        assert done.returncode == 2
        assert "is not the public edges2018: its SHA-256 is" in done.stderr
        assert "damaged or another file" in done.stderr
        assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "cache" / "edges2018_figure1.csv").write_text("a,b\n1,3\n")
    done = lstmfit("data", "fetch", "edges2018", "-o", "cache", cwd=tmp_path)
    assert done.returncode == 2
    assert "damaged or another file" in done.stderr


def test_doctor_and_emulators():
    done = lstmfit("doctor")
    assert done.returncode == 0
    assert "PolyChord" in done.stdout
    done = lstmfit("emulators", "--json", "-")
    assert "echo21" in json.dumps(json.loads(done.stdout))


@pytest.mark.parametrize("command", [("check", "mock_25mK"), ("evaluate", "echo21"), ("emulators",)])
def test_json_that_cannot_be_written_is_refused_before_the_work(tmp_path, command):
    done = lstmfit(*command, "--json", tmp_path / "nowhere" / "x.json")
    assert done.returncode == 2
    nowhere = tmp_path / "nowhere"
    said = f"cannot write {nowhere}/x.json: there is no folder {nowhere}; create it or give another path"
    assert done.stderr == f"lstmfit: {said}\n"
    assert not done.stdout
    done = lstmfit(*command, "--json", tmp_path)
    assert (done.returncode, done.stderr) == (2, f"lstmfit: cannot write {tmp_path}: it is a folder; give a file\n")


def test_a_report_or_a_picture_that_cannot_be_written_is_refused(tmp_path):
    for command in (("report", "x", "-o"), ("compare", "x", "y", "--plot"), ("evaluate", "echo21", "--plot")):
        done = lstmfit(*command, tmp_path / "nowhere" / "x")
        assert done.returncode == 2
        assert "there is no folder" in done.stderr


@pytest.mark.parametrize("target", ["/dev/null", "/dev/stdout", "/dev/nothing"])
def test_devices_are_not_replaced_by_files(target):
    with pytest.raises(InputError, match=rf"cannot write {target}: it is not a regular file; give a file .*stdout"):
        writable(target)


def test_a_place_that_takes_no_files_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: it is not a regular file"):
        writable(tmp_path / "pipe")
    # Root may write everywhere, says the kernel, but there it makes no file.
    with pytest.raises(InputError, match=r"cannot write /proc/x.json: .+; give another path"):
        writable("/proc/x.json")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write into .*/file/deep/er: .*/file is a file; give another folder"):
        writable_folder(tmp_path / "file" / "deep" / "er")
    with pytest.raises(InputError, match=r"cannot write into /proc/campaign: .+; give another path"):
        writable_folder(Path("/proc/campaign"))
    assert writable_folder(tmp_path / "new" / "er") == tmp_path / "new" / "er"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["file", "pipe"]


@pytest.mark.parametrize("command", [("bias", "x"), ("calibrate", "mock_25mK"), ("simulate", "-o", "s.h5", "-n", "8")])
def test_jobs_are_a_number_from_one_on(tmp_path, command):
    done = lstmfit(*command, "--jobs", "0", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "lstmfit: jobs is 0, but a whole number of at least 1 is needed\n")
    assert not list(tmp_path.iterdir())


def test_warnings_are_one_line(tmp_path):
    run = small_run()
    run["likelihood"]["global_signal"]["noise"]["sigma"] = 0.025
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    done = lstmfit("check", "run.yaml", cwd=tmp_path)
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "warning" in line.lower()]
    assert len(said) == 1
    assert said[0].startswith("lstmfit: warning: ")
    assert ".py" not in done.stderr


def test_a_wrong_time_limit_is_refused(tmp_path):
    done = lstmfit("fit", "mock_25mK", "--time-limit", "soon", cwd=tmp_path)
    assert done.returncode == 2
    assert "time limit is 'soon'" in done.stderr


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_tables_break_no_cell(width):
    """`compare` printed "2.78e+39 ±" on one line and "1.5e+39" on the next."""
    code = (
        "from lstmfit.console import print_table\n"
        "cell = '2.78e+39 ± 1.5e+39'\n"
        "print_table(['', *'ABCDEFG'], [[f'name_{i}', *[cell] * 7] for i in range(3)])"
    )
    environment = os.environ | {"COLUMNS": str(width)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.count("2.78e+39 ± 1.5e+39") == 21
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    # Each block of columns says which row is which.
    blocks = 1 + lines.count("")
    assert sum(line.startswith("name_0") for line in lines) == blocks
    assert all(done.stdout.count(f" {letter}\n") + done.stdout.count(f" {letter} ") >= 1 for letter in "ABCDEFG")


def test_help_shows_every_default():
    done = lstmfit("train", "--help", env=os.environ | {"COLUMNS": "200"})
    defaults = {"--updates": "100000", "--batch": "128; gated: 512", "--steps": "11"}
    defaults |= {"--encoder": "256", "--half": "off", "--spec": "from the file", "--seed": "0"}
    defaults |= {"--units": "128; gated: 160; published: 451", "--blocks": "8"}
    defaults |= {"--learning-rate": "0.0125; gated: 0.01"}
    options = done.stdout.split("Options:")[1]
    lines = [" ".join(text.split()) for text in re.split(r"\n {2}(?=-)", options)[1:] if "--help" not in text]
    for option, default in defaults.items():
        line = next(line for line in lines if option in line)
        assert f"default: ({default})" in line or f"default: {default}" in line, line
    assert len(lines) > 12
    assert all("[default: " in line or "[required]" in line for line in lines)


def test_check_speaks_of_what_it_found(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small_run()))
    done = lstmfit("check", "run.yaml", cwd=tmp_path)
    for label in ("expected likelihood calls", "bound on D_KL for the mean error [nat]", "signal [µs per call]"):
        assert label in done.stdout
    assert "_us" not in done.stdout
    assert "D KL" not in done.stdout
