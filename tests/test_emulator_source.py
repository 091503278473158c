"""An emulator as run files and commands name it: text or a mapping, files with companions, folders, specs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import lstmfit, small_run, tiny_run

from lstmfit import Emulator, read_run
from lstmfit import config as run_file
from lstmfit.driver import fit
from lstmfit.emulator_source import EmulatorSource, files_of
from lstmfit.errors import InputError
from lstmfit.plugins import is_dotted
from lstmfit.run_folder import load_problem

ARES = Path(__file__).parent / "emulator" / "formats" / "data" / "globalemu_ares"
THETA = {"c_X": 2.6e39, "f_esc": 0.2, "T_min": 1e4, "logN": 21.0, "f_star": 0.05, "M_p": 2.8e11, "gamma_lo": 0.49,
         "gamma_hi": -0.61}  # fmt: skip
SPEC = """
parameters:
  - {name: xray, log: true, latex: 'c_X'}
  - {name: f_esc}
  - {name: T_min, log: true}
  - {name: logN}
  - {name: f_star, log: true}
  - {name: M_p, log: true}
  - {name: gamma_lo}
  - {name: gamma_hi}
"""


def run_of_ares(**changes):
    theta = {("xray" if name == "c_X" else name): value for name, value in THETA.items()}
    params = {name: value for name, value in theta.items() if name != "xray"}
    params["xray"] = {"prior": {"dist": "loguniform", "a": 1e38, "b": 1e41}}
    return tiny_run(
        emulator={"file": "net", "parameters": "ares.yaml"},
        data={"mock": {"theta": theta, "from": "emulator", "noise": 25, "seed": 1}},
        params=params,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder of globalemu and a spec beside a run file, and a finished run."""
    root = tmp_path_factory.mktemp("source") / "proj"
    shutil.copytree(ARES, root / "net")
    (root / "ares.yaml").write_text(SPEC)
    (root / "run.yaml").write_text(yaml.safe_dump(run_of_ares()))
    fit(root / "run.yaml", root / "out", jobs=1)
    return root


@pytest.fixture
def copy(project, tmp_path):
    return shutil.copytree(project, tmp_path / "moved")


def test_text_and_mapping_mean_the_same():
    plain, mapping = (run_file.load(small_run(emulator=given)) for given in ("echo21", {"file": "echo21"}))
    assert plain.emulator == EmulatorSource(file="echo21") == mapping.emulator
    assert plain.model_dump()["emulator"] == "echo21"
    named = run_file.load(small_run(emulator={"file": str(ARES), "parameters": "ares"})).emulator
    assert EmulatorSource.model_validate(str(named)) == named
    assert named.model_dump() == {"file": str(ARES), "parameters": "ares"}


@pytest.mark.parametrize(
    ("emulator", "message"),
    [
        ({"file": "echo21", "params": "ares"}, "unknown key emulator.params; did you mean 'parameters'"),
        ({"parameters": "ares"}, r"emulator\.file is missing"),
        (3, r"emulator: 3 is not a name or path; give one, or {file: PATH, parameters: 21cmgem}"),
        (["echo21"], r"emulator: \['echo21'\] is not a name or path"),
        ("{file: [}", "emulator is not valid YAML"),
    ],
)
def test_what_names_no_emulator(emulator, message):
    with pytest.raises(InputError, match=message):
        run_file.load(small_run(emulator=emulator))


def test_a_mapping_in_text_serves_emulators_and_simulators():
    from lstmfit.simulators import load

    text = f"{{file: {ARES}, parameters: ares}}"
    expected = Emulator.load(ARES, parameters="ares")
    assert Emulator.load(text).checksum == expected.checksum
    assert Emulator.load({"file": str(ARES), "parameters": "ares"}).checksum == expected.checksum
    np.testing.assert_array_equal(load(text)(list(THETA.values()))["signal"], expected(THETA))


def test_a_mapping_in_text_is_no_code_to_import():
    assert not is_dotted("{file: net, parameters: ares}")
    assert not is_dotted("21cmemu:mcg")
    assert is_dotted("package.module:Class")


