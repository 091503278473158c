"""The published 21cmLSTM: a Keras-2 file gives its numbers without Keras; its training goes the same way."""


import numpy as np
import pytest
from networks import MAXIMA, MINIMA, UNITS, write_gem, write_keras2

from lstmfit.datasets.signal_sets import load_signals
from lstmfit.emulator.published import load_published, train_published
from lstmfit.errors import InputError


@pytest.fixture
def files(tmp_path, rng):
    arrays = write_keras2(tmp_path / "emulator_21cmGEM.h5", rng)
    np.savetxt(tmp_path / "train_mins_21cmGEM.txt", MINIMA)
    np.savetxt(tmp_path / "train_maxs_21cmGEM.txt", MAXIMA)
    names = ("emulator_21cmGEM.h5", "train_mins_21cmGEM.txt", "train_maxs_21cmGEM.txt")
    return (*(tmp_path / name for name in names), arrays)


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


def test_a_keras2_file_gives_its_numbers(files):
    *paths, arrays = files
    emulator = load_published(*paths)
    theta = np.array(
        [[0.158, 16.5, 0.1, 0.0626, 1.0, 0.2, 40.0], [0.05, 76.5, 0.0, 0.0692, 1.3, 0.3, 40.0]]
    )
    expected = by_keras(arrays, theta)
    np.testing.assert_allclose(emulator(theta), expected, atol=2e-3)
    np.testing.assert_allclose(emulator(theta[1]), expected[1], atol=2e-3)
    assert theta[1, 2] == 0.0
    assert emulator.names == ("fstar", "Vc", "fX", "tau", "alpha", "nu_min", "Rmfp")
    assert emulator.parameters[0].max == pytest.approx(0.5)


def test_it_saves_and_loads_like_any_other(files, tmp_path):
    from lstmfit import Emulator

    emulator = load_published(*files[:3])
    emulator.save(tmp_path / "mine.h5")
    theta = [0.158, 16.5, 0.0, 0.0626, 1.0, 0.2, 40.0]
    np.testing.assert_array_equal(Emulator.load(tmp_path / "mine.h5")(theta), emulator(theta))


def test_bad_files_are_refused(files, tmp_path, rng):
    path, minima, maxima, _ = files
    with pytest.raises(InputError, match="no emulator file"):
        load_published(tmp_path / "none.h5", minima, maxima)
    with pytest.raises(InputError, match="no file"):
        load_published(path, tmp_path / "none.txt", maxima)
    with pytest.raises(InputError, match="has 9 numbers; expected 10"):
        load_published(path, minima, maxima, "ARES")
    with pytest.raises(InputError, match="did you mean '21cmGEM'"):
        load_published(path, minima, maxima, "21cmgem")
    write_keras2(tmp_path / "wide.h5", rng, inputs=9)
    with pytest.raises(InputError, match="takes 8 parameters; the set has 7"):
        load_published(tmp_path / "wide.h5", minima, maxima)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="not a whole Keras file of 21cmLSTM"):
        load_published(path, minima, maxima)




def test_training_the_published_layout(tmp_path, rng):
    write_gem(tmp_path / "gem.h5", rng)
    data = load_signals(tmp_path / "gem.h5")
    losses = []
    emulator = train_published(data, epochs=0.04, units=6, progress=lambda *a: losses.append(a))
    assert [a[0] for a in losses] == list(range(1, losses[0][1] + 1))
    assert losses[-1][2] < losses[0][2]
    assert emulator.architecture.steps == 451
    residual = emulator(data.val.theta) - data.val.signal
    scale = data.train.signal.max() - data.train.signal.min()
    assert np.mean(residual**2) / scale**2 == pytest.approx(min(a[2] for a in losses), rel=1e-3)
