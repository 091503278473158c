"""The run file: what it accepts, what it says about mistakes, and that writing it out loses nothing."""

import numpy as np
import pytest
import yaml

from lstmfit import config
from lstmfit.errors import InputError

BASE = {
    "emulator": "echo21",
    "data": {"mock": {"theta": {"fX": 0.1}, "noise": 25, "seed": 2}},
    "likelihood": {"global_signal": {"noise": {"model": "white", "sigma": 25}}},
}


def changed(path, value):
    """BASE with the value at a dotted path replaced; None removes it."""
    run = yaml.safe_load(yaml.safe_dump(BASE))
    *folders, last = path.split(".")
    block = run
    for key in folders:
        block = block.setdefault(key, {})
    if value is None:
        del block[last]
    else:
        block[last] = value
    return run


def test_written_out_and_read_back_it_is_the_same(tmp_path):
    run = BASE | {
        "likelihood": BASE["likelihood"] | {"planck_tau": {}, "x_HI": {"mock": {"seed": 3}}, "my.Likelihood": None},
        "params": {"fX": {"value": "10**x"}, "x": {"prior": {"min": -1, "max": 1}}, "y": {"derived": "2*x"}},
        "priors": "echo21",
    }
    run["data"]["mock"]["foreground"] = {"reference": 75, "coefficients": [1750.0, -100.0]}
    run["data"]["band"] = [50, 100]
    first = config.load(run)
    config.dump(first, tmp_path / "run.yaml")
    again = config.load(tmp_path / "run.yaml")
    assert again == first.model_copy(update={"priors": ["echo21"]})
    assert again.others == {"planck_tau": {}, "x_HI": {"mock": {"seed": 3}}, "my.Likelihood": {}}


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"model": "white"}, "noise.sigma is missing"),
        ({"model": "white", "sigma": -5}, "-5 is neither a positive number nor free"),
        ({"model": "white", "sigma": "fre"}, "neither a positive number nor free"),
        ({"model": "white", "sigma": 25, "dof": 3}, r"unknown key \S+noise.dof; known are model, sigma"),
        ({"model": "student_t", "sigma": 25}, "noise.dof is missing"),
        ({"model": "radiometer", "channel_width": 0.4}, "noise.integration_time is missing"),
        (
            {"model": "radiometer", "channel_width": 0.4, "integration_time": 100, "floor": -1},
            "-1 is neither zero or a positive number nor free",
        ),
        ({"model": "covariance"}, "noise.file is missing"),
        ({"model": "wite", "sigma": 25}, "noise: unknown noise model 'wite'; did you mean 'white'"),
        ({"sigma": 25, "sgima": 2}, "did you mean 'sigma'"),
    ],
)
def test_mistakes_in_the_noise(noise, message):
    with pytest.raises(InputError, match=message) as error:
        config.load(changed("likelihood.global_signal.noise", noise))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("likelihood.plank_tau", {}, "did you mean 'planck_tau'"),
        ("likelihood.global_sginal", {}, "did you mean 'global_signal'"),
        ("likelihood.planck_tau", 0.05, "give its options as a mapping"),
        ("likelihood.global_signal", None, "is not a mapping of likelihoods; give one, such as"),
        ("likelihood.global_signal.emulator_error", -1, "is not true, false, diagonal or a positive number"),
        ("likelihood.global_signal.emulator_error", "full", "is not true, false, diagonal or a positive number"),
        ("likelihood.global_signal.foreground", {"trems": 5}, "did you mean 'terms'"),
        ("likelihood.global_signal.foreground", {"scale": 0}, "greater than 0"),
        ("data.band", [100, 50], "lower one first"),
        ("data.public", "edges2018", "give exactly one of mock, file and public"),
        ("data.mock.foreground", {"coefficients": []}, "reference is missing"),
        ("signal", "flattened_gaussian", "give exactly one of emulator, simulator and signal"),
        ("params", {"fX": {"value": "10**("}}, "cannot be read"),
        ("params", {"fX": {"value": "__import__('os')"}}, "unknown function '__import__'"),
        ("params", {"fX": {"value": 1, "prior": {"min": 0, "max": 1}}}, "give at most one of prior, value and derived"),
        ("params", {"fX": {"prior": {"min": 1, "max": 1}}}, "needs min < max"),
        ("params", {"fX": {"priro": {}}}, "did you mean 'prior'"),
    ],
)
def test_mistakes(path, value, message):
    with pytest.raises(InputError, match=message) as error:
        config.load(changed(path, value))
    assert "\n" not in str(error.value)


