"""The run folder: whose files are whose, what is checked when it is read, what survives a move."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from helpers import THETA, tiny_run

from lstmfit import run_folder
from lstmfit.analysis.chains import read_run
from lstmfit.driver import fit
from lstmfit.emulator.emulator import Emulator
from lstmfit.errors import InputError
from lstmfit.run_folder import load_problem


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder as users have it: emulator, noise and data beside the run file, chains in a folder."""
    root = tmp_path_factory.mktemp("project") / "proj"
    (root / "emulators").mkdir(parents=True)
    emulator = Emulator.load("echo21")
    emulator.save(root / "emulators" / "mine.h5")
    rng = np.random.default_rng(1)
    nu = np.linspace(60.0, 120.0, 61)
    signal = np.interp(nu, 1420.405751768 / (1 + emulator.redshifts[::-1]), emulator(THETA)[::-1])
    np.savetxt(root / "data.csv", np.c_[nu, signal + 25 * rng.standard_normal(61)], delimiter=",")
    np.savetxt(root / "sigma.txt", np.full(61, 25.0))
    noise = {"model": "channels", "file": "sigma.txt", "unit": "mK"}
    content = tiny_run(
        emulator="emulators/mine.h5", data={"file": "data.csv", "unit": "mK"},
        likelihood={"global_signal": {"noise": noise}},
    )  # fmt: skip
    (root / "run.yaml").write_text(yaml.safe_dump(content))
    fit(root / "run.yaml", root / "chains" / "run", jobs=1)
    return root


@pytest.fixture
def copy(project, tmp_path):
    return shutil.copytree(project, tmp_path / "moved")


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_project_can_be_moved(copy, project, tmp_path):
    hidden = project.with_name("hidden")
    project.rename(hidden)
    try:
        read_run(copy / "chains" / "run")
    finally:
        hidden.rename(project)
    assert str(project) not in yaml.safe_dump(
        {k: v for k, v in yaml.safe_load((copy / "chains/run/run.yaml").read_text()).items() if k != "resolved"}
    )


def test_a_moved_emulator_is_found_by_its_content(copy):
    folder = copy / "chains" / "run"
    (copy / "emulators" / "mine.h5").rename(copy / "renamed.h5")
    text = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(text.replace(str(copy.parent.parent), "/nowhere"))
    content = yaml.safe_load((copy / "run.yaml").read_text()) | {"emulator": "renamed.h5"}
    (copy / "run.yaml").write_text(yaml.safe_dump(content))
    assert fit(copy / "run.yaml", folder, resume=True) == folder
    read_run(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sigma.txt", r"content of likelihood.global_signal.noise.file"),
        ("data.csv", r"content of data.file"),
    ],
)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_an_input_that_was_replaced_is_not_resumed(copy, name, message, state):
    """Two likelihoods would be mixed, or the result of other data handed out."""
    folder = copy / "chains" / "run"
    if state == "unfinished":
        (folder / "summary.json").unlink()
    table = np.loadtxt(copy / name, delimiter="," if name == "data.csv" else None)
    np.savetxt(copy / name, 1.01 * table, delimiter=",")
    before = everything(folder)
    with pytest.raises(InputError, match=message):
        fit(copy / "run.yaml", folder, resume=True)
    assert everything(folder) == before


def test_data_replaced_under_a_folder_of_version_01_are_noticed(copy):
    """Its record has no checksums: the values themselves are compared."""
    folder = copy / "chains" / "run"
    content = yaml.safe_load((folder / "run.yaml").read_text())
    del content["resolved"]["inputs"]
    content["data"]["file"] = str(copy / "data.csv")
    content["emulator"] = str(copy / "emulators" / "mine.h5")
    content["likelihood"]["global_signal"]["noise"]["file"] = str(copy / "sigma.txt")
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    (folder / "chain.state.json").unlink()
    assert fit(copy / "run.yaml", folder, resume=True) == folder
    np.savetxt(copy / "data.csv", 1.01 * np.loadtxt(copy / "data.csv", delimiter=","), delimiter=",")
    with pytest.raises(InputError, match=r"content of data.file"):
        fit(copy / "run.yaml", folder, resume=True)


def test_the_copy_of_the_noise_is_held_to_its_checksum(copy):
    folder = copy / "chains" / "run"
    (folder / "inputs" / "sigma.txt").write_text("24\n" * 61)
    with pytest.raises(InputError, match=r"noise file .*sigma.txt has changed since the fit"):
        load_problem(folder)
    (folder / "inputs" / "sigma.txt").unlink()
    with pytest.raises(InputError, match=r"noise file .*sigma.txt of this run is missing"):
        load_problem(folder)


@pytest.mark.parametrize("name", ["run.yaml", "chain_dead-birth.txt", "chain_phys_live-birth.txt", "chain.paramnames"])
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_a_finished_run_is_what_the_fit_wrote(copy, name, how):
    """An edited prior, swapped columns and missing live points would each pass for a result."""
    folder = copy / "chains" / "run"
    if how == "removed":
        (folder / name).unlink()
    else:
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("1", "2", 1))
    with pytest.raises(InputError, match=f"{name} (is missing from this run|has changed)|is not a run folder"):
        read_run(folder)


