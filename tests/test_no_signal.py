"""``signal: none``: every command on a fit without a signal."""

import json

import numpy as np
import pytest
from helpers import lstmfit

from lstmfit import config as run_file
from lstmfit.config import load
from lstmfit.errors import InputError
from lstmfit.problem import build
from lstmfit.yaml_files import dump_yaml, parse_yaml

FOREGROUND = {"reference": 75, "coefficients": [10.0, -1.0]}


def no_signal(sigma=30, **changes):
    """A mock sky of two terms, fitted with two marginalised ones."""
    return {
        "signal": "none",
        "data": {"mock": {"theta": {}, "foreground": FOREGROUND, "noise": 30, "seed": 1}, "band": [50, 110]},
        "likelihood": {
            "global_signal": {"noise": {"sigma": sigma}, "foreground": {"terms": 2, "reference": 75, "scale": 100}}
        },
        "sampler": {"polychord": {"nlive": 30, "num_repeats": 2, "seed": 1}},
    } | changes


def test_it_is_a_string_in_yaml_and_stays_one():
    assert parse_yaml("signal: none", "")["signal"] == "none"
    content = run_file.validate(no_signal(), "").model_dump(by_alias=True, exclude_none=True)
    assert parse_yaml(dump_yaml(content), "")["signal"] == "none"
    nothing = no_signal(signal=parse_yaml("signal: null", "")["signal"])
    with pytest.raises(InputError, match=r"give exactly one of .* \(signal: none for no signal\)"):
        load(nothing)


def test_it_is_a_flattened_gaussian_of_no_depth():
    nothing = build(load(no_signal("free")))
    assert nothing.names == ("sigma",)
    shape = {"A": 0, "nu_0": 78, "w": 19, "tau": 7}
    flat = no_signal("free", signal="flattened_gaussian", params=shape)
    flat["data"] = flat["data"] | {"mock": flat["data"]["mock"] | {"theta": shape}}
    flat = build(load(flat))
    np.testing.assert_array_equal(nothing.data["global_signal"].temperature, flat.data["global_signal"].temperature)
    for sigma in (20.0, 30.0, 50.0):
        theta = np.array([sigma])
        assert nothing.loglikelihood(theta)[0] == flat.loglikelihood(theta)[0]
        assert not nothing.signal_at(theta).any()
    values = nothing.loglikelihood_batch(np.array([[20.0], [30.0]]))
    assert values.tolist() == [nothing.loglikelihood(np.array([s]))[0] for s in (20.0, 30.0)]


@pytest.mark.parametrize("sigma", [30, pytest.param("free", marks=[pytest.mark.slow, pytest.mark.ci])])
def test_every_command_takes_it(tmp_path, sigma):
    run, folder = tmp_path / "run.yaml", tmp_path / "run"
    run_file.dump(run_file.validate(no_signal(sigma), ""), run)
    for command in (
        ("check", run),
        ("fit", run, "-o", folder, "--jobs", "1"),
        ("fit", run, "-o", folder, "--jobs", "1", "--resume"),
        ("plot", folder),
        ("report", folder),
    ):
        done = lstmfit(*command)
        assert done.returncode == 0, (command, done.stderr)
    names = ["sigma"] if sigma == "free" else []
    assert list(json.loads((folder / "summary.json").read_text())["parameters"]) == names
    assert "this is a fit without an emulator (signal: none)" in (folder / "report.html").read_text()
    for command in (("bias", folder), ("bias", folder, "--truth", "echo21")):
        done = lstmfit(*command)
        assert done.returncode == 2
        assert "was fitted without an emulator (signal: none), so there is no emulation bias" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    done = lstmfit("calibrate", run, "-o", tmp_path / "calibration", "-n", "2")
    assert done.returncode == 2
    assert "calibrate does not support signal: none" in done.stderr


def test_other_data_need_a_signal():
    content = no_signal()
    content["likelihood"] = content["likelihood"] | {"planck_tau": {}}
    with pytest.raises(InputError, match=r"likelihood\.planck_tau needs tau, which signal: none does not give"):
        build(load(content))
    with pytest.raises(InputError, match="signal: none comes without a test set"):
        build(load(no_signal(data={"mock": {"test_signal": 1, "noise": 30, "seed": 1}})))
