"""What a simulator gives beside the signal, on its way through sets, training, emulators and likelihoods."""

import json

import h5py
import numpy as np
import pytest
from helpers import lstmfit
from torch_files import kan_layer, kan_module, write_torch

from lstmfit import Emulator
from lstmfit.datasets.signal_sets import load_signals
from lstmfit.errors import InputError
from lstmfit.simulators import SimulationError, load
from lstmfit.simulators.campaign import simulate_set
from lstmfit.simulators.protocol import simulator_layout

MODULE = """
import numpy as np
from lstmfit.parameters import Parameter
from lstmfit.simulators import History

Z = np.array([6.0, 7.5, 9.0, 11.0, 14.0, 20.0])
MAGNITUDES = np.linspace(-21, -15, 5)


class SignalOnly:
    redshifts, name, version = Z, "signal_only", "1"
    parameters = (Parameter("a", 1, 10), Parameter("b", 0.1, 10, log=True))

    def __call__(self, theta):
        return History(Z, -theta[0] * np.exp(-theta[1] * (Z - 10) ** 2 / 20))


class Everything(SignalOnly):
    name = "everything"
    axes = {"log10_uvlf": {"redshift": [6.0, 8.0], "M_UV": MAGNITUDES}}

    def __call__(self, theta):
        a, b = theta
        signal = -a * np.exp(-b * (Z - 10) ** 2 / 20)
        table = -3 + 0.1 * a * np.outer([1.0, 0.5], MAGNITUDES + 18)
        return {"signal": signal, "tau": 0.05 + 0.001 * a, "log10_uvlf": table, "T_s": signal + 20}


class NoAxes(Everything):
    axes = None


class Moody(Everything):
    def __call__(self, theta):
        outputs = super().__call__(theta)
        return outputs if theta[0] < 8 else {"signal": outputs["signal"]}


class Reserved(SignalOnly):
    def __call__(self, theta):
        return {"signal": np.zeros(6), "row": 1.0}


class NoSignal(SignalOnly):
    def __call__(self, theta):
        return {"tau": 0.05}
"""
SIZES = {"n_val": 16, "n_test": 16, "progress": False, "jobs": 1}


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"outputs_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_signal_is_enough(module, tmp_path):
    made = simulate_set(tmp_path / "set.h5", 32, simulator=f"{module}:SignalOnly", **SIZES)
    data = load_signals(made.path)
    assert not data.train.extras
    assert list(data.layout) == ["signal"]
    with h5py.File(made.path) as file:
        assert json.loads(file.attrs["outputs"]) == {"signal": ["redshifts"]}
        assert "tau_train" not in file


@pytest.mark.slow
@pytest.mark.ci
def test_outputs_of_every_kind_travel(module, tmp_path):
    """Simulated, kept when a set grows, trained on, saved, loaded, evaluated, named by histories."""
    simulator = f"{module}:Everything"
    simulate_set(tmp_path / "set.h5", 100, simulator=simulator, **SIZES)
    made = simulate_set(tmp_path / "set.h5", 200, simulator=simulator, **SIZES)
    data, model = load_signals(made.path), load(simulator)
    expected = model(data.train.theta[150])
    assert list(data.layout) == ["signal", "T_s", "tau", "log10_uvlf"]
    for name in ("T_s", "tau", "log10_uvlf"):
        np.testing.assert_allclose(data.train.extras[name][150], expected[name], rtol=1e-6)
    np.testing.assert_array_equal(data.axes["log10_uvlf"]["M_UV"], np.linspace(-21, -15, 5))
    options = ["--updates", "300", "--batch", "32", "--units", "16", "--steps", "3", "--encoder", "16,16", "--half"]
    lstmfit("train", str(made.path), "-o", str(tmp_path / "mine.h5"), *options)
    emulator = Emulator.load(tmp_path / "mine.h5")
    assert emulator.architecture.encoder == (16, 16)
    outputs = emulator.histories(data.test.theta)
    assert {name: array.shape for name, array in outputs.items()} == {
        "signal": (16, 6), "T_s": (16, 6), "tau": (16,), "log10_uvlf": (16, 2, 5),
    }  # fmt: skip
    assert np.sqrt(np.mean((outputs["log10_uvlf"] - data.test.extras["log10_uvlf"]) ** 2)) < 0.2
    assert list(emulator.layout.axes["log10_uvlf"]) == ["redshift", "M_UV"]
    for name, array in emulator.histories(data.test.theta[3]).items():
        np.testing.assert_allclose(array, outputs[name][3], rtol=1e-4, atol=1e-5)
    exact = Emulator.load(tmp_path / "mine.h5", engine="numpy").histories(data.test.theta)
    np.testing.assert_allclose(outputs["log10_uvlf"], exact["log10_uvlf"], atol=1e-4)
    result = json.loads(lstmfit("evaluate", str(tmp_path / "mine.h5"), "--json", "-").stdout)
    assert set(result["outputs"]) == {"T_s", "tau", "log10_uvlf"}
    residual = outputs["tau"] - load_signals(tmp_path / "mine_test.h5").test.extras["tau"]
    assert result["outputs"]["tau"]["rms"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-6)


