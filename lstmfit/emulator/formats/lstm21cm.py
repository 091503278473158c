"""21cmLSTM (Dorigo Jones et al. 2024, arXiv:2410.07619): reads its files without Keras.

The network has two LSTM layers over the frequency channels, from high redshift to low, and a dense layer to one channel
per step. The inputs of each step are the parameters and the frequency, all scaled to 0..1 with the minima and maxima of
the training set. This is equivalent to this package's network without an encoder: the contribution of the parameters to
the gates of the first layer is the same at every step, that of the frequency is a bias per step, and the initial states
are zero.
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
        ``emulator_*.h5`` as saved by Keras, with ``train_mins_*.txt`` and ``train_maxs_*.txt`` in the same folder: one
        number per parameter (log10 for logarithmic ones), one for the frequency divided by its maximum, and one for the
        signal in mK.
    spec : SignalSpec, optional
        Parameters and grid. By default those of 21cmGEM or ARES, whichever matches the numbers of inputs and channels.

    Returns
    -------
    dict
        Arguments of `lstmfit.emulator.emulator.Emulator`. A value of 0 for fX of 21cmGEM is replaced by 1e-6.

    Raises
    ------
    InputError
        A file is missing or invalid.
    """
    path = Path(path)
    network = read_keras(path, "Keras file of 21cmLSTM")
    kinds = [layer.kind for layer in network.layers]
    if kinds != ["LSTM", "LSTM", "Dense"]:
        raise InputError(f"{path} is a network with layers {listed(kinds)}; 21cmLSTM has LSTM, LSTM, Dense")
    layers = [layer.arrays for layer in network.layers]
    n_params = len(layers[0][0]) - 1
    shape = network.input_shape
    n_channels = shape[0] if shape and isinstance(shape[0], int) else None
    # If the file leaves the number of channels open, it is the number of units, as in the authors' networks.
    spec = spec or recognise_spec(path, n_params, n_channels or len(layers[0][1]))
    spec.check_sizes(path, n_params, n_channels)
    if spec.grid is None:
        raise InputError(f"{path} has no redshift grid; add redshifts: {{min: 5, max: 50, n: 451}} to the spec")
    files = extremes_of(path, ".txt")
    what = "minima or maxima of the parameters (log10 for logarithmic ones), the frequency and the signal"
    remedy = "put it under this name in the folder of the emulator"
    low, high = (read_list(file, what, n_params + 2, remedy) for file in files)
    if not (low < high).all():
        raise InputError(
            f"{files[0]} and {files[1].name}: number {int(np.argmin(low < high)) + 1} is not below its maximum; copy "
            "both files again"
        )
    parameters = tuple(column.parameter(*ends) for column, *ends in zip(spec.parameters, low, high))
    checksum = checksum_of([path, *files], parameters, spec.grid)
    return assemble(layers, parameters, spec.grid, low, high, path.stem.removeprefix("emulator_"), checksum)


def assemble(layers, parameters, redshifts, low, high, name, checksum="") -> dict:
    """Arguments of `Emulator`, from the arrays of the published layers.

    Parameters
    ----------
    layers : list of list of numpy.ndarray
        Arrays of LSTM, LSTM, Dense in Keras' order: kernel, recurrent kernel, bias.
    parameters : tuple of Parameter
        In the order of theta.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    low, high : numpy.ndarray
        (n_params + 2,) minima and maxima of the scaled parameters, the frequency divided by its maximum, the signal.
    name, checksum : str
        Name and checksum of the emulator.
    """
    (kernel, recurrent, bias), (kernel_1, recurrent_1, bias_1), (dense, dense_bias) = layers
    p, u, n = len(parameters), recurrent.shape[0], len(redshifts)
    if kernel.shape[0] != p + 1:
        names = ", ".join(q.name for q in parameters)
        raise InputError(f"{name} has {kernel.shape[0] - 1} parameters, but {p} are described: {names}")
    if recurrent_1.shape[0] != u or dense.shape != (u, 1):
        raise InputError(
            f"{name}: layers of {u} and {recurrent_1.shape[0]} units, but those of 21cmLSTM have the same width"
        )
    shapes = [array.shape for array in (kernel, recurrent, bias, kernel_1, recurrent_1, bias_1, dense_bias)]
    if shapes != [(p + 1, 4 * u), (u, 4 * u), (4 * u,), (u, 4 * u), (u, 4 * u), (4 * u,), (1,)]:
        raise InputError(
            f"{name}: weights have shapes {listed(shapes)}, which do not match two LSTM layers of {u} units"
        )
    architecture = Architecture(p, n, units=u, layers=2, steps=n, encoder=())
    nu = redshift_to_frequency(redshifts)[::-1]
    frequency = (nu / nu.max() - low[p]) / (high[p] - low[p])
    # Inputs are scaled to -1..1 in this package, and to 0..1 in the published code.
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
