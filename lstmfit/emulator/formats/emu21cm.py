"""21cmEMU (Breitman et al. 2024, arXiv:2309.05697; 2026, arXiv:2606.00219): the weights of the package py21cmemu.

The weights are read from the installed package without importing it or torch. ``acg`` (atomic cooling galaxies) is a
dense network with a trunk and a branch for each output. ``mcg`` (with molecular cooling galaxies) has a network for
each output. For the signal and the neutral fraction these are two LSTM layers from high redshift to low, equivalent to
this package's network without an encoder. The luminosity functions come from an LSTM over redshift, each of whose
states is the input of another LSTM over magnitude; tau comes from a dense network. Power spectra and spin temperature
are not supported.
"""

from importlib import metadata, util
from pathlib import Path

import numpy as np
from scipy.special import erf, expit

from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.formats import PREFIX, checksum_of
from lstmfit.emulator.formats.pickles import read_torch
from lstmfit.emulator.numba_engine import NumbaEngine
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError, did_you_mean, one_line
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter

PACKAGE, INSTALL = "py21cmemu", "pip install --no-deps py21cmemu (209 MB; torch is not needed)"
TABLE = "log10_uvlf"
"""log10 of the luminosity function per magnitude and comoving Mpc^3, as a table of redshift and absolute magnitude."""
UNIT_L_X = "log10(erg/s/(Msun/yr))"
NAMES = {
    # Logarithmic quantities are given as log10, for example log10 of an efficiency of 1e-4 to 1.
    "F_STAR10": ("log10", r"\log_{10} f_{\ast,10}"),
    "ALPHA_STAR": ("", r"\alpha_\ast"),
    "t_STAR": ("", r"t_\ast"),
    "F_ESC10": ("log10", r"\log_{10} f_{\mathrm{esc},10}"),
    "ALPHA_ESC": ("", r"\alpha_\mathrm{esc}"),
    "M_TURN": ("log10(Msun)", r"\log_{10} M_\mathrm{turn}"),
    "F_STAR7_MINI": ("log10", r"\log_{10} f_{\ast,7}^\mathrm{mini}"),
    "F_ESC7_MINI": ("log10", r"\log_{10} f_{\mathrm{esc},7}^\mathrm{mini}"),
    "L_X": (UNIT_L_X, r"\log_{10} L_{\mathrm{X}<2\,\mathrm{keV}}/\mathrm{SFR}"),
    "L_X_MINI": (UNIT_L_X, r"\log_{10} L_{\mathrm{X}<2\,\mathrm{keV}}^\mathrm{mini}/\mathrm{SFR}"),
    "NU_X_THRESH": ("eV", "E_0"),
    "X_RAY_SPEC_INDEX": ("", r"\alpha_\mathrm{X}"),
    "SIGMA_8": ("", r"\sigma_8"),
}
"""Unit and LaTeX label of each parameter, by its name in 21cmFAST."""
ACG_NAMES = ("F_STAR10", "ALPHA_STAR", "F_ESC10", "ALPHA_ESC", "M_TURN", "t_STAR", "L_X", "NU_X_THRESH",
             "X_RAY_SPEC_INDEX")  # fmt: skip
ACG_REDSHIFTS = (6.0, 7.0, 8.0, 10.0)
"""Redshifts of the luminosity functions, which the file of constants does not contain."""
SLOPE = 0.1
"""Slope of the leaky ReLU of acg at negative values."""
CHUNK = 1024
"""Number of signals of a batch that are evaluated at a time."""


def load_21cmemu(source: str) -> BaseEmulator:
    """Load an emulator of 21cmFAST from the installed package py21cmemu.

    Parameters
    ----------
    source : {"21cmemu:mcg", "21cmemu:acg"}
        Name of the emulator.

    Returns
    -------
    BaseEmulator
        With outputs ``signal``, ``x_HI``, ``tau`` and ``log10_uvlf``, at all magnitudes of the network. As in the
        package, ``mcg`` clips values outside the training range to its limits; ``acg`` extrapolates.

    Raises
    ------
    InputError
        There is no such emulator, or the package is not installed or has another version.
    """
    which = source.removeprefix(PREFIX)
    known = {"mcg": _load_mcg, "acg": _load_acg}
    if which not in known:
        raise InputError(f"no emulator {source!r}; {did_you_mean(source, [PREFIX + name for name in known])}")
    found = util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"{source} needs the package {PACKAGE}, which is not installed; to fix this: {INSTALL}")
    folder = Path(found.submodule_search_locations[0])
    return known[which](folder)


def _files(folder, *names) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file():
            raise InputError(
                f"the installed {PACKAGE} has no {file.relative_to(folder)}; install version 3.0.0: {INSTALL}"
            )
    return files