def test_matrices_in_half_precision_take_half_the_space(tmp_path, rng):
    from networks import PARAMETERS, random_network

    from lstmfit.emulator.train_emulator import rounded

    architecture, scaling, weights = random_network(rng)
    z = np.linspace(5, 50, 45)
    Emulator(architecture, scaling, weights, z, PARAMETERS).save(tmp_path / "whole.h5")
    half = Emulator(architecture, scaling, rounded(weights), z, PARAMETERS)
    half.save(tmp_path / "half.h5")
    loaded = Emulator.load(tmp_path / "half.h5")
    for name, array in half.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], array)
    with h5py.File(tmp_path / "half.h5") as file:
        assert file["weights/recurrent_0"].dtype == np.float16
        assert file["weights/drive_bias"].dtype == np.float32
    assert (tmp_path / "half.h5").stat().st_size < (tmp_path / "whole.h5").stat().st_size


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoAxes", r"log10_uvlf has shape \(2, 5\), .* a history on the 6 redshifts; for a table, give the simulator"),
        ("Reserved", "the output name row is reserved; rename the output"),
        ("NoSignal", "the result has no signal; its outputs are tau"),
    ],
)
def test_results_that_cannot_be_used(name, message, module, tmp_path):
    with pytest.raises(SimulationError, match=message):
        simulate_set(tmp_path / "set.h5", 16, simulator=f"{module}:{name}", **SIZES)
    with pytest.raises(SimulationError, match=message):
        simulator_layout(load(f"{module}:{name}"))
    assert not (tmp_path / "set.h5").exists()


def test_rows_with_other_outputs_are_failures(module, tmp_path):
    made = simulate_set(tmp_path / "set.h5", 64, simulator=f"{module}:Moody", **SIZES)
    assert made.n_failed > 0
    with h5py.File(made.path) as file:
        messages = file["failed/message"].asstr()[()]
        assert "those of other rows are" in messages[0]
        assert len(file["tau_train"]) == len(file["signal_train"]) == made.n_train


def test_an_emulator_stands_for_a_simulator(tmp_path, rng):
    """A published one too: its set holds its numbers, and it serves a direct fit."""
    path = tmp_path / "emulator_mine.pth"
    write_torch(path, kan_module([kan_layer(rng, 7, 3), kan_layer(rng, 3, 451)]))
    np.save(tmp_path / "train_mins_mine.npy", [-4.0, 0.6, -6.0, 0.04, 1.0, 0.1, 10.0, -290.0])
    np.save(tmp_path / "train_maxs_mine.npy", [-0.3, 2.0, 3.0, 0.17, 1.5, 3.0, 50.0, 35.0])
    lstmfit("simulate", "-o", str(tmp_path / "set.h5"), "-n", "128", "--simulator", str(path), "--jobs", "1")
    data, emulator = load_signals(tmp_path / "set.h5"), Emulator.load(path)
    np.testing.assert_allclose(data.train.signal, emulator(data.train.theta), rtol=1e-6)
    assert data.record["simulator_version"] == emulator.checksum
    assert [p.name for p in data.parameters] == list(emulator.names)
    simulator = load(str(path))
    np.testing.assert_array_equal(simulator(data.train.theta[0])["signal"], emulator(data.train.theta[0]))


def test_a_likelihood_that_lacks_an_output(tmp_path, module):
    from lstmfit.config import load as load_run
    from lstmfit.problem import build

    run = {
        "simulator": f"{module}:SignalOnly",
        "data": {"mock": {"theta": {"a": 5, "b": 1}, "noise": 1, "seed": 1}},
        "likelihood": {"global_signal": {"noise": {"model": "white", "sigma": 1}}, "planck_tau": {}},
    }
    with pytest.raises(InputError, match=r"planck_tau needs tau, which .*SignalOnly does not give \(outputs signal\)"):
        build(load_run(run))
    del run["likelihood"]["planck_tau"]
    problem = build(load_run(run))
    assert np.isfinite(problem.loglikelihood(np.array([5.0, 1.0]))[0])


def test_what_stands_for_zero_is_kept(tmp_path, rng):
    """From 21cmKAN's fX through the set and the training to the emulator."""
    path = tmp_path / "emulator_mine.pth"
    write_torch(path, kan_module([kan_layer(rng, 7, 3), kan_layer(rng, 3, 451)]))
    np.save(tmp_path / "train_mins_mine.npy", [-4.0, 0.6, -6.0, 0.04, 1.0, 0.1, 10.0, -290.0])
    np.save(tmp_path / "train_maxs_mine.npy", [-0.3, 2.0, 3.0, 0.17, 1.5, 3.0, 50.0, 35.0])
    simulate_set(tmp_path / "set.h5", 32, simulator=str(path), **SIZES)
    assert [p.zero for p in load_signals(tmp_path / "set.h5").parameters] == [None, None, 1e-6, None, None, None, None]
    shipped = Emulator.load("21cmgem")
    theta = [0.05, 76.5, 0.0, 0.069, 1.3, 0.3, 40.0]
    np.testing.assert_array_equal(shipped(theta), shipped([*theta[:2], 1e-6, *theta[3:]]))
