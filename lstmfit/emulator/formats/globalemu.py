"""globalemu (Bevins et al. 2021, arXiv:2104.04336): reads its folders without TensorFlow.

A dense network gives the signal at one redshift, which is its last input. The parameters are scaled to 0..1 with the
minima and maxima of the training set, after taking log10 of the logarithmic ones. The redshift is scaled in the same
way or, if ``preprocess_settings.pkl`` sets ``resampling``, by the cumulative distribution of the variation of the
training signals. With ``std_division`` the output is multiplied by a standard deviation; with ``AFB`` the signal of a
universe without stars is added.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmfit.datasets.public import PUBLIC
from lstmfit.datasets.specs import SignalSpec, presets, recognise_spec
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.formats import checksum_of
from lstmfit.emulator.formats.compiled import CompiledEngine
from lstmfit.emulator.formats.keras_files import Layer, read_keras
from lstmfit.emulator.formats.numbers import read_list
from lstmfit.emulator.formats.pickles import read_plain
from lstmfit.emulator.simd import LANES, padded, panels
from lstmfit.errors import InputError, listed, one_line
from lstmfit.outputs import OutputLayout
from lstmfit.schema import shown

ACTIVATIONS = ("linear", "tanh", "relu", "sigmoid", "elu", "softplus")
"""Activations, in the order of the kernel's constants."""
SETTINGS = ("AFB", "std_division", "resampling")
REMEDY = "copy the whole folder again"


@dataclass(frozen=True)
class Folder:
    """Content of a globalemu folder.

    Parameters
    ----------
    layers : list of Layer
        Dense layers, first to last.
    low, high : numpy.ndarray
        (n_params,) range of each parameter, in log10 if it is logarithmic.
    redshifts, z_inputs : numpy.ndarray
        (n_channels,) the ascending grid, and the corresponding inputs of the network.
    scale : float
        Scale of the network's output, in mK.
    baseline : numpy.ndarray
        (n_channels,) mK added to the scaled output.
    files : list of pathlib.Path
        All files that were read.
    """

    layers: list[Layer]
    low: np.ndarray
    high: np.ndarray
    redshifts: np.ndarray
    z_inputs: np.ndarray
    scale: float
    baseline: np.ndarray
    files: list[Path]


def load_globalemu(path, spec: SignalSpec | None = None) -> BaseEmulator:
    """Load a globalemu emulator of the signal.

    Parameters
    ----------
    path : path
        Folder with ``model.h5``, ``z.txt``, ``data_mins.txt``, ``data_maxs.txt``, ``preprocess_settings.pkl``, and the
        files that these settings require: ``cdf.txt``, ``labels_stds.npy``, ``AFB.txt``.
    spec : SignalSpec, optional
        Description of the parameters. The folder contains log10 of the logarithmic ones, but not which ones these are
        (``logs`` in globalemu). By default the parameters of a public set, if the grid and the ranges match it.

    Returns
    -------
    BaseEmulator
        Computed in float32, as in globalemu, on the redshifts of the folder.

    Raises
    ------
    InputError
        A file is missing or invalid, or the network does not emulate the signal.
    """
    path = Path(path)
    folder = read_folder(path)
    if _is_neutral_fraction(path, folder):
        raise InputError(
            f"{path} is a globalemu emulator of the neutral fraction, but a fit needs the signal in mK; use the one "
            "that was trained on temperatures (T_release of globalemu)"
        )
    if spec is None:
        spec = _tell_spec(path, folder)
    spec.check_sizes(path, len(folder.low))
    parameters = tuple(column.parameter(*ends) for column, *ends in zip(spec.parameters, folder.low, folder.high))
    sizes = [len(folder.layers[0].arrays[0]), *(len(layer.arrays[-1]) for layer in folder.layers)]
    return BaseEmulator(
        make_engine(folder, [p.log for p in parameters]),
        OutputLayout.of(len(folder.redshifts), ("signal",)),
        folder.redshifts,
        parameters,
        name=path.resolve().name,
        checksum=checksum_of(folder.files, parameters, folder.redshifts),
        network=f"globalemu {'-'.join(map(str, sizes))}",
    )


def read_folder(path) -> Folder:
    """Read and check a globalemu folder.

    Raises
    ------
    InputError
        A file is missing or invalid.
    """
    path = Path(path)
    layers = _read_network(path / "model.h5")
    settings = _read_settings(path / "preprocess_settings.pkl")
    files = ["model.h5", "preprocess_settings.pkl", "z.txt", "data_mins.txt", "data_maxs.txt"]
    p = len(layers[0].arrays[0]) - 1
    redshifts = read_list(path / "z.txt", "the redshifts", remedy=REMEDY)
    if len(redshifts) < 2 or not (np.diff(redshifts) > 0).all() or redshifts[0] < 0:
        raise InputError(f"{path / 'z.txt'}: redshifts {listed(redshifts, 3)} do not ascend from 0 or above; {REMEDY}")
    what = "one per parameter, log10 for logarithmic ones"
    low, high = (read_list(path / f"data_{end}.txt", what, p, REMEDY) for end in ("mins", "maxs"))
    if not (low < high).all():
        raise InputError(f"{path / 'data_mins.txt'}: number {int(np.argmin(low < high)) + 1} is not below its maximum")
    z_inputs = (redshifts - redshifts[0]) / (redshifts[-1] - redshifts[0])
    scale, baseline = 1.0, np.zeros(len(redshifts))
    if settings["resampling"]:
        files.append("cdf.txt")
        what = "the distribution needed for resampling, which preprocess_settings.pkl sets"
        z_inputs = read_list(path / "cdf.txt", what, len(redshifts), REMEDY)
    if settings["AFB"]:
        files.append("AFB.txt")
        what = "the baseline needed for AFB, which preprocess_settings.pkl sets"
        baseline = read_list(path / "AFB.txt", what, len(redshifts), REMEDY)
    if settings["std_division"]:
        files.append("labels_stds.npy")
        scale = _read_scale(path / "labels_stds.npy")
    return Folder(layers, low, high, redshifts, z_inputs, scale, baseline, [path / name for name in files])


