"""Training: it learns, it resumes to the same weights, it refuses what it cannot do."""

import numpy as np
import pytest
from conftest import PARAMETERS, draw_theta

from lstmfit.datasets.signals import SignalSet, Split
from lstmfit.emulator.fitting import train_emulator
from lstmfit.emulator.training import Recipe
from lstmfit.errors import InputError


def make_set(rng, n=256):
    z = np.linspace(5, 30, 31)

    def split(m):
        theta = draw_theta(rng, m)
        depth, centre, width = 50 + 20 * np.log10(theta[:, 0]), 15 + 5 * theta[:, 1], 2 + theta[:, 2]
        signal = -depth[:, None] * np.exp(-0.5 * ((z - centre[:, None]) / width[:, None]) ** 2)
        extras = {"x_HI": 1 / (1 + np.exp(-(z - 7 - theta[:, 1:2]))), "tau": 0.05 + 0.01 * theta[:, 1]}
        return Split(theta, signal, extras)

    return SignalSet(z, PARAMETERS, split(n), split(64), split(64), {"simulator": "gaussians"})


SIZES = {"units": 16, "steps": 5, "encoder": (16,)}
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


def test_resuming_something_else_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        train_emulator(data, RECIPE, SIZES, checkpoint=tmp_path / "none", resume=True)
    short = Recipe(updates=20, batch=32, validate_every=10)
    train_emulator(data, short, SIZES, checkpoint=tmp_path / "c")
    with pytest.raises(InputError, match="other settings"):
        train_emulator(data, RECIPE, SIZES, checkpoint=tmp_path / "c", resume=True)


def test_bad_sets_and_sizes_are_refused(data):
    with pytest.raises(InputError, match="a batch is 1000"):
        train_emulator(data, Recipe(batch=1000), SIZES)
    empty = Split(np.empty((0, 3)), np.empty((0, 31)))
    with pytest.raises(InputError, match="both are needed"):
        train_emulator(SignalSet(data.redshifts, PARAMETERS, data.train, empty, empty, {}), RECIPE, SIZES)
    with pytest.raises(InputError, match="32 steps for 31 channels"):
        train_emulator(data, RECIPE, {"steps": 32})
    with pytest.raises(InputError, match="units is 0"):
        train_emulator(data, RECIPE, {"units": 0})
