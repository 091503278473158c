"""21cmLSTM's files as they are: a Keras-2 file gives its numbers without Keras."""

import json

import h5py
import numpy as np
import pytest
from networks import MAXIMA, MINIMA, UNITS, write_keras2

from lstmfit import Emulator
from lstmfit.errors import InputError


@pytest.fixture
def arrays(tmp_path, rng):
    """Weights of a random network in `tmp_path`."""
    arrays = write_keras2(tmp_path / "emulator_21cmGEM.h5", rng)
    np.savetxt(tmp_path / "train_mins_21cmGEM.txt", MINIMA)
    np.savetxt(tmp_path / "train_maxs_21cmGEM.txt", MAXIMA)
    return arrays


def by_keras(arrays, theta):
    """What the authors' code does: preprocess by hand, call the Keras model, denormalise, flip back."""
    import keras

    model = keras.Sequential(
        [
            keras.layers.Input((451, 8)),
            keras.layers.LSTM(UNITS, return_sequences=True),
            keras.layers.LSTM(UNITS, return_sequences=True),
            keras.layers.Dense(1),
        ]
    )
    model.set_weights(arrays)
    z = np.linspace(5, 50, 451)
    nu = 1420.405751768 / (1 + z)
    values = theta.copy()
    values[values[:, 2] == 0, 2] = 1e-6
    values[:, :3] = np.log10(values[:, :3])
    x = np.empty((len(theta), 451, 8))
    x[:, :, :7], x[:, :, 7] = values[:, None, :], nu / nu.max()
    x = (x - np.array(MINIMA[:8])) / (np.array(MAXIMA[:8]) - np.array(MINIMA[:8]))
    y = model(x[:, ::-1].astype(np.float32)).numpy()[:, :, 0]
    return (y * (MAXIMA[-1] - MINIMA[-1]) + MINIMA[-1])[:, ::-1]


def test_a_keras2_file_gives_its_numbers(arrays, tmp_path):
    emulator = Emulator.load(tmp_path / "emulator_21cmGEM.h5")
    theta = np.array(
        [[0.158, 16.5, 0.1, 0.0626, 1.0, 0.2, 40.0], [0.05, 76.5, 0.0, 0.0692, 1.3, 0.3, 40.0]]
    )
    expected = by_keras(arrays, theta)
    np.testing.assert_allclose(emulator(theta), expected, atol=2e-3)
    np.testing.assert_allclose(emulator(theta[1]), expected[1], atol=2e-3)
    assert theta[1, 2] == 0.0
    assert emulator.names == ("fstar", "Vc", "fX", "tau", "alpha", "nu_min", "Rmfp")
    assert emulator.parameters[0].max == pytest.approx(0.5)
    assert emulator.name == "21cmGEM"


def test_it_saves_and_loads_like_any_other(arrays, tmp_path):
    emulator = Emulator.load(tmp_path / "emulator_21cmGEM.h5")
    emulator.save(tmp_path / "mine.h5")
    theta = [0.158, 16.5, 0.0, 0.0626, 1.0, 0.2, 40.0]
    np.testing.assert_array_equal(Emulator.load(tmp_path / "mine.h5", engine="numba32")(theta), emulator(theta))
    with pytest.raises(InputError, match="defines its own parameters; remove parameters: 'ares'"):
        Emulator.load(tmp_path / "mine.h5", parameters="ares")
    with pytest.raises(InputError, match="defines its own parameters; remove parameters: 'ares'"):
        Emulator.load("echo21", parameters="ares")


def test_the_checksum_is_of_all_three_files(arrays, tmp_path):
    before = Emulator.load(tmp_path / "emulator_21cmGEM.h5").checksum
    np.savetxt(tmp_path / "train_maxs_21cmGEM.txt", [*MAXIMA[:-1], 36.0])
    assert Emulator.load(tmp_path / "emulator_21cmGEM.h5").checksum != before


def test_the_set_is_told_from_the_network_or_named(tmp_path, rng):
    write_keras2(tmp_path / "mine.h5", rng, inputs=4)
    for end, shift in (("mins", 0.0), ("maxs", 1.0)):
        np.savetxt(tmp_path / f"train_{end}_mine.txt", np.arange(5) + shift)
    with pytest.raises(InputError, match=r"has 3 parameters and 451 channels, which match no known set .21cmgem: 7"):
        Emulator.load(tmp_path / "mine.h5")
    spec = tmp_path / "spec.yaml"
    spec.write_text("parameters: [{name: a}, {name: b, log: true}, {name: c, min: 2.5}]\n")
    with pytest.raises(InputError, match=r"has no redshift grid; add redshifts: {min: 5, max: 50, n: 451}"):
        Emulator.load(tmp_path / "mine.h5", parameters=spec)
    spec.write_text(spec.read_text() + "redshifts: {min: 6, max: 28, n: 450}\n")
    with pytest.raises(InputError, match="has 451 channels, but the spec has 450 redshifts"):
        Emulator.load(tmp_path / "mine.h5", parameters=spec)
    spec.write_text(spec.read_text().replace("450", "451"))
    emulator = Emulator.load(tmp_path / "mine.h5", parameters=spec)
    assert [(p.min, p.max) for p in emulator.parameters] == [(0.0, 1.0), (10.0, 100.0), (2.5, 3.0)]
    assert emulator.redshifts[-1] == 28.0


def test_bad_files_are_refused(arrays, tmp_path, rng):
    path = tmp_path / "emulator_21cmGEM.h5"
    with pytest.raises(InputError, match="no emulator file"):
        Emulator.load(tmp_path / "none.h5")
    with pytest.raises(InputError, match=r"has 7 parameters, but the spec has 8 .c_X"):
        Emulator.load(path, parameters="ares")
    with pytest.raises(InputError, match="21cmgm is not a known set or a file; did you mean '21cmgem'"):
        Emulator.load(path, parameters="21cmgm")
    path.rename(tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"no file .*train_mins_other.txt \(.*\); put it under this name"):
        Emulator.load(tmp_path / "other.h5")
    write_keras2(path, rng, inputs=9)
    with pytest.raises(InputError, match="has 8 parameters and 451 channels"):
        Emulator.load(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"].pop(2)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(InputError, match="is a network with layers LSTM, Dense; 21cmLSTM has LSTM, LSTM, Dense"):
        Emulator.load(path)


def test_minima_and_maxima_of_another_length(arrays, tmp_path):
    np.savetxt(tmp_path / "train_mins_21cmGEM.txt", MINIMA[:-1])
    with pytest.raises(InputError, match=r"train_mins_21cmGEM\.txt has 8 numbers, but 9 are expected \(minima"):
        Emulator.load(tmp_path / "emulator_21cmGEM.h5")
