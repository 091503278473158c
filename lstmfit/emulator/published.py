"""The published 21cmLSTM (Dorigo Jones et al. 2024, arXiv:2410.07619): its files, and its training.

Two LSTM layers over the frequency channels, from high redshift to low, and a dense layer to one channel a step. Each
step is given the parameters and the frequency, all scaled to 0..1 by the training set's minima and maxima. That is
this package's network without an encoder: what the parameters add to the first layer's gates is the same at every
step, what the frequency adds is a bias of the step, and the initial states are zero.
"""

import warnings
from pathlib import Path

import h5py
import numpy as np

from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.signal_sets import SignalSet
from lstmfit.datasets.specs import presets
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.emulator import Emulator
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError, did_you_mean, listed, one_line
from lstmfit.hdf5 import read_array, read_json, read_texts, reading


def load_published(path, minima, maxima, set_name: str = "21cmGEM") -> Emulator:
    """Load a published emulator file without Keras.

    Parameters
    ----------
    path : path
        ``emulator_*.h5`` as Keras 2 saved it.
    minima, maxima : path
        Text files ``train_mins_*.txt`` and ``train_maxs_*.txt``: one number for each parameter (log10 where it is
        taken), for the frequency over its maximum, and for the signal in mK.
    set_name : {"21cmGEM", "ARES"}
        Which public set it was trained on: that gives the grid and the parameters.

    Returns
    -------
    Emulator
        A value of 0 for 21cmGEM's fX counts as 1e-6.

    Raises
    ------
    InputError
        A file is missing or is not what it should be.
    """
    known = presets()
    if set_name not in known:
        raise InputError(f"no public set {set_name!r}; {did_you_mean(set_name, known)}")
    spec = known[set_name]
    low, high = (_read_numbers(file, len(spec.parameters) + 2) for file in (minima, maxima))
    if not (low < high).all():
        raise InputError(f"{minima} and {maxima}: number {int(np.argmin(low < high)) + 1} is not below its maximum")
    try:
        parameters = tuple(column.parameter(*ends) for column, *ends in zip(spec.parameters, low, high))
    except InputError as error:
        raise InputError(f"{minima} and {maxima}: {error}") from None
    layers = _read_keras(path)
    return _assemble(layers, parameters, spec.grid, low, high, Path(path).stem)


def _read_numbers(path, n):
    if not Path(path).is_file():
        raise InputError(f"no file {path}; the published minima and maxima lie beside the emulator, train_mins_*.txt")
    try:
        with warnings.catch_warnings():
            # Of an empty file, which is refused below.
            warnings.simplefilter("ignore", UserWarning)
            numbers = np.loadtxt(path).ravel()
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a list of numbers ({one_line(error, 120)})") from None
    if len(numbers) != n:
        raise InputError(f"{path} has {len(numbers)} numbers; expected {n}: parameters, frequency, signal")
    if not (np.abs(numbers) <= 1e6).all():
        raise InputError(f"{path}: numbers up to {np.abs(numbers).max():g}; finite ones are needed, some of them log10")
    return numbers


def _read_keras(path) -> list[list[np.ndarray]]:
    """Weight arrays of [LSTM, LSTM, Dense] in Keras' order: kernel, recurrent kernel, bias."""
    if not Path(path).is_file():
        raise InputError(f"no emulator file {path}")
    what = "Keras file of 21cmLSTM"
    with reading(path, what, "copy it again") as file:
        content = read_json(file, "model_config", dict).get("config")
        content = content.get("layers") if isinstance(content, dict) else content
        if not isinstance(content, list) or not all(_is_layer(layer) for layer in content):
            raise InputError(f"{path} is not a {what}: its model_config lists no layers; copy it again")
        layers = [layer for layer in content if layer["class_name"] != "InputLayer"]
        kinds = [layer["class_name"] for layer in layers]
        if kinds != ["LSTM", "LSTM", "Dense"]:
            raise InputError(f"{path} is a network of {listed(kinds)}; 21cmLSTM is LSTM, LSTM, Dense")
        weights = file["model_weights"] if "model_weights" in file else file
        return [_read_layer(weights, layer["config"]["name"], kind) for layer, kind in zip(layers, kinds)]