def test_files_of_the_users_survive(tmp_path):
    """A folder is a run only by our record; --force removes nothing that the run did not write."""
    own = {"run.yaml": yaml.safe_dump(tiny_run()), "data.csv": "60,1\n61,2\n", "chain_notes.txt": "precious"}
    for name, text in own.items():
        (tmp_path / name).write_text(text)
    for force in (False, True):
        with pytest.raises(InputError, match=r"do not belong to a run|overwrite"):
            fit(tmp_path / "run.yaml", tmp_path, force=force)
        assert everything(tmp_path) == {name: text.encode() for name, text in own.items()}


def test_force_removes_the_run_and_nothing_else(copy):
    folder = copy / "chains" / "run"
    kept = {}
    for name in ("chain_notes.txt", "chain.backup", "parts/notes.txt", "parts/0/mine.txt", "inputs/old.txt"):
        (folder / name).write_text(name)
        kept[name] = name.encode()
    old = set(everything(folder)) - set(kept)
    run_folder.clear(folder)
    assert everything(folder) == kept
    assert "parts/0/chain.resume" in old
    with pytest.raises(InputError, match="use --force to keep them"):
        fit(copy / "run.yaml", folder, jobs=1)


def test_inputs_are_never_written_over(tmp_path):
    (tmp_path / "data.csv").write_text("60,1\n61,2\n")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(tiny_run(data={"file": "data.csv"})))
    before = everything(tmp_path)
    with pytest.raises(InputError, match=r"overwrite its own input .*data.csv"):
        fit(tmp_path / "other.yaml", tmp_path, force=True)
    assert everything(tmp_path) == before


def test_a_kill_between_the_run_file_and_the_data_is_resumed(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run()))
    code = (
        "import os, sys; from lstmfit.datasets.spectrum import Spectrum; from lstmfit.driver import fit\n"
        "Spectrum.write = lambda *_: os._exit(9)\n"
        "fit(sys.argv[1], sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.yaml"), str(tmp_path / "out")], check=False)
    assert done.returncode == 9
    assert run_folder.state(tmp_path / "out") == "unfinished"
    folder = fit(tmp_path / "run.yaml", tmp_path / "out", jobs=1, resume=True)
    assert json.loads((folder / "summary.json").read_text())["n_live"] == 20