class _Arrays:
    """Named arrays from a file of the package; the shape of each is checked when it is taken."""

    def __init__(self, file, content):
        self._file, self._content = file, content

    def take(self, name, *shape) -> np.ndarray:
        """An array in float64; None in its shape means any length.

        Raises
        ------
        InputError
            The array is missing or has another shape.
        """
        try:
            array = np.asarray(self._content[name])
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{self._file} has no array {name} ({one_line(error, 80)}); install version 3.0.0: {INSTALL}"
            ) from None
        fits = array.ndim == len(shape) and all(w is None or w == n for w, n in zip(shape, array.shape))
        if not fits or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError(
                f"{self._file}: {name} has shape {array.shape}, but finite numbers of shape {shape} are needed; "
                f"install version 3.0.0: {INSTALL}"
            )
        return array.astype(float)


def _constants(file) -> _Arrays:
    try:
        # Members that are pickled objects are not read.
        return _Arrays(file, np.load(file, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{file} cannot be read ({one_line(error, 120)}); reinstall the package: {INSTALL}"
        ) from None


def _weights(file, key=None) -> _Arrays:
    content = read_torch(file)
    content = content.get(key) if key is not None and isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise InputError(f"{file} does not contain weights; install version 3.0.0: {INSTALL}")
    return _Arrays(file, content)


def _parameters(names, limits) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, *ends, False, *NAMES[name]) for name, ends in zip(names, limits))


def _emulator(engine, name, redshifts, parameters, axes, files) -> BaseEmulator:
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        # The package is on the path, but not installed.
        version = "of an unknown version"
    return BaseEmulator(
        engine,
        OutputLayout.of(len(redshifts), ("signal", "x_HI"), ("tau",), {TABLE: axes}),
        redshifts,
        parameters,
        record={"source": f"{PACKAGE} {version}", "simulation": "21cmFAST"},
        name=f"{PREFIX}{name}",
        checksum=checksum_of(files, parameters, redshifts),
        network=f"21cmEMU {name} of {PACKAGE} {version}",
    )


# ---------------------------------------------------------------- mcg

MCG_NAMES = ("F_STAR10", "ALPHA_STAR", "t_STAR", "F_ESC10", "ALPHA_ESC", "F_STAR7_MINI", "F_ESC7_MINI", "L_X",
             "L_X_MINI", "NU_X_THRESH", "SIGMA_8")  # fmt: skip


def _load_mcg(folder) -> BaseEmulator:
    files = _files(folder, "models/mcg/lstm_model_weights.pt", "models/mcg/lstm_emulator_constants.npz")
    weights, constants = _weights(files[0]), _constants(files[1])
    limits = constants.take("LSTM_limits", len(MCG_NAMES) + 1, 2)[:-1]
    engine = McgEngine(weights, constants, limits)
    axes = {"redshift": constants.take("UVLF_zs", None), "M_UV": constants.take("M_UV", None)}
    redshifts = constants.take("lstm_redshifts", None)[::-1]
    return _emulator(engine, "mcg", redshifts, _parameters(MCG_NAMES, limits), axes, files)