def _is_layer(layer) -> bool:
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("class_name"), str)
        and isinstance(layer.get("config"), dict)
        and (isinstance(layer["config"].get("name"), str) or layer["class_name"] == "InputLayer")
    )


def _read_layer(weights, name, kind) -> list[np.ndarray]:
    """Arrays of a layer in Keras' order, by the names that its group lists."""
    group = weights.get(name)
    if not isinstance(group, h5py.Group):
        raise InputError(f"{weights.file.filename}: the weights of layer {name} are missing; copy the file again")
    shapes = ((None, None), (None, None), (None,)) if kind == "LSTM" else ((None, None), (None,))
    names = read_texts(group, "weight_names", len(shapes))
    return [read_array(group, n, shape) for n, shape in zip(names, shapes)]


def _assemble(layers, parameters, redshifts, low, high, name) -> Emulator:
    """An emulator from the layers' arrays and the minima and maxima of the scaled columns."""
    (kernel, recurrent, bias), (kernel_1, recurrent_1, bias_1), (dense, dense_bias) = layers
    p, u, n = len(parameters), recurrent.shape[0], len(redshifts)
    if kernel.shape[0] != p + 1:
        names = ", ".join(q.name for q in parameters)
        raise InputError(f"{name} takes {kernel.shape[0] - 1} parameters; the set has {p}: {names}")
    if recurrent_1.shape[0] != u or dense.shape != (u, 1):
        raise InputError(f"{name}: layers of {u} and {recurrent_1.shape[0]} units; 21cmLSTM has two of the same width")
    shapes = [array.shape for array in (kernel, recurrent, bias, kernel_1, recurrent_1, bias_1, dense_bias)]
    if shapes != [(p + 1, 4 * u), (u, 4 * u), (4 * u,), (u, 4 * u), (u, 4 * u), (4 * u,), (1,)]:
        raise InputError(f"{name}: weights of shapes {listed(shapes)}; two LSTM layers of {u} units are needed")
    architecture = Architecture(p, n, units=u, layers=2, steps=n, encoder=())
    nu = redshift_to_frequency(redshifts)[::-1]
    frequency = (nu / nu.max() - low[p]) / (high[p] - low[p])
    # This package scales to -1..1, the published code to 0..1.
    drive = np.zeros((p, architecture.drive_size))
    drive[:, : 4 * u] = 0.5 * kernel[:p]
    constant = np.zeros(architecture.drive_size)
    constant[: 4 * u] = 0.5 * kernel[:p].sum(axis=0) + bias
    weights = {
        "drive_kernel": drive,
        "drive_bias": constant,
        "recurrent_0": recurrent,
        "step_bias_0": frequency[:, None] * kernel[p],
        "input_1": kernel_1,
        "recurrent_1": recurrent_1,
        "step_bias_1": np.tile(bias_1, (n, 1)),
        "output_kernel": dense,
        "output_bias": np.tile(dense_bias, (n, 1)),
    }
    scaling = Scaling(
        np.array([q.log for q in parameters]),
        np.array(low[:p], dtype=float),
        np.array(high[:p], dtype=float),
        np.full((1, n), low[-1]),
        np.array([high[-1] - low[-1]]),
        np.empty(0),
        np.empty(0),
    )
    weights = {key: np.asarray(array, np.float32) for key, array in weights.items()}
    record = {"architecture": "published"}
    return Emulator(architecture, scaling, weights, redshifts, parameters, record=record, name=name)


SCHEDULE = ((75, 10), (25, 1), (75, 10))
"""Published training: epochs and batch size, one after the other; Adam at 1e-3 throughout."""


def train_published(data: SignalSet, *, epochs: float = 1.0, units: int | None = None, seed: int = 0, progress=None):
    """Train the published layout as its authors do: mean square error of the 0..1 signals, Adam, `SCHEDULE`.

    Parameters
    ----------
    data : SignalSet
        Its validation split is watched and keeps the best weights, which the authors do not do.
    epochs : float
        Fraction of the schedule, for a shorter training.
    units : int, optional
        Units of each layer; the number of channels by default.
    seed : int
        Seed of weights and order.
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
    return _assemble(layers, data.parameters, data.redshifts, low, high, "published")


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