def test_what_is_found_late_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    """A likelihood that vanishes everywhere is found by the sampler, after the run file was written."""
    (tmp_path / "zero.py").write_text(
        "class Zero:\n    outputs, names = ('tau',), ()\n    def __init__(self, redshifts): pass\n"
        "    def __call__(self, tau, values): return float('-inf')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tiny_run()
    run["likelihood"] = run["likelihood"] | {"zero:Zero": {}}
    with pytest.raises(InputError, match="likelihood is zero or NaN"):
        fit(run, tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_fails_does_not_take_the_result_with_it(tmp_path, monkeypatch, caplog):
    from lstmfit.analysis import plots

    def broken(*_):
        raise RuntimeError("latex could not be found")

    monkeypatch.setattr(plots, "corner", broken)
    folder = fit(tiny_run(), tmp_path / "run", jobs=1)
    assert (folder / "summary.json").is_file()
    assert (folder / "signal.png").is_file()
    assert f"to draw it again: lstmfit plot {folder}" in caplog.text


def test_the_users_matplotlibrc_cannot_break_a_fit(tmp_path):
    """usetex without LaTeX ended a fit after the sampling, with no summary."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: nothing\nfigure.dpi: 5000\n")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run()))
    command = [sys.executable, "-m", "lstmfit", "fit", "run.yaml", "-o", "out", "--jobs", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "could not be drawn" not in done.stderr
    assert (tmp_path / "out" / "corner.png").stat().st_size < 2_000_000


def test_consent_before_code_that_a_folder_names_is_imported(copy, tmp_path, monkeypatch):
    folder = copy / "chains" / "run"
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Bad: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    content = yaml.safe_load((folder / "run.yaml").read_text())
    content["likelihood"]["evil:Bad"] = {}
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"names code to import and run: likelihood evil:Bad; .* --trust"):
        load_problem(folder)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("LSTMFIT_TRUST", "1")
    with pytest.raises(InputError):
        load_problem(folder)
    assert (tmp_path / "ran").exists()


def test_a_parts_folder_that_is_a_link_is_refused(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "parts").symlink_to(elsewhere)
    with pytest.raises(InputError, match="parts"):
        fit(tiny_run(), tmp_path / "out", jobs=1, force=True)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("report", "chains/run", "-o", "chains/run/run.yaml"), "does not end in .html or .htm"),
        (("report", "chains/run", "-o", "run.yaml"), "does not end in .html or .htm"),
        (("check", "run.yaml", "--json", "run.yaml"), "does not end in .json"),
        (("check", "run.yaml", "--json", "chains/run/summary.json"), "belongs to the run in chains/run"),
        (("compare", "chains/run", "chains/run", "--plot", "data.csv"), "does not end in .png"),
        (("evaluate", "emulators/mine.h5", "--json", "emulators/mine.h5"), "does not end in .json"),
    ],
)
def test_no_command_replaces_what_it_was_not_meant_to_write(copy, command, message):
    before = everything(copy)
    done = subprocess.run(
        [sys.executable, "-m", "lstmfit", *command], cwd=copy, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert everything(copy) == before


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"names": 3}', '{"n_like": "many"}', '{"wall_s": NaN}', '{"shares": [0]}', "[" * 100_000, "\udcff"],
)
def test_a_damaged_state_is_one_line(copy, content):
    folder = copy / "chains" / "run"
    (folder / "chain.state.json").write_text(content, errors="surrogateescape")
    for read in (lambda: read_run(folder), lambda: fit(copy / "run.yaml", folder, resume=True)):
        with pytest.raises(InputError, match=r"chain.state.json cannot be read \(.+\); start over with --force"):
            read()


def test_a_damaged_resume_file_is_one_line(copy):
    folder = copy / "chains" / "run"
    (folder / "summary.json").unlink()
    (folder / "chain_dead-birth.txt").unlink()
    for path in (folder / "chain.state.json", folder / "parts" / "0" / "chain.state.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": False, "sha256": {}}))
    resume = folder / "parts" / "0" / "chain.resume"
    lines = resume.read_text().splitlines(keepends=True)
    middle = len(lines) // 2
    resume.write_text("".join([*lines[:middle], "damaged\n", *lines[middle + 1 :]]))
    with pytest.raises(InputError, match=r"chain.resume is damaged, PolyChord cannot read it .*; start over"):
        fit(copy / "run.yaml", folder, jobs=1, resume=True)


def test_a_run_is_an_object_to_look_at(project, tmp_path):
    """A repr of hundreds of lines and figures only as files were of no use in a notebook."""
    import lstmfit

    run = lstmfit.read_run(project / "chains" / "run")
    assert len(repr(run)) < 200
    assert "samples of fX, Tmin_vir; logZ" in repr(run)
    assert "<td>log10 fX</td>" in run._repr_html_()
    assert run.summary["n_live"] == 20
    assert run.signal(5).shape == (5, len(run.problem.signal.redshifts))
    for figure in (run.corner(), run.plot_signal()):
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 10_000
    again = lstmfit.fit(project / "run.yaml", project / "chains" / "run", resume=True)
    assert repr(again) == repr(run)


def test_defaults_are_written_out_and_may_be_left_out(tmp_path):
    """A run file of 0.1 left the defaults of likelihoods out; it is the same run."""
    run = tiny_run()
    run["likelihood"] = run["likelihood"] | {"planck_tau": {}}
    folder = fit(run, tmp_path / "run", jobs=1)
    content = yaml.safe_load((folder / "run.yaml").read_text())
    assert set(content["likelihood"]["planck_tau"]) > {"value"} or len(content["likelihood"]["planck_tau"]) > 1
    content["likelihood"]["planck_tau"] = {}
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    assert fit(run, folder, resume=True) == folder


def test_an_unfinished_run_of_an_older_version_is_resumed(tmp_path):
    """It has no `nprior`, which is no difference; another value of a setting that it has is one."""
    run = tiny_run()
    folder = fit(run, tmp_path / "run", jobs=1)
    (folder / "summary.json").unlink()
    content = yaml.safe_load((folder / "run.yaml").read_text())
    del content["sampler"]["polychord"]["nprior"]
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    states = [folder / "chain.state.json", *folder.glob("parts/*/chain.state.json")]
    for path in states:
        state = json.loads(path.read_text())
        del state["settings"]["n_prior"]
        path.write_text(json.dumps(state | {"finished": False, "sha256": {}}))
    other = run | {"sampler": {"polychord": run["sampler"]["polychord"] | {"num_repeats": 9}}}
    with pytest.raises(InputError, match=r"contains a different run \(differs in sampler"):
        fit(other, folder, jobs=1, resume=True)
    assert fit(run, folder, jobs=1, resume=True) == folder
    assert (folder / "summary.json").is_file()


def test_the_noise_file_of_a_mock_lies_beside_the_run_file(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    np.savetxt(tmp_path / "runs" / "sigma.txt", np.full(451, 25.0))
    noise = {"model": "channels", "file": "sigma.txt", "unit": "mK"}
    run = tiny_run(data={"mock": {"test_signal": 9, "noise": noise, "seed": 2}})
    (tmp_path / "runs" / "run.yaml").write_text(yaml.safe_dump(run))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = fit("../runs/run.yaml", tmp_path / "out", jobs=1)
    assert (folder / "inputs" / "sigma.txt").is_file()
    assert fit(folder / "run.yaml", tmp_path / "again", jobs=1).name == "again"
    np.testing.assert_array_equal(*(np.loadtxt(tmp_path / f / "chain_dead-birth.txt") for f in ("out", "again")))
