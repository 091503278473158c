"""Networks of gated residual blocks, without recurrence: trained by the command, continued on other grids, refused."""

import dataclasses

import numpy as np
import pytest
from networks import make_set, part_of_set

from lstmfit import Emulator
from lstmfit.cli.emulators import train as train_command
from lstmfit.datasets.signal_sets import write_test_set
from lstmfit.emulator.architecture import Architecture, gated_sizes
from lstmfit.emulator.train_emulator import train_emulator
from lstmfit.emulator.training import Recipe
from lstmfit.errors import InputError

RECIPE = Recipe(updates=600, batch=32, validate_every=100, warm_up=50, learning_rate=2e-2)


@pytest.fixture(scope="module")
def data():
    return make_set(np.random.default_rng(1))


@pytest.fixture(scope="module")
def trained(data):
    return train_emulator(data, RECIPE, gated_sizes(16, 2))


def test_it_learns(trained, data):
    assert trained.record["test"]["mean_percent"] < 4.0
    predicted = trained.histories(data.test.theta)
    assert np.sqrt(np.mean((predicted["x_HI"] - data.test.extras["x_HI"]) ** 2)) < 0.1
    assert np.sqrt(np.mean((predicted["tau"] - data.test.extras["tau"]) ** 2)) < 0.004


def test_a_file_of_the_command_is_the_same_network(data, tmp_path):
    path, spec = tmp_path / "e.h5", tmp_path / "spec.yaml"
    np.savez(tmp_path / "set.npz", theta=data.train.theta, signal=data.train.signal, z=data.redshifts)
    names = "[{name: a, log: true}, {name: b}, {name: c}]"
    spec.write_text(f"parameters: {names}\ntheta: theta\nsignal: signal\nredshifts: z\n")
    options = {"spec": str(spec), "updates": 40, "batch": 32}
    train_command(tmp_path / "set.npz", path, architecture="gated", units=16, blocks=2, **options)
    emulator = Emulator.load(path)
    assert emulator.network == "2 gated blocks of 16"
    assert emulator.architecture.layers == 0
    assert emulator.record["recipe"]["learning_rate"] == 1e-2
    theta = data.test.theta
    exact = Emulator.load(path, engine="numpy")(theta, outside="allow")
    np.testing.assert_allclose(emulator(theta, outside="allow"), exact, atol=0.1)


def test_the_defaults_of_the_command():
    sizes = gated_sizes()
    architecture = Architecture(7, 451, histories=("signal", "x_HI"), scalars=("tau",), **sizes)
    assert architecture.describe() == "8 gated blocks of 160"
    assert architecture.macs == 7 * 160 + 8 * 2 * 160**2 + 160 * (2 * 451 + 1)
    assert architecture.macs == sum(np.prod(s) for name, s in architecture.shapes().items() if name.endswith("kernel"))


@pytest.mark.parametrize("keep", [slice(None, None, 3), slice(12), slice(11, None)])
def test_another_grid_starts_at_the_error_of_the_emulator(trained, data, keep):
    """Each channel is read from the whole state, so a band of the grid loses nothing."""
    few = part_of_set(data, keep)
    warm = train_emulator(few, dataclasses.replace(RECIPE, updates=20, learning_rate=1e-3), start=trained)
    own = trained(few.test.theta)[:, keep] - few.test.signal
    error = warm(few.test.theta) - few.test.signal
    assert np.sqrt(np.mean(error**2)) < 1.5 * np.sqrt(np.mean(own**2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "gated", "steps": 3}, "--steps does not apply to a gated network; remove it, or .* patched"),
        ({"architecture": "gated", "encoder": "9"}, "--encoder does not apply to a gated network"),
        ({"blocks": 3}, "--blocks does not apply to a patched network; remove it, or add .* gated"),
        ({"architecture": "published", "blocks": 3}, "--blocks does not apply to a published network"),
        ({"architecture": "published", "steps": 3}, "--steps does not apply to a published network"),
        ({"architecture": "gated", "start": "echo21"}, "--from echo21 with --architecture gated"),
        ({"architecture": "dense"}, "architecture is 'dense'; expected patched, gated or published"),
    ],
)
def test_options_that_do_not_belong_together(options, message, data, tmp_path):
    write_test_set(tmp_path / "set.h5", dataclasses.replace(data, test=data.train))
    with pytest.raises(InputError, match=message):
        train_command(tmp_path / "set.h5", tmp_path / "e.h5", **options)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 0}, "11 steps without LSTM layers; give one step, or a layer"),
        ({"layers": 0, "steps": 1, "encoder": ()}, "0 layers and 0 blocks without an encoder"),
        ({"encoder": (), "blocks": 2}, "2 layers and 2 blocks without an encoder"),
        ({"layers": -1}, "layers is -1; give a whole number of at least 0"),
        (gated_sizes(16, -1), "blocks is -1; give a whole number of at least 0"),
        ({"blocks": 1.5}, "blocks is 1.5; give a whole number"),
    ],
)
def test_impossible_sizes(sizes, message):
    with pytest.raises(InputError, match=message):
        Architecture(3, 45, **sizes)