def _read_network(path) -> list[Layer]:
    what = "globalemu network"
    layers = read_keras(path, what, ("Dense",)).layers
    n_in = layers[0].arrays[0].shape[0]
    for layer in layers:
        kernel, bias = layer.arrays
        if (given := layer.config.get("activation")) not in ACTIVATIONS:
            raise InputError(f"{path}: a layer has activation {shown(given)}; supported are {listed(ACTIVATIONS)}")
        if kernel.shape != (n_in, len(bias)) or not len(bias):
            raise InputError(
                f"{path}: a layer has weights of shape {kernel.shape}, but {n_in} inputs; copy the file again"
            )
        n_in = len(bias)
    if len(layers) < 2 or n_in != 1 or layers[0].arrays[0].shape[0] < 2:
        sizes = listed([layers[0].arrays[0].shape[0], *(len(layer.arrays[1]) for layer in layers)])
        raise InputError(
            f"{path} is a network of widths {sizes}, but globalemu has hidden layers and one output; {REMEDY}"
        )
    return layers


def _read_settings(path) -> dict[str, bool]:
    settings = read_plain(path)
    if not isinstance(settings, dict) or not all(type(settings.get(name)) is bool for name in SETTINGS):
        raise InputError(
            f"{path} contains {shown(settings)}, but {listed(SETTINGS)} must each be True or False; {REMEDY}"
        )
    return settings


def _read_scale(path) -> float:
    if not path.is_file():
        raise InputError(
            f"no file {path}, which is needed for std_division, which preprocess_settings.pkl sets; {REMEDY}"
        )
    try:
        scale = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a NumPy array ({one_line(error, 120)}); {REMEDY}") from None
    if scale.size != 1 or scale.dtype.kind not in "fiu" or not 0 < scale.item() < np.inf:
        raise InputError(
            f"{path} contains {shown(scale)}, but one positive number is expected, a standard deviation in mK; {REMEDY}"
        )
    return float(scale.item())


def _is_neutral_fraction(path, folder) -> bool:
    """Whether globalemu recorded a training on the neutral fraction, or the output cannot be negative."""
    try:
        notes = (path / "kwargs.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        notes = ""
    activation = folder.layers[-1].config["activation"]
    return "xHI: True" in notes or (activation in ("relu", "sigmoid", "softplus") and not folder.baseline.any())


def _tell_spec(path, folder) -> SignalSpec:
    """Spec of the public set with the same grid and ranges; the number of parameters alone could match by chance."""
    spec = recognise_spec(path, len(folder.low), len(folder.redshifts))
    preset = next(name for name, known in presets().items() if known is spec)
    ranges = next(item.content.ranges for item in PUBLIC.values() if item.content and item.content.preset == preset)
    inside = []
    for column, *ends in zip(spec.parameters, folder.low, folder.high):
        # A value beyond 99 cannot be a log10; clip it to avoid an overflow.
        low, high = 10.0 ** np.clip(ends, -99, 99) if column.log else ends
        inside.append(ranges[column.name][0] <= low and high <= ranges[column.name][1])
    if not all(inside) or np.abs(folder.redshifts - spec.grid).max() > 1e-6:
        what = "its redshifts" if all(inside) else f"the limits of parameter {inside.index(False) + 1}"
        raise InputError(
            f"{path} has as many parameters as {preset.lower()}, but {what} do not match it; describe its parameters: "
            "emulator: {file: FOLDER, parameters: SPEC.yaml}"
        )
    return spec


def make_engine(folder: Folder, log) -> CompiledEngine:
    """Engine that computes the output of a folder's network in mK, at its redshifts.

    Parameters
    ----------
    folder : Folder
        The network and its scaling.
    log : sequence of bool
        (n_params,) whether each parameter is logarithmic.
    """
    n_params = len(folder.low)
    sizes, parts = [n_params], []
    for i, layer in enumerate(folder.layers[:-1]):
        kernel, bias = layer.arrays
        n = padded(len(bias))
        rows = n_params + 1 if i == 0 else sizes[-1]
        full = np.zeros((rows, n))
        full[: len(kernel), : len(bias)] = kernel
        # The first layer is stored row by row, with the row of the redshift last.
        parts += [np.pad(bias, (0, n - len(bias))), full if i == 0 else panels(full)]
        sizes.append(n)
    kernel, bias = folder.layers[-1].arrays
    parts += [bias, np.pad(kernel[:, 0], (0, sizes[-1] - len(kernel)))]
    weights = np.concatenate([np.asarray(part, np.float32).ravel() for part in parts])
    inputs = np.stack([np.asarray(log, float), folder.low, folder.high - folder.low])
    activations = np.array([ACTIVATIONS.index(layer.config["activation"]) for layer in folder.layers])
    width = max(sizes[1:])
    work = n_params + width + 2 * LANES * width
    z = folder.z_inputs.astype(np.float32)
    rest = (np.array(sizes), activations, inputs, weights, z, folder.scale, folder.baseline)
    return CompiledEngine("lstmfit.emulator.formats._globalemu_kernel", len(folder.redshifts), work, np.float32, rest)
