"""Training: it learns, it resumes to the same weights, it refuses what it cannot do."""

import numpy as np
import pytest
from networks import PARAMETERS, make_set

from lstmfit.datasets.signal_sets import SignalSet, Split
from lstmfit.emulator.train_emulator import train_emulator
from lstmfit.emulator.training import Recipe
from lstmfit.errors import InputError

SIZES = {"units": 16, "steps": 3, "encoder": (16,)}
RECIPE = Recipe(updates=600, batch=32, validate_every=100, warm_up=50, learning_rate=2e-2)


@pytest.fixture(scope="module")
def data():
    return make_set(np.random.default_rng(1))


@pytest.fixture(scope="module")
def trained(data):
    return train_emulator(data, RECIPE, SIZES)


def test_it_learns(trained, data):
    history = trained.record["history"]
    assert history["validation_percent"][-1] < 0.2 * history["validation_percent"][0]
    assert trained.record["test"]["mean_percent"] < 4.0
    predicted = trained.histories(data.test.theta)
    assert np.sqrt(np.mean((predicted["x_HI"] - data.test.extras["x_HI"]) ** 2)) < 0.1
    assert np.sqrt(np.mean((predicted["tau"] - data.test.extras["tau"]) ** 2)) < 0.004
    assert trained.errors["covariance"].shape == (31, 31)
    np.testing.assert_allclose(np.diag(trained.errors["covariance"]), trained.errors["rms"] ** 2, rtol=1e-4)


class Stop(Exception):
    pass


def test_a_resumed_training_reaches_the_same_weights(trained, data, tmp_path):
    def interrupt(update, *_):
        if update == 300:
            raise Stop

    checkpoint = tmp_path / "c"
    with pytest.raises(Stop):
        train_emulator(data, RECIPE, SIZES, checkpoint=checkpoint, progress=interrupt)
    resumed = train_emulator(data, RECIPE, SIZES, checkpoint=checkpoint, resume=True)
    for name, array in trained.weights.items():
        np.testing.assert_array_equal(resumed.weights[name], array)
    assert resumed.record["history"]["validation_percent"] == trained.record["history"]["validation_percent"]


def test_progress_is_told_of_between_the_looks_at_the_validation_set(data):
    calls = []
    train_emulator(data, Recipe(updates=80, batch=32, validate_every=60), SIZES, progress=lambda *a: calls.append(a))
    assert [(update, validation is None) for update, _, validation in calls] == [
        (20, True), (40, True), (60, False), (80, False)
    ]  # fmt: skip
    assert all(np.isfinite(training) for _, training, _ in calls)


def test_a_damaged_checkpoint_is_refused(data, tmp_path):
    short = Recipe(updates=20, batch=32, validate_every=10)
    path = tmp_path / "c"
    train_emulator(data, short, SIZES, checkpoint=path)
    content = path.read_bytes()
    for damaged in (b"", b"no archive", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"is not a complete checkpoint .* delete it and train without --resume"):
            train_emulator(data, short, SIZES, checkpoint=path, resume=True)
    np.savez(path.with_suffix(".npz"), state=np.array("[1, 2]"))
    with pytest.raises(InputError, match="is not a complete checkpoint"):
        train_emulator(data, short, SIZES, checkpoint=path.with_suffix(".npz"), resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": 0}, "updates is 0; give a whole number from 1"),
        ({"batch": -1}, "batch is -1"),
        ({"batch": True}, "batch is True"),
        ({"updates": 10**400}, "updates is an integer of more than 30 digits"),
        ({"seed": -1}, "seed is -1; give a whole number from 0"),
        ({"learning_rate": float("nan")}, "learning rate is nan; give a number from"),
        ({"learning_rate": 0.0}, "learning rate is 0.0"),
    ],
)
def test_impossible_recipes(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**changes)


def test_resuming_something_else_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        train_emulator(data, RECIPE, SIZES, checkpoint=tmp_path / "none", resume=True)
    short = Recipe(updates=20, batch=32, validate_every=10)
    train_emulator(data, short, SIZES, checkpoint=tmp_path / "c")
    with pytest.raises(InputError, match="different settings"):
        train_emulator(data, RECIPE, SIZES, checkpoint=tmp_path / "c", resume=True)


def test_bad_sets_and_sizes_are_refused(data):
    with pytest.raises(InputError, match="a batch size of 1000"):
        train_emulator(data, Recipe(batch=1000), SIZES)
    empty = Split(np.empty((0, 3)), np.empty((0, 31)))
    with pytest.raises(InputError, match="both kinds are needed"):
        train_emulator(SignalSet(data.redshifts, PARAMETERS, data.train, empty, empty, {}), RECIPE, SIZES)
    with pytest.raises(InputError, match="32 steps for 31 channels"):
        train_emulator(data, RECIPE, {"steps": 32})
    with pytest.raises(InputError, match="units is 0"):
        train_emulator(data, RECIPE, {"units": 0})
