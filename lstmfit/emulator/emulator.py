"""The emulator class of the user interface: physical parameters in, mK out."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmfit.datasets.specs import find_spec
from lstmfit.emulator import store
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.formats import is_named, load_foreign, load_named
from lstmfit.emulator.formats.keras_files import is_keras
from lstmfit.emulator.formats.lstm21cm import read_lstm21cm
from lstmfit.emulator.numpy_engine import forward, signal_jacobian
from lstmfit.emulator.scaling import Scaling
from lstmfit.emulator_source import EmulatorSource, is_mapping_text
from lstmfit.errors import InputError, did_you_mean, listed
from lstmfit.files import AnyPath, user_path
from lstmfit.mistakes import validate_block
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter, Theta
from lstmfit.schema import shown

if TYPE_CHECKING:
    from lstmfit.datasets.signal_sets import Split


class Emulator(BaseEmulator):
    """A trained emulator of the global 21-cm signal that uses the network of this package.

    Load one with `Emulator.load`, or train one with `lstmfit train`.

    Parameters
    ----------
    architecture, scaling : Architecture, Scaling
        The network and its scaling.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    parameters : sequence of Parameter
        Specs in the order of theta.
    errors : dict of str to numpy.ndarray, optional
        Test-set errors of the signal, in mK at each channel: ``bias`` and ``rms`` (n_channels,), ``covariance``
        (n_channels, n_channels) about zero, and ``relative`` (n_test,), the relative rms error of each test signal.
    record : dict, optional
        Record of the training.
    name : str
        Name for messages and run files.
    engine : {"numba", "numba32", "xla", "jax", "numpy"}
        ``numba`` is compiled code for the CPU, and the fastest engine there; its arithmetic is in float32 and its
        matrices in half precision, if the processor converts it (F16C). ``numba32`` is the same with float32 matrices.
        ``xla`` is compiled by TensorFlow and ``jax`` by JAX; both use a GPU if they find one. ``numpy`` is the float64
        reference, which is slow.
    axes : dict of str to dict of str to numpy.ndarray, optional
        Grids of the outputs that are tables.

    Examples
    --------
    >>> from lstmfit import Emulator
    >>> emulator = Emulator.load("echo21")
    >>> emulator.redshifts.shape
    (451,)
    """

    def __init__(
        self,
        architecture: Architecture,
        scaling: Scaling,
        weights: dict[str, np.ndarray],
        redshifts: np.ndarray,
        parameters: Sequence[Parameter],
        errors: dict[str, np.ndarray] | None = None,
        record: dict | None = None,
        name: str = "emulator",
        checksum: str = "",
        engine: str = "numba",
        axes: dict[str, dict[str, np.ndarray]] | None = None,
    ) -> None:
        a = architecture
        a.check(weights)
        scaling.check(a.n_params, len(a.histories), a.n_channels, a.n_scalars)
        parameters = tuple(parameters)
        _check_parameters(name, parameters, scaling, a.n_params)
        self.architecture, self.scaling, self.weights = architecture, scaling, weights
        super().__init__(
            _make_engine(engine, architecture, scaling, weights),
            _layout(name, a, axes or {}),
            redshifts,
            parameters,
            errors=errors,
            record=record,
            name=name,
            checksum=checksum,
            network=a.describe(),
        )

    @classmethod
    def load(
        cls,
        source: AnyPath | Mapping | EmulatorSource,
        engine: str = "numba",
        parameters: AnyPath | None = None,
    ) -> BaseEmulator:
        """Load a shipped emulator by name, an emulator file of this package, or an emulator of another group.

        Parameters
        ----------
        source : str, path or mapping
            A name listed by `shipped`; the path of a file written by ``lstmfit train``, or of an emulator in one of
            the formats of `lstmfit.emulator.formats`; or ``21cmemu:mcg`` or ``21cmemu:acg``, from the package
            py21cmemu. A mapping, or its text in YAML, has the keys ``file`` and ``parameters``.
        engine : {"numba", "numba32", "xla", "jax", "numpy"}
            See the class; emulators of other groups only have ``numba``, and 21cmLSTM keeps its float32 weights in it.
        parameters : str or path, optional
            Parameters of another group's emulator, if its files do not name them: ``21cmgem``, ``ares``, or the path
            of a spec, see `lstmfit.datasets.specs.SignalSpec`.

        Returns
        -------
        BaseEmulator
            An `Emulator` if it uses the network of this package.

        Raises
        ------
        InputError
            There is no such name or file, or the file is damaged or of another version.
        """
        if isinstance(source, (Mapping, EmulatorSource)) or is_mapping_text(source):
            given = validate_block(EmulatorSource, source, "emulator")
            return cls.load(given.file, engine, given.parameters)
        files, name, foreign = shipped(), str(source), None
        if name in files:
            path = files[name]
        elif is_named(name):
            foreign = load_named(name)
        else:
            path = user_path(source, "emulator")
            if not path.exists() and not path.suffix:
                raise InputError(f"{shown(name)} is not a shipped emulator or a file; {did_you_mean(name, files)}")
            if is_keras(path):
                spec = None if parameters is None else find_spec(parameters)
                # Its numbers are those of its authors.
                return cls(**read_lstm21cm(path, spec), engine="numba32" if engine == "numba" else engine)
            name = path.stem
            foreign = load_foreign(path, parameters)
        if parameters is not None and (foreign is None or is_named(name)):
            given = shown(str(parameters))
            raise InputError(f"emulator {name} defines its own parameters; remove parameters: {given}")
        if foreign is None:
            return cls(**store.read(path), name=name, engine=engine)
        if engine != "numba":
            raise InputError(
                f"engine {engine!r} cannot run {source} ({foreign.network}); its only engine is {foreign.engine}"
            )
        return foreign

    @property
    def used_weights(self) -> dict[str, np.ndarray]:
        """Weights as the engine uses them, which rounds some of them to half precision if it is ``numba``."""
        return getattr(self._engine, "weights", self.weights)

    def save(self, path: AnyPath) -> None:
        """Write the emulator to one HDF5 file (see `lstmfit.emulator.store`)."""
        self.checksum = store.write(
            path,
            architecture=self.architecture,
            scaling=self.scaling,
            weights=self.weights,
            redshifts=self.redshifts,
            axes=self.layout.axes,
            parameters=self.parameters,
            errors=self.errors,
            record=self.record,
        )

    def jacobian(self, theta: Theta, outside: str = "warn") -> np.ndarray:
        """Exact derivatives of the network's signal with respect to the physical parameters.

        Parameters
        ----------
        theta : array_like or mapping
            (n_params,) or (n, n_params) physical; log parameters must be positive.
        outside : {"warn", "raise", "nan", "allow"}
            As for `__call__`.

        Returns
        -------
        numpy.ndarray
            (n_channels, n_params) or (n, n_channels, n_params), mK per unit of each parameter. Computed in float64 by
            forward differentiation; the ``xla`` engine differentiates its own float32 pass instead.
        """
        theta = self._physical(theta, outside)
        slopes = self.scaling.input_slopes(theta)
        if hasattr(self._engine, "jacobian"):
            return self._engine.jacobian(theta) * slopes[..., None, :]
        rows = np.atleast_2d(self.scaling.inputs(theta))
        jacobians = np.array([signal_jacobian(self.architecture, self.weights, x) for x in rows])
        jacobians = jacobians.reshape(*theta.shape[:-1], *jacobians.shape[1:])
        return self.scaling.scale[0] * jacobians * slopes[..., None, :]


def _layout(name: str, architecture: Architecture, axes: dict | None) -> OutputLayout:
    lengths = {table: {axis: len(values) for axis, values in grids.items()} for table, grids in axes.items()}
    if lengths != architecture.tables:
        raise InputError(
            f"emulator {name}: the axes of its tables have lengths {lengths}; the network needs {architecture.tables}"
        )
    return OutputLayout.of(architecture.n_channels, architecture.histories, architecture.scalars, axes)


def _check_parameters(name: str, parameters: Sequence[Parameter], scaling: Scaling, n_params: int) -> None:
    names = [p.name for p in parameters]
    if len(names) != n_params or len(set(names)) < n_params:
        raise InputError(f"emulator {name}: parameters {listed(names)}; the network needs {n_params} distinct names")
    if [p.log for p in parameters] != [bool(log) for log in scaling.log]:
        raise InputError(f"emulator {name}: its parameters and its scaling disagree about which are logarithmic")


class _NumpyEngine:
    name = "numpy"

    def __init__(self, architecture: Architecture, scaling: Scaling, weights: dict) -> None:
        self.parts = architecture, scaling, weights

    def batch(self, theta: Theta) -> np.ndarray:
        architecture, scaling, weights = self.parts
        histories, scalars = forward(architecture, weights, scaling.inputs(theta))
        histories = histories * scaling.scale[:, None] + scaling.offset
        scalars = scalars * scaling.scalar_scale + scaling.scalar_offset
        return np.concatenate([histories.reshape(len(theta), -1), scalars], axis=1)

    def single(self, theta: Theta) -> np.ndarray:
        return self.batch(theta[None])[0]


def _make_engine(name: str, architecture: Architecture, scaling: Scaling, weights: dict) -> Any:
    if name in ("numba", "numba32"):
        from lstmfit.emulator.numba_engine import NumbaEngine

        return NumbaEngine(architecture, scaling, weights, half=name == "numba")
    if name == "numpy":
        return _NumpyEngine(architecture, scaling, weights)
    if name == "xla":
        from lstmfit.emulator.xla_engine import XlaEngine

        return XlaEngine(architecture, scaling, weights)
    if name == "jax":
        from lstmfit.emulator.jax_engine import JaxEngine

        return JaxEngine(architecture, scaling, weights)
    raise InputError(f"engine is {name!r}; expected numba, numba32, xla, jax or numpy")


def shipped() -> dict[str, Path]:
    """Paths of the emulator files shipped with the package, by name."""
    folder = resources.files("lstmfit.emulator.shipped")
    return {
        p.name.removesuffix(".h5"): Path(str(p))
        for p in sorted(folder.iterdir(), key=lambda p: p.name)
        if p.name.endswith(".h5") and not p.name.endswith("_test.h5")
    }


def test_set_path(path: AnyPath) -> Path:
    """Path of the test set of an emulator file: ``NAME_test.h5`` in the same folder."""
    return Path(path).with_name(f"{Path(path).stem}_test.h5")


def shipped_test_set(source: AnyPath) -> "Split | None":
    """Load the test set that comes with an emulator, see `test_set_path`.

    Returns
    -------
    lstmfit.datasets.signal_sets.Split or None
        None if the emulator has no test set.
    """
    from lstmfit.datasets.signal_sets import load_signals

    beside = test_set_path(shipped().get(str(source), Path(source)))
    return load_signals(beside).test if beside.is_file() else None
