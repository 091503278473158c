"""21cmKAN (Dorigo Jones et al. 2025, arXiv:2508.11752): reads its files without torch.

It is a Kolmogorov-Arnold network with layers silu(x) W_b^T + B(x) (W_s * scaler)^T, where B are the cubic B-splines on
a grid of knots stored for each input. The inputs are scaled to 0..1 with the minima and maxima of the training set,
after taking log10 of the logarithmic parameters. The output is scaled back with the minimum and maximum of the signal,
and runs from high redshift to low.
"""

from pathlib import Path

import numpy as np

from lstmfit.datasets.specs import SignalSpec, recognise_spec
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.formats import checksum_of
from lstmfit.emulator.formats.compiled import CompiledEngine
from lstmfit.emulator.formats.pickles import Inert, read_torch
from lstmfit.emulator_source import extremes_of
from lstmfit.errors import InputError, listed, one_line
from lstmfit.outputs import OutputLayout
from lstmfit.schema import shown

CLASSES = ("efficient_kan.kan.KAN", "efficient_kan.kan.KANLinear", "torch.nn.modules.container.ModuleList",
           "torch.nn.modules.activation.SiLU")  # fmt: skip
"""Classes that occur in the published files."""
DEGREE = 3
REMEDY = "copy it again from 21cmKAN's folder models"


def load_kan(path, spec: SignalSpec | None = None) -> BaseEmulator:
    """Load a 21cmKAN emulator.

    Parameters
    ----------
    path : path
        ``emulator_*.pth``, with ``train_mins_*.npy`` and ``train_maxs_*.npy`` in the same folder.
    spec : SignalSpec, optional
        Parameters and grid. By default those of 21cmGEM or ARES, whichever matches the numbers of inputs and channels.

    Returns
    -------
    BaseEmulator
        Computed in float64, as by its authors.

    Raises
    ------
    InputError
        A file is missing or invalid, or tries to run code.
    """
    path = Path(path)
    layers = [_layer(path, i, layer) for i, layer in enumerate(_read_layers(path))]
    sizes = [len(layers[0][0]), *(len(base[0]) for _, base, _ in layers)]
    if any(len(knots) != size for (knots, _, _), size in zip(layers, sizes)):
        raise InputError(f"{path}: the widths of consecutive layers do not match ({listed(sizes)}); {REMEDY}")
    if len({knots.shape[1] for knots, _, _ in layers}) > 1:
        raise InputError(
            f"{path}: the numbers of spline knots differ between layers, but are equal in 21cmKAN; {REMEDY}"
        )
    spec = spec or recognise_spec(path, sizes[0], sizes[-1])
    spec.check_sizes(path, sizes[0], sizes[-1])
    low, high, files = _read_extremes(path, sizes[0])
    parameters = tuple(column.parameter(*ends) for column, *ends in zip(spec.parameters, low, high))
    redshifts = spec.grid
    engine = make_engine(sizes, layers, parameters, low, high)
    layout = OutputLayout.of(len(redshifts), ("signal",))
    checksum = checksum_of([path, *files], parameters, redshifts)
    network = f"21cmKAN {'-'.join(map(str, sizes))}"
    name = path.stem.removeprefix("emulator_")
    return BaseEmulator(engine, layout, redshifts, parameters, name=name, checksum=checksum, network=network)


def _read_layers(path) -> list[dict]:
    """State of every KANLinear layer, first to last, from a pickled module or a state dict."""
    if not path.is_file():
        raise InputError(f"no emulator file {path}")
    content = read_torch(path, CLASSES)
    if isinstance(content, Inert):
        try:
            modules = content.state["_modules"]["layers"].state["_modules"].values()
            return [module.state["_parameters"] | module.state["_buffers"] for module in modules]
        except (KeyError, AttributeError, TypeError):
            raise InputError(
                f"{path} is a {content.kind} without layers, so not a 21cmKAN network; {REMEDY}"
            ) from None
    if isinstance(content, dict) and all(isinstance(key, str) for key in content):
        found: dict[str, dict] = {}
        for key, array in content.items():
            layer, _, name = key.removeprefix("layers.").partition(".")
            found.setdefault(layer, {})[name] = array
        if found and all(layer.isdecimal() for layer in found):
            return [found[layer] for layer in sorted(found, key=int)]
    raise InputError(f"{path} contains {shown(content)}, but the layers of a 21cmKAN network are expected; {REMEDY}")