def test_the_parameters_are_part_of_the_checksum(tmp_path):
    (tmp_path / "ares.yaml").write_text(SPEC)
    mine = Emulator.load(ARES, parameters=tmp_path / "ares.yaml")
    assert mine.checksum != Emulator.load(ARES, parameters="ares").checksum


def test_a_folder_of_a_shipped_name_is_not_taken_for_it(tmp_path):
    (tmp_path / "echo21").mkdir()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small_run()))
    assert run_file.load(tmp_path / "run.yaml").emulator.file == "echo21"


def test_files_that_belong_to_an_emulator(tmp_path):
    assert [file.name for file in files_of(ARES)] == ["model.h5", "preprocess_settings.pkl", "z.txt", "data_mins.txt",
                                                      "data_maxs.txt", "labels_stds.npy"]  # fmt: skip
    for name in ("emulator_X.pth", "train_mins_X.npy", "train_maxs_X.npy", "train_maxs_Y.npy"):
        (tmp_path / name).touch()
    assert [file.name for file in files_of(tmp_path / "emulator_X.pth")] == ["emulator_X.pth", "train_mins_X.npy",
                                                                             "train_maxs_X.npy"]  # fmt: skip


def test_the_run_keeps_its_spec_and_can_be_moved(copy, project):
    content = yaml.safe_load((copy / "out" / "run.yaml").read_text())
    assert content["emulator"] == {"file": "../net", "parameters": "inputs/ares.yaml"}
    assert set(content["resolved"]["inputs"]) == {"emulator", "emulator.parameters"}
    hidden = project.with_name("hidden")
    project.rename(hidden)
    try:
        assert list(read_run(copy / "out").problem.names) == ["xray"]
        assert fit(copy / "run.yaml", copy / "out", resume=True) == copy / "out"
    finally:
        hidden.rename(project)


def test_a_spec_that_was_changed_is_noticed(copy):
    spec = copy / "out" / "inputs" / "ares.yaml"
    spec.write_text(SPEC.replace("f_esc", "escape"))
    with pytest.raises(InputError, match=r"the spec of parameters .*ares.yaml has changed since the fit; restore it"):
        load_problem(copy / "out")
    spec.unlink()
    with pytest.raises(InputError, match=r"the spec of parameters .*ares.yaml of this run is missing; restore it"):
        load_problem(copy / "out")


def test_a_run_is_not_resumed_with_another_spec(copy):
    (copy / "ares.yaml").write_text(SPEC.replace("{name: gamma_lo}", "{name: gamma_lo, min: 0.1}"))
    with pytest.raises(InputError, match=r"contains a different run \(differs in emulator\)"):
        fit(copy / "run.yaml", copy / "out", resume=True)


def test_a_folder_that_was_changed_or_removed_is_noticed(copy, tmp_path):
    np.save(copy / "net" / "labels_stds.npy", 1.0)
    with pytest.raises(InputError, match="net has changed since this run"):
        load_problem(copy / "out")
    shutil.rmtree(copy / "net")
    text = (copy / "out" / "run.yaml").read_text()
    (copy / "out" / "run.yaml").write_text(text.replace("/proj/net", "/proj/gone"))
    with pytest.raises(InputError, match=r"the emulator file .*net of this run is missing; restore it"):
        load_problem(copy / "out")


def test_commands_take_an_emulator_of_another_group(tmp_path):
    text = f"{{file: {ARES}, parameters: ares}}"
    done = lstmfit("simulate", "--simulator", text, "-o", tmp_path / "set.h5", "-n", 20)
    assert done.returncode == 0, done.stderr
    done = lstmfit("evaluate", text, tmp_path / "set.h5", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["max_percent"] < 1e-4
    done = lstmfit("bench", "echo21", text, "--no-peers", "--json", "-")
    assert done.returncode == 0, done.stderr
    measured = yaml.safe_load(done.stdout)
    assert measured["globalemu_ares"]["engine"] == measured["echo21"]["engine"] == "numba"
    assert measured["globalemu_ares"]["single_ms"] > 0
