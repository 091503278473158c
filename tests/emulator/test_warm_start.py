"""Trainings that start from an emulator: what is kept, how soon they learn, what is refused."""

import dataclasses

import numpy as np
import pytest
from helpers import lstmfit
from networks import PARAMETERS, make_set, part_of_set, random_network
from torch_files import kan_layer, kan_module, write_torch

from lstmfit import Emulator
from lstmfit.cli.emulators import train as train_command
from lstmfit.datasets.signal_sets import SignalSet, Split, write_test_set
from lstmfit.emulator import warm_start
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.network import import_keras
from lstmfit.emulator.numpy_engine import forward
from lstmfit.emulator.scaling import Scaling
from lstmfit.emulator.train_emulator import outputs, train, train_emulator
from lstmfit.emulator.training import Recipe, Targets, _optimizer
from lstmfit.errors import InputError

SIZES = {"units": 16, "steps": 3, "encoder": (16,)}
SHORT = Recipe(updates=60, batch=32, validate_every=60, warm_up=10, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data():
    return make_set(np.random.default_rng(1))


@pytest.fixture(scope="module")
def trained(data):
    recipe = Recipe(updates=600, batch=32, validate_every=100, warm_up=50, learning_rate=2e-2)
    return train_emulator(data, recipe, SIZES)


def begin(emulator, data):
    """Signals of the validation split with the initial weights, (n, n_channels) mK."""
    histories, scalars = outputs(data.train, data.layout)
    scaling = Scaling.fit(data.parameters, histories, scalars)
    layout = data.layout
    architecture = Architecture(
        len(data.parameters), len(data.redshifts), histories=layout.histories, scalars=layout.scalars,
        **warm_start.sizes_for(emulator, data.redshifts),
    )  # fmt: skip
    targets = Targets.make(architecture, scaling, data.train.theta, histories, scalars)
    weights = warm_start.initial_weights(emulator, architecture, scaling, data.redshifts, targets)
    histories = forward(architecture, weights, scaling.inputs(data.val.theta))[0]
    return histories[:, 0] * scaling.scale[0] + scaling.offset[0]


A, B, C = PARAMETERS
NARROW = (dataclasses.replace(A, min=0.1, max=50.0), B, dataclasses.replace(C, max=4))


@pytest.mark.parametrize("ranges", [PARAMETERS, NARROW])
def test_with_other_ranges_the_function_is_the_same(trained, data, ranges):
    """On signals of the emulator itself, so that a perfect start has no error."""
    own = {}
    for name in ("train", "val", "test"):
        theta = getattr(data, name).theta
        histories = trained.histories(theta)
        own[name] = Split(theta, histories.pop("signal"), histories)
    copied = part_of_set(SignalSet(data.redshifts, data.parameters, **own, record={}), parameters=ranges)
    error = begin(trained, copied) - copied.val.signal
    assert np.sqrt(np.mean(error**2)) < 1e-2 * copied.val.signal.std()


@pytest.mark.parametrize(
    ("keep", "steps"), [(slice(None, None, 2), (3, 0)), (slice(20), (2, 1)), (slice(11, None), (2, 0))]
)
def test_steps_keep_their_redshifts(trained, data, keep, steps):
    few = part_of_set(data, keep)
    assert warm_start.matching_steps(trained, few.redshifts) == steps
    error, spread = begin(trained, few) - few.val.signal, few.val.signal - few.train.signal.mean(axis=0)
    assert np.sqrt(np.mean(error**2)) < 0.5 * np.sqrt(np.mean(spread**2))


@pytest.mark.slow
@pytest.mark.ci
def test_it_learns_in_a_tenth_of_the_updates(trained, data):
    narrow = part_of_set(data, parameters=NARROW)
    warm = train_emulator(narrow, SHORT, start=trained)
    cold, short = (
        train_emulator(narrow, dataclasses.replace(SHORT, updates=n, validate_every=n, learning_rate=2e-2), SIZES)
        for n in (600, 60)
    )
    errors = [emulator.record["test"]["mean_percent"] for emulator in (warm, cold, short)]
    # The 256 signals limit the first two.
    assert errors[0] < 1.3 * errors[1]
    assert errors[0] < 0.2 * errors[2]
    assert warm.architecture == cold.architecture
    assert [p.min for p in warm.parameters] == [p.min for p in NARROW]


def test_the_result_is_not_worse_than_the_start(trained, data):
    harmful = dataclasses.replace(SHORT, learning_rate=0.5)
    new = train_emulator(data, harmful, start=trained)
    assert new.record["history"]["validation_percent"][-1] > 2 * trained.record["test"]["mean_percent"]
    assert new.record["test"]["mean_percent"] < 1.1 * trained.record["test"]["mean_percent"]


def test_the_record_names_the_emulator_and_a_resumed_training_keeps_to_it(trained, data, tmp_path):
    trained.save(tmp_path / "old.h5")
    old = Emulator.load(tmp_path / "old.h5", engine="numpy")
    checkpoint = tmp_path / "c"
    new = train_emulator(data, SHORT, start=old, checkpoint=checkpoint)
    assert new.record["started_from"] == {"name": "old", "checksum": old.checksum}
    again = train_emulator(data, SHORT, start=old, checkpoint=checkpoint, resume=True)
    np.testing.assert_array_equal(again.weights["recurrent_0"], new.weights["recurrent_0"])
    other = Emulator(old.architecture, old.scaling, old.weights, old.redshifts, old.parameters, checksum="another")
    with pytest.raises(InputError, match="belongs to a training with different settings"):
        train_emulator(data, SHORT, start=other, checkpoint=checkpoint, resume=True)


@pytest.mark.parametrize(
    ("parameters", "seen"),
    [
        ((C, B, A), "its parameters are log10 a, b, c, but those of the set are c, b, log10 a"),
        ((dataclasses.replace(A, log=False), B, C), "but those of the set are a, b, c"),
        ((dataclasses.replace(A, name="d"), B, C), "those of the set are log10 d, b, c; give an emulator"),
    ],
)
def test_other_parameters_are_refused(trained, data, parameters, seen):
    with pytest.raises(InputError, match=seen):
        train_emulator(dataclasses.replace(data, parameters=parameters), SHORT, start=trained)


def test_given_sizes_are_refused(trained, data):
    message = r"units, steps given for a training that starts from emulator, whose sizes are 2 x LSTM\(16\), 3 steps"
    with pytest.raises(InputError, match=message):
        train_emulator(data, SHORT, {"units": 8, "steps": 2}, start=trained)


def test_the_command_refuses_what_it_cannot_start_from(data, tmp_path, rng):
    write_test_set(tmp_path / "set.h5", data)
    write_torch(tmp_path / "emulator_21cmGEM.pth", kan_module([kan_layer(rng, 7, 451)]))
    for name, values in (("mins", [*np.zeros(7), -200]), ("maxs", [*np.ones(7), 20])):
        np.save(tmp_path / f"train_{name}_21cmGEM.npy", values)
    before = sorted(tmp_path.iterdir())
    for start, message in (
        ("none.h5", "none.h5"), ("emulator_21cmGEM.pth", "it is not a network of lstmfit; give a shipped emulator"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            train(tmp_path / "set.h5", tmp_path / "e.h5", start=tmp_path / start)
    with pytest.raises(InputError, match="--from echo21 with --architecture published"):
        train_command(tmp_path / "set.h5", tmp_path / "e.h5", start="echo21", architecture="published")
    done = lstmfit("train", "set.h5", "-o", "e.h5", "--from", "none.h5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lstmfit: ")
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_spare_channels_are_not_fitted(rng):
    """45 channels in 7 steps of 7: the last step has four spare ones."""
    architecture, _, _ = random_network(rng)
    used = warm_start._used(architecture)
    assert used.shape == (7, 14)
    assert used.sum() == 2 * 45
    hidden, kernel, bias = rng.normal(size=(200, 7, 5)), rng.normal(size=(5, 14)), rng.normal(size=(7, 14))
    targets = np.where(used, hidden @ kernel + bias, 1e3)
    found = warm_start._fit(hidden, targets, np.full(200, 1 / 200), used)
    np.testing.assert_allclose(found[0], kernel, atol=1e-3)
    np.testing.assert_allclose(found[1], np.where(used, bias, 0.0), atol=1e-3)


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (12, 12)])
def test_the_iteration_of_muon_is_that_of_keras(rng, shape):
    _, keras = import_keras()
    x = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 0, shape[1])).astype(np.float32)
    ours, theirs = _optimizer(keras, SHORT), keras.optimizers.Muon()
    got, expected = (np.asarray(o.zeropower_via_newtonschulz5(keras.ops.array(x), 6)) for o in (ours, theirs))
    np.testing.assert_allclose(got, expected, atol=2e-3)