def _layer(path, i, state) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Knots (n_in, n_knots), W_b transposed (n_in, n_out), W_s * scaler (n_in, n_bases, n_out); all float64."""
    where = f"{path}: layer {i}"
    arrays = []
    for name, dimensions in (("grid", 2), ("base_weight", 2), ("spline_weight", 3)):
        array = state.get(name)
        if not isinstance(array, np.ndarray) or array.ndim != dimensions or array.dtype.kind != "f" or not array.size:
            raise InputError(
                f"{where}: {name} is {shown(array)}, but a {dimensions}-dimensional array is expected; {REMEDY}"
            )
        arrays.append(array.astype(float))
    knots, base, spline = arrays
    scaler = state.get("spline_scaler")
    if scaler is not None:
        if not isinstance(scaler, np.ndarray) or scaler.shape != base.shape:
            raise InputError(f"{where}: spline_scaler does not have the shape of base_weight; {REMEDY}")
        spline = spline * scaler[:, :, None]
    n_out, n_in = base.shape
    if len(knots) != n_in or spline.shape != (n_out, n_in, knots.shape[1] - DEGREE - 1):
        shapes = listed(str(array.shape) for array in arrays)
        raise InputError(
            f"{where}: grid, base_weight and spline_weight have shapes {shapes}, which do not match cubic splines; "
            f"{REMEDY}"
        )
    if not (np.diff(knots) > 0).all() or not all(np.isfinite(array).all() for array in (knots, base, spline)):
        raise InputError(f"{where}: the knots do not ascend, or a weight is not finite; {REMEDY}")
    return knots, base.T, spline.transpose(1, 2, 0)


def _read_extremes(path, n_params) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    """Minima and maxima (n_params + 1,) of the scaled parameters and the signal, and their files."""
    files = extremes_of(path, ".npy")
    arrays = []
    for file in files:
        if not file.is_file():
            raise InputError(
                f"no file {file}; put 21cmKAN's minima and maxima under this name in the folder of the emulator"
            )
        try:
            array = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{file} is not a NumPy array ({one_line(error, 120)}); {REMEDY}") from None
        if array.shape != (n_params + 1,) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError(
                f"{file} has shape {array.shape}, but {n_params + 1} finite numbers are needed: one per parameter, "
                f"log10 for logarithmic ones, and one for the signal in mK; {REMEDY}"
            )
        arrays.append(array.astype(float))
    low, high = arrays
    if not (low < high).all():
        raise InputError(f"{files[0]}: number {int(np.argmin(low < high)) + 1} is not below its maximum; {REMEDY}")
    return low, high, files


def make_engine(sizes, layers, parameters, low, high) -> CompiledEngine:
    """Engine that computes the signal, in float64.

    Parameters
    ----------
    sizes : sequence of int
        Widths of the layers, parameters first.
    layers : sequence of tuple
        Knots (n_in, n_knots), silu weights (n_in, n_out) and spline weights (n_in, n_bases, n_out) of each layer.
    parameters : sequence of Parameter
        Parameters, for which of them are logarithmic.
    low, high : numpy.ndarray
        (n_params + 1,) minima and maxima of the scaled parameters and of the signal in mK.
    """
    knots = np.concatenate([knots.ravel() for knots, _, _ in layers])
    # For each input, the row of silu, then those of the bases.
    weights = np.concatenate([np.concatenate([w[:, None], s], axis=1).ravel() for _, w, s in layers])
    inputs = np.stack([np.array([float(p.log) for p in parameters]), low[:-1], (high - low)[:-1]])
    width = max(sizes)
    rest = (
        np.array(sizes, dtype=np.int64), layers[0][0].shape[1], width, inputs, knots, weights,
        float(high[-1] - low[-1]), float(low[-1]),
    )  # fmt: skip
    kernel = "lstmfit.emulator.formats._kan_kernel"
    return CompiledEngine(kernel, sizes[-1], 2 * width + DEGREE + 1, np.float64, rest)
