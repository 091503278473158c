"""21cmLSTM (Dorigo Jones et al. 2024, arXiv:2410.07619): its files as they are, without Keras.

Two LSTM layers over the frequency channels, from high redshift to low, and a dense layer to one channel a step. Each
step is given the parameters and the frequency, all scaled to 0..1 by the training set's minima and maxima. That is
this package's network without an encoder: what the parameters add to the first layer's gates is the same at every
step, what the frequency adds is a bias of the step, and the initial states are zero.
"""

from pathlib import Path

import numpy as np

from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.specs import SignalSpec, recognise_spec
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.formats import checksum_of
from lstmfit.emulator.formats.keras_files import read_keras
from lstmfit.emulator.formats.numbers import read_list
from lstmfit.emulator.scaling import Scaling
from lstmfit.emulator_source import extremes_of
from lstmfit.errors import InputError, listed


def read_lstm21cm(path, spec: SignalSpec | None = None) -> dict:
    """Read a 21cmLSTM emulator.

    Parameters
    ----------
    path : path
        ``emulator_*.h5`` as Keras saved it; ``train_mins_*.txt`` and ``train_maxs_*.txt`` lie beside it: one number for
        each parameter (log10 where it is taken), for the frequency over its maximum, and for the signal in mK.
    spec : SignalSpec, optional
        Parameters and grid. By default those of 21cmGEM or ARES, whichever fits the numbers of inputs and channels.

    Returns
    -------
    dict
        What `lstmfit.emulator.emulator.Emulator` takes. A value of 0 for 21cmGEM's fX counts as 1e-6.

    Raises
    ------
    InputError
        A file is missing or is not what it should be.
    """
    path = Path(path)
    network = read_keras(path, "Keras file of 21cmLSTM")
    kinds = [layer.kind for layer in network.layers]
    if kinds != ["LSTM", "LSTM", "Dense"]:
        raise InputError(f"{path} is a network of {listed(kinds)}; 21cmLSTM is LSTM, LSTM, Dense")
    layers = [layer.arrays for layer in network.layers]
    n_params = len(layers[0][0]) - 1
    shape = network.input_shape
    n_channels = shape[0] if shape and isinstance(shape[0], int) else None
    # Where the file leaves the number of channels open: the authors' layers have as many units.
    spec = spec or recognise_spec(path, n_params, n_channels or len(layers[0][1]))
    spec.check_sizes(path, n_params, n_channels)
    if spec.grid is None:
        raise InputError(f"{path} has no redshift grid; add redshifts: {{min: 5, max: 50, n: 451}} to the spec")
    files = extremes_of(path, ".txt")
    what = "the minima and maxima of the parameters, log10 where it is taken, of the frequency and of the signal"
    remedy = "it lies beside the emulator, under this name"
    low, high = (read_list(file, what, n_params + 2, remedy) for file in files)
    if not (low < high).all():
        raise InputError(
            f"{files[0]} and {files[1].name}: number {int(np.argmin(low < high)) + 1} is not below its maximum"
        )
    parameters = tuple(column.parameter(*ends) for column, *ends in zip(spec.parameters, low, high))
    checksum = checksum_of([path, *files], parameters, spec.grid)
    return assemble(layers, parameters, spec.grid, low, high, path.stem.removeprefix("emulator_"), checksum)


def assemble(layers, parameters, redshifts, low, high, name, checksum="") -> dict:
    """What `Emulator` takes, from the arrays of the published layers.

    Parameters
    ----------
    layers : list of list of numpy.ndarray
        Arrays of LSTM, LSTM, Dense in Keras' order: kernel, recurrent kernel, bias.
    parameters : tuple of Parameter
        In the order of theta.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    low, high : numpy.ndarray
        (n_params + 2,) minima and maxima of the scaled parameters, of the frequency over its maximum, of the signal.
    name, checksum : str
        Of the emulator.
    """
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
    return {
        "architecture": architecture,
        "scaling": scaling,
        "weights": {key: np.asarray(array, np.float32) for key, array in weights.items()},
        "redshifts": redshifts,
        "parameters": parameters,
        "record": {"architecture": "published"},
        "name": name,
        "checksum": checksum,
    }
