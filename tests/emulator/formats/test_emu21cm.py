"""21cmEMU from the installed package: the numbers of its own code, and what is not that package."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from lstmfit import Emulator
from lstmfit.errors import InputError

installed = pytest.mark.skipif(util.find_spec("py21cmemu") is None, reason="pip install --no-deps py21cmemu")


@pytest.fixture(scope="module")
def references():
    with np.load(Path(__file__).parent / "data" / "references.npz") as file:
        return dict(file)


@pytest.fixture(scope="module", params=["mcg", "acg"])
def which(request):
    return request.param


@pytest.fixture(scope="module")
def emulator(which):
    return Emulator.load(f"21cmemu:{which}")


@installed
def test_every_output_is_that_of_the_package(emulator, which, references):
    """Signal in mK, x_HI, tau, and log10 luminosity functions, whose magnitudes the package cuts to -20..-10."""
    theta = references[f"{which}_theta"]
    outputs = emulator.histories(theta)
    tolerances = {"signal": 1e-3, "x_HI": 1e-5, "tau": 1e-6}
    for name, tolerance in tolerances.items():
        np.testing.assert_allclose(outputs[name], references[f"{which}_{name}"], atol=tolerance)
    axes = emulator.layout.axes["log10_uvlf"]
    inside = (axes["M_UV"] >= -20) & (axes["M_UV"] <= -10)
    np.testing.assert_allclose(outputs["log10_uvlf"][..., inside], references[f"{which}_uvlf"], atol=1e-3)
    np.testing.assert_allclose(axes["M_UV"][inside], references[f"{which}_uvlf_magnitudes"])
    np.testing.assert_array_equal(axes["redshift"], references[f"{which}_uvlf_redshifts"])
    np.testing.assert_array_equal(emulator.redshifts, references[f"{which}_redshifts"])
    np.testing.assert_allclose([(p.min, p.max) for p in emulator.parameters], references[f"{which}_limits"])
    assert emulator.names == tuple(references[f"{which}_names"])


@installed
def test_calls_are_independent_of_each_other_and_of_copies(emulator, which, references):
    theta = references[f"{which}_theta"]
    expected = emulator.histories(theta)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(emulator.histories, theta))
    for name, values in expected.items():
        np.testing.assert_allclose([one[name] for one in found], values, atol=1e-5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(emulator))(theta), expected["signal"])
    nothing = theta[:2].copy()
    nothing[0, 3] = np.nan
    found = emulator.histories(nothing, outside="allow")
    assert all(np.isnan(values[0]).all() for values in found.values())
    np.testing.assert_allclose(found["log10_uvlf"][1], expected["log10_uvlf"][1], atol=1e-5)


@installed
def test_mcg_takes_the_ends_for_what_is_outside_and_says_so(references):
    emulator = Emulator.load("21cmemu:mcg")
    theta = references["mcg_theta"][1].copy()
    ends = emulator(theta)
    theta[0] += 1.0
    with pytest.warns(UserWarning, match="F_STAR10 is 1.97644, outside the training range"):
        np.testing.assert_array_equal(emulator(theta), ends)


@installed
def test_neither_torch_nor_the_package_is_imported():
    code = (
        "import sys; from lstmfit import Emulator; Emulator.load('21cmemu:mcg'); Emulator.load('21cmemu:acg'); "
        "assert not {'torch', 'py21cmemu'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_are_none():
    with pytest.raises(InputError, match="no emulator '21cmemu:mgc'; did you mean '21cmemu:mcg'"):
        Emulator.load("21cmemu:mgc")


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="which is not installed; to fix this: pip install --no-deps py21cmemu"):
        Emulator.load("21cmemu:mcg")


def test_a_package_of_another_version(monkeypatch, tmp_path):
    """Version 1 has the same name and another content."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "py21cmemu" / "models" / "mcg"
    folder.mkdir(parents=True)
    (tmp_path / "py21cmemu" / "__init__.py").write_text("raise ImportError\n")
    with pytest.raises(InputError, match=r"has no models/mcg/lstm_model_weights.pt; install version 3\.0\.0: pip"):
        Emulator.load("21cmemu:mcg")
    (folder / "lstm_model_weights.pt").write_bytes(b"no weights")
    (folder / "lstm_emulator_constants.npz").write_bytes(b"no arrays")
    with pytest.raises(InputError, match=r"lstm_model_weights\.pt is not a complete file of torch.save"):
        Emulator.load("21cmemu:mcg")


@installed
def test_arrays_that_are_missing_or_of_another_shape(monkeypatch, tmp_path):
    real = Path(util.find_spec("py21cmemu").submodule_search_locations[0])
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "py21cmemu" / "models" / "mcg"
    folder.mkdir(parents=True)
    (tmp_path / "py21cmemu" / "__init__.py").touch()
    (folder / "lstm_model_weights.pt").symlink_to(real / "models/mcg/lstm_model_weights.pt")
    constants = folder / "lstm_emulator_constants.npz"
    constants.write_bytes(b"no arrays")
    with pytest.raises(InputError, match=r"constants.npz cannot be read .*; reinstall the package: pip install"):
        Emulator.load("21cmemu:mcg")
    np.savez(constants, LSTM_limits=np.zeros((5, 2)))
    with pytest.raises(InputError, match=r"LSTM_limits has shape \(5, 2\), but finite numbers of shape \(12, 2\)"):
        Emulator.load("21cmemu:mcg")
    np.savez(constants, LSTM_limits=np.tile([0.0, 1.0], (12, 1)))
    with pytest.raises(InputError, match="has no array Tb_scale"):
        Emulator.load("21cmemu:mcg")


@installed
def test_parameters_and_engines_that_it_does_not_take():
    with pytest.raises(InputError, match="21cmemu:mcg defines its own parameters; remove parameters: 'ares'"):
        Emulator.load("21cmemu:mcg", parameters="ares")
    with pytest.raises(InputError, match=r"'jax' cannot run 21cmemu:acg \(21cmEMU acg of .*; its only engine is numpy"):
        Emulator.load("21cmemu:acg", engine="jax")


@installed
def test_it_serves_as_a_simulator(references):
    from lstmfit.simulators import load

    simulator = load("21cmemu:mcg")
    outputs = simulator(references["mcg_theta"][3])
    np.testing.assert_allclose(outputs["signal"], references["mcg_signal"][3], atol=1e-3)
    assert outputs["log10_uvlf"].shape == (7, 45)
    assert simulator.name == "21cmemu:mcg"