def test_mistakes_in_the_file_itself(tmp_path):
    file = tmp_path / "run.yaml"
    for content, message in [
        ("emulator: [", "is not valid YAML"),
        ("a: 1\na: 2", "appears twice"),
        ("- 1", "is not a run file"),
    ]:
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            config.load(file)
    with pytest.raises(InputError, match="did you mean 'mock_25mK'"):
        config.load("mock_25mk")


def test_paths_are_taken_from_the_run_files_folder(tmp_path):
    run = changed("likelihood.global_signal.noise", {"model": "channels", "file": "sigma.csv"})
    run |= {"data": {"file": "data.csv"}, "priors": ["mine.yaml", "echo21"]}
    (tmp_path / "mine.yaml").write_text("fX: {prior: {min: 0, max: 1}}\n")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    read = config.load(tmp_path / "run.yaml")
    assert read.data["global_signal"].file == str(tmp_path / "data.csv")
    assert read.likelihood["global_signal"].noise.file == str(tmp_path / "sigma.csv")
    assert read.priors == [str(tmp_path / "mine.yaml"), "echo21"]


def test_numbers_as_people_write_them(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(BASE).replace("noise: 25", "noise: 2.5e1"))
    assert config.load(tmp_path / "run.yaml").data["global_signal"].mock.noise == 25.0
    assert np.isclose(config.load(changed("data.mock.noise", 1e-3)).data["global_signal"].mock.noise, 1e-3)


def mock_of(**changes):
    mock = {"theta": {"fX": 1.0}, "noise": 25, "seed": 1} | changes
    return {
        "emulator": "echo21",
        "data": {"mock": mock},
        "likelihood": {"global_signal": {"noise": {"model": "white", "sigma": 25}}},
    }


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (-25, r"^run: data.mock.noise: -25 is not a positive number in mK$"),
        ("x", r"^run: data.mock.noise: 'x' is not a number.*$"),
        ({"sigma": -1}, r"^run: data.mock.noise.sigma: -1 is neither a positive number .*$"),
        ({"modle": "white", "sigma": 1}, r"^run: unknown key data.mock.noise.modle; did you mean 'model'\?$"),
    ],
)
def test_kinds_of_block_are_not_pydantics_names_nor_further_mistakes(noise, message):
    with pytest.raises(InputError, match=message) as error:
        config.load(mock_of(noise=noise))
    assert "also" not in str(error.value)


def test_a_block_that_is_none_and_a_choice_that_is_a_block():
    run = mock_of() | {"params": {"fX": "a+"}}
    with pytest.raises(InputError, match=r"^run: params.fX is 'a\+'; give a mapping such as \{key: value\}$"):
        config.load(run)
    radiometer = {"model": "radiometer", "channel_width": 1, "integration_time": 1, "sky": {"temperature": -1}}
    message = r"^run: data.mock.noise.sky.temperature is -1; input should be greater than 0; also: (\S+) is missing \("
    with pytest.raises(InputError, match=message) as error:
        config.load(mock_of(noise=radiometer))
    assert "'data'" not in str(error.value)
    with pytest.raises(InputError, match=r"sky is 'date'; input should be 'data' or 'model'$"):
        config.load(mock_of(noise=radiometer | {"sky": "date"}))


def test_every_mistake_is_said():
    run = mock_of(noise=-25)
    del run["data"]["mock"]["seed"]
    run["sampler"] = {"polychord": {"nlive": "25x"}}
    message = r"noise: -25 is not .*; also: data.*seed is missing .*; also: sampler.polychord.nlive: '25x' is neither"
    with pytest.raises(InputError, match=message):
        config.load(run)
