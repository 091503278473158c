"""Training of the published 21cmLSTM (Dorigo Jones et al. 2024, arXiv:2410.07619) with its authors' method."""

import numpy as np

from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.signal_sets import SignalSet
from lstmfit.emulator.emulator import Emulator
from lstmfit.emulator.formats.lstm21cm import assemble

SCHEDULE = ((75, 10), (25, 1), (75, 10))
"""Stages of the published training: (epochs, batch size); the learning rate of Adam is always 1e-3."""


def train_published(data: SignalSet, *, epochs: float = 1.0, units: int | None = None, seed: int = 0, progress=None):
    """Train the published architecture as its authors do: mean square error of signals scaled to 0..1, Adam.

    Parameters
    ----------
    data : SignalSet
        Training data. Unlike the authors' training, this one keeps the weights with the lowest validation loss.
    epochs : float
        Fraction of the epochs of `SCHEDULE`, for a shorter training.
    units : int, optional
        Units per layer; by default the number of channels.
    seed : int
        Seed of the initial weights and of the order of the signals.
    progress : callable, optional
        Called as ``progress(epoch, n_epochs, validation_loss)``.

    Returns
    -------
    Emulator
    """
    from lstmfit.emulator.network import import_keras

    _, keras = import_keras()
    keras.utils.set_random_seed(seed)
    n, units = len(data.redshifts), units or len(data.redshifts)
    low, high, nu = _extremes(data)
    model = keras.Sequential(
        [
            keras.layers.Input((n, len(data.parameters) + 1)),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=False)
    sets = [_sequences(data, split, low, high, nu) for split in (data.train, data.val)]
    best, best_loss, done = model.get_weights(), np.inf, 0
    stages = [(max(1, round(e * epochs)), min(b, len(data.train))) for e, b in SCHEDULE]
    total = sum(e for e, _ in stages)
    for count, batch in stages:
        for _ in range(count):
            history = model.fit(*sets[0], batch_size=batch, epochs=1, validation_data=sets[1], verbose=0)
            loss, done = history.history["val_loss"][0], done + 1
            if loss < best_loss:
                best, best_loss = model.get_weights(), loss
            if progress is not None:
                progress(done, total, loss)
    layers = [best[:3], best[3:6], best[6:]]
    return Emulator(**assemble(layers, data.parameters, data.redshifts, low, high, "published"))


def _scaled(data, split):
    log = np.array([p.log for p in data.parameters])
    theta = split.theta.copy()
    theta[:, log] = np.log10(theta[:, log])
    return theta


def _extremes(data):
    theta, nu = _scaled(data, data.train), redshift_to_frequency(data.redshifts)
    nu = nu / nu.max()
    signal = data.train.signal
    low, high = (np.array([*f(theta, axis=0), f(nu), f(signal)]) for f in (np.min, np.max))
    return low, high, nu


def _sequences(data, split, low, high, nu):
    p = len(data.parameters)
    theta = (_scaled(data, split) - low[:p]) / (high[:p] - low[:p])
    frequency = (nu[::-1] - low[p]) / (high[p] - low[p])
    x = np.empty((len(split), len(nu), p + 1), np.float32)
    x[:, :, :p], x[:, :, p] = theta[:, None, :], frequency
    y = (split.signal[:, ::-1] - low[-1]) / (high[-1] - low[-1])
    return x, y[:, :, None].astype(np.float32)