class McgEngine:
    """All outputs of ``mcg``; the LSTMs use the compiled kernel.

    Parameters
    ----------
    weights, constants : _Arrays
        Arrays of the package.
    limits : numpy.ndarray
        (n_params, 2) range of each parameter.

    Notes
    -----
    The engine is thread-safe. It can be pickled and copied.
    """

    name = "numba"

    def __init__(self, weights, constants, limits):
        self._limits = limits
        p = len(limits)
        z = weights.take("_z_norm", None)
        unit = np.tile([0.0, 1.0], (p, 1))
        self._signal = _Recurrent(weights, "tb_head.lstm", "tb_head.lin", unit, z,
                                   constants.take("Tb_scale"), constants.take("Tb_bias"))  # fmt: skip
        self._x_HI = _Recurrent(weights, "xhi_head.lstm", "xhi_head.lin", unit, z)
        rows, columns = (weights.take(f"uvlf_head._{axis}_norm", None) for axis in ("row", "col"))
        self._rows = _Recurrent(weights, "uvlf_head.row_lstm", None, unit, rows)
        # The states of an LSTM are between -1 and 1.
        state = np.tile([-1.0, 1.0], (self._rows.width, 1))
        self._columns = _Recurrent(weights, "uvlf_head.col_lstm", "uvlf_head.col_proj", state, columns)
        self._table = [constants.take(f"UVLFs_{what}", len(rows))[:, None] for what in ("scale", "bias")]
        layers = [[weights.take(f"tau_head.net.{i}.{what}", *[None] * n) for what, n in (("weight", 2), ("bias", 1))]
                  for i in (0, 2, 4, 6)]  # fmt: skip
        self._tau = layers, float(constants.take("tau_scale")), float(constants.take("tau_bias"))

    @property
    def threads(self) -> int | None:
        """Threads of a batch; None for `numba.config.NUMBA_NUM_THREADS`."""
        return self._columns.engine.threads

    @threads.setter
    def threads(self, n):
        for part in (self._signal, self._x_HI, self._rows, self._columns):
            part.engine.threads = n

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """All outputs (n, n_out) float64 of theta (n, n_params)."""
        # In chunks, because the states of the LSTM over redshift are two thousand numbers per signal.
        return np.concatenate([self._evaluate(theta[i : i + CHUNK]) for i in range(0, max(len(theta), 1), CHUNK)])

    def single(self, theta: np.ndarray) -> np.ndarray:
        """All outputs (n_out,) float64 of theta (n_params,)."""
        return self._evaluate(theta[None])[0]

    def _evaluate(self, theta):
        low, high = self._limits.T
        # NaN stays NaN.
        x = np.clip((theta - low) / (high - low), 0.0, 1.0)
        n = len(x)
        states = self._rows(x)
        table = self._columns(states.reshape(-1, self._rows.width)).reshape(n, len(self._table[0]), -1)
        table = table * self._table[0] + self._table[1]
        # The histories come in descending redshift; the axes of the table ascend.
        parts = self._signal(x)[:, ::-1], expit(self._x_HI(x)[:, ::-1]), self._tau_of(x)[:, None], table.reshape(n, -1)
        return np.concatenate(parts, axis=1)

    def _tau_of(self, x):
        layers, scale, offset = self._tau
        for i, (weight, bias) in enumerate(layers):
            x = x @ weight.T + bias
            if i < len(layers) - 1:
                x = 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))
        return 10.0 ** (x[:, 0] * scale + offset)


class _Recurrent:
    """Two LSTM layers over a sequence; each step receives the inputs and its own coordinate.

    A call maps inputs (n, n_in) to (n, n_steps * width) float32, step after step: the outputs of a dense layer of width
    1, or, without a dense layer, the states of the last LSTM.
    """

    def __init__(self, weights, lstm, dense, ranges, coordinate, scale=1.0, offset=0.0):
        n_in, n_steps = len(ranges), len(coordinate)
        recurrent = weights.take(f"{lstm}.weight_hh_l0", None, None).T
        u = len(recurrent)
        kernel = weights.take(f"{lstm}.weight_ih_l0", 4 * u, n_in + 1).T
        bias = [
            weights.take(f"{lstm}.bias_ih_l{i}", 4 * u) + weights.take(f"{lstm}.bias_hh_l{i}", 4 * u) for i in (0, 1)
        ]
        self.width = u if dense is None else 1
        output = np.eye(u) if dense is None else weights.take(f"{dense}.weight", 1, u).T
        output_bias = np.zeros(u) if dense is None else weights.take(f"{dense}.bias", 1)
        self._n = n_steps * self.width
        architecture = Architecture(n_in, self._n, units=u, layers=2, steps=n_steps, encoder=())
        # The network of this package expects inputs from -1 to 1.
        low, high = ranges.T
        half, middle = 0.5 * (high - low), 0.5 * (high + low)
        drive, constant = np.zeros((n_in, architecture.drive_size)), np.zeros(architecture.drive_size)
        drive[:, : 4 * u] = half[:, None] * kernel[:n_in]
        constant[: 4 * u] = middle @ kernel[:n_in] + bias[0]
        arrays = {
            "drive_kernel": drive,
            "drive_bias": constant,
            "recurrent_0": recurrent,
            "step_bias_0": coordinate[:, None] * kernel[n_in],
            "input_1": weights.take(f"{lstm}.weight_ih_l1", 4 * u, u).T,
            "recurrent_1": weights.take(f"{lstm}.weight_hh_l1", 4 * u, u).T,
            "step_bias_1": np.tile(bias[1], (n_steps, 1)),
            "output_kernel": output,
            "output_bias": np.tile(output_bias, (n_steps, 1)),
        }
        offsets, scales, nothing = np.full((1, self._n), float(offset)), np.array([float(scale)]), np.empty(0)
        scaling = Scaling(np.zeros(n_in, bool), low, high, offsets, scales, nothing, nothing)
        self.engine = NumbaEngine(architecture, scaling, {k: a.astype(np.float32) for k, a in arrays.items()})

    def __call__(self, x):
        x = np.asarray(x, float)
        out = self.engine.single(x[0])[None] if len(x) == 1 else self.engine.batch(x)
        # The engine returns ascending redshift, so its first output is the last step.
        return out[:, ::-1]


# ---------------------------------------------------------------- acg


def _load_acg(folder) -> BaseEmulator:
    files = _files(folder, "models/acg/default_model.pt", "emulator_constants.npz")
    weights, constants = _weights(files[0], "state_dict"), _constants(files[1])
    limits = constants.take("limits", len(ACG_NAMES), 2)
    redshifts = constants.take("zs", None)
    axes = {"redshift": np.array(ACG_REDSHIFTS), "M_UV": constants.take("UVLFs_MUVs", None)}
    engine = AcgEngine(weights, constants, limits, redshifts, len(ACG_REDSHIFTS) * len(axes["M_UV"]))
    return _emulator(engine, "acg", redshifts, _parameters(ACG_NAMES, limits * engine.units[:, None]), axes, files)


class AcgEngine:
    """All outputs of ``acg``, computed by NumPy in float64, because float32 would introduce errors of 1e-3 mK.

    Parameters
    ----------
    weights, constants : _Arrays
        Arrays of the package.
    limits : numpy.ndarray
        (n_params, 2) range of each parameter, with the X-ray threshold in keV.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    n_table : int
        Number of values of the luminosity functions.

    Attributes
    ----------
    units : numpy.ndarray
        (n_params,) factors from the units of `limits` to those of theta.

    Notes
    -----
    The engine is thread-safe. It can be pickled and copied.
    """

    name = "numpy"

    def __init__(self, weights, constants, limits, redshifts, n_table):
        self._limits, self._redshifts = limits, redshifts
        # Theta is in eV, the limits are in keV.
        self.units = np.where(np.array(ACG_NAMES) == "NU_X_THRESH", 1000.0, 1.0)
        n = len(redshifts)
        self._trunk, width = _dense(weights, [f"shared_{i}" for i in range(8)], len(limits))
        self._branches = {}
        for name, depth, n_out in (("tb", 7, n), ("xhi", 5, n), ("discont", 5, 1), ("tau", 3, 1), ("uvlf", 5, n_table)):
            layers, last = _dense(weights, [*(f"{name}_{i}" for i in range(depth)), f"{name}_final"], width)
            if last != n_out:
                raise InputError(
                    f"21cmemu:acg: {name} has {last} outputs, but {n_out} are needed; install version 3.0.0: {INSTALL}"
                )
            self._branches[name] = layers
        self._scales = {
            name: tuple(float(constants.take(f"{key}_{what}")) for what in ("std", "mean"))
            for name, key in (("tb", "Tb"), ("tau", "tau"), ("uvlf", "UVLFs"))
        }

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """All outputs (n, n_out) float64 of theta (n, n_params)."""
        return np.concatenate([self._evaluate(theta[i : i + CHUNK]) for i in range(0, max(len(theta), 1), CHUNK)])

    def single(self, theta: np.ndarray) -> np.ndarray:
        """All outputs (n_out,) float64 of theta (n_params,)."""
        return self._evaluate(theta[None])[0]

    def _evaluate(self, theta):
        low, high = self._limits.T
        trunk = _leaky(_run(self._trunk, (theta / self.units - low) / (high - low), _leaky))
        out = {name: _run(layers, trunk, _relu if name == "xhi" else _leaky) for name, layers in self._branches.items()}
        for name, (scale, offset) in self._scales.items():
            out[name] = out[name] * scale + offset
        x_HI = expit(out["xhi"])
        # The neutral fraction is zero where the gas is so ionised that its spin temperature is undefined.
        first = np.abs(self._redshifts - out["discont"]).argmin(axis=1)
        ends = np.take_along_axis(x_HI, first[:, None], axis=1) < 0.1
        x_HI[ends & (np.arange(x_HI.shape[1]) < first[:, None])] = 0.0
        return np.concatenate([out["tb"], x_HI, 10.0 ** out["tau"], out["uvlf"]], axis=1)


def _dense(weights, names, n_in):
    """Transposed kernel and bias of consecutive layers, and the width of the last one."""
    layers = []
    for name in names:
        bias = weights.take(f"{name}.bias", None)
        kernel = weights.take(f"{name}.weight", len(bias), n_in)
        layers.append((np.ascontiguousarray(kernel.T), bias))
        n_in = len(bias)
    return layers, n_in


def _run(layers, x, activate):
    """Outputs of dense layers; the last layer has no activation."""
    for i, (kernel, bias) in enumerate(layers):
        x = x @ kernel + bias
        if i < len(layers) - 1:
            x = activate(x)
    return x


def _leaky(x):
    return np.maximum(x, SLOPE * x)


def _relu(x):
    return np.maximum(x, 0.0)
