"""The emulator as a user sees it: physical parameters in, mK out."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

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
from lstmfit.files import user_path
from lstmfit.mistakes import validate_block
from lstmfit.outputs import OutputLayout
from lstmfit.schema import shown


class Emulator(BaseEmulator):
    """A trained emulator of the global 21-cm signal by this package's own network.

    Make one with `Emulator.load` or with `lstmfit train`.

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
        How it was trained.
    name : str
        What to call it in messages and run files.
    engine : {"numba", "xla", "jax", "numpy"}
        ``numba`` is the compiled float32 engine for the CPU, and the fastest one there; ``xla`` is TensorFlow's
        compiled network, on a GPU where TensorFlow finds one, ``jax`` the same by JAX; ``numpy`` is the float64
        reference, slow.
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
        parameters,
        errors: dict[str, np.ndarray] | None = None,
        record: dict | None = None,
        name: str = "emulator",
        checksum: str = "",
        engine: str = "numba",
        axes: dict[str, dict[str, np.ndarray]] | None = None,
    ):
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
    def load(cls, source, engine: str = "numba", parameters=None) -> BaseEmulator:
        """Load a shipped emulator by name, a file of this package, or one of another group.

        Parameters
        ----------
        source : str, path or mapping
            A name that `shipped` lists, or a path: a file of ``lstmfit train``, or an emulator that
            `lstmfit.emulator.formats` reads as it is; or ``21cmemu:mcg`` or ``21cmemu:acg``, of the package py21cmemu.
            A mapping, also as text in YAML, has ``file`` and ``parameters``.
        engine : {"numba", "xla", "jax", "numpy"}
            See the class; emulators of other groups have ``numba`` alone.
        parameters : str or path, optional
            What the parameters of another group's emulator are, where it does not tell: ``21cmgem``, ``ares``, or a
            file, see `lstmfit.datasets.specs.SignalSpec`.

        Returns
        -------
        BaseEmulator
            An `Emulator`, if it is one of this package.

        Raises
        ------
        InputError
            No such name or file, or a file that is damaged or of another version.
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
                raise InputError(f"no emulator {shown(name)}, neither shipped nor a file; {did_you_mean(name, files)}")
            if is_keras(path):
                spec = None if parameters is None else find_spec(parameters)
                return cls(**read_lstm21cm(path, spec), engine=engine)
            name = path.stem
            foreign = load_foreign(path, parameters)
        if parameters is not None and (foreign is None or is_named(name)):
            given = shown(str(parameters))
            raise InputError(f"emulator {name} names its own parameters; leave parameters: {given} out")
        if foreign is None:
            return cls(**store.read(path), name=name, engine=engine)
        if engine != "numba":
            raise InputError(f"{source} is of another group ({foreign.network}); its only engine is {foreign.engine}")
        return foreign

    def save(self, path) -> None:
        """Write everything into one HDF5 file (see `lstmfit.emulator.store`)."""
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

    def jacobian(self, theta, outside: str = "warn") -> np.ndarray:
        """Derivatives of the signal by the physical parameters, exact for the network.

        Parameters
        ----------
        theta : array_like or mapping
            (n_params,) or (n, n_params) physical, positive where a parameter is log.
        outside : {"warn", "raise", "nan", "allow"}
            As in a plain call.

        Returns
        -------
        numpy.ndarray
            (n_channels, n_params) or (n, n_channels, n_params), mK per unit of each parameter. In float64 by forward
            differentiation, except by the ``xla`` engine, which differentiates its own float32 pass.
        """
        theta = self._physical(theta, outside)
        slopes = self.scaling.input_slopes(theta)
        if hasattr(self._engine, "jacobian"):
            return self._engine.jacobian(theta) * slopes[..., None, :]
        rows = np.atleast_2d(self.scaling.inputs(theta))
        jacobians = np.array([signal_jacobian(self.architecture, self.weights, x) for x in rows])
        jacobians = jacobians.reshape(*theta.shape[:-1], *jacobians.shape[1:])
        return self.scaling.scale[0] * jacobians * slopes[..., None, :]


def _layout(name, architecture, axes) -> OutputLayout:
    lengths = {table: {axis: len(values) for axis, values in grids.items()} for table, grids in axes.items()}
    if lengths != architecture.tables:
        raise InputError(f"emulator {name}: tables on axes of {lengths}; the network gives {architecture.tables}")
    return OutputLayout.of(architecture.n_channels, architecture.histories, architecture.scalars, axes)


def _check_parameters(name, parameters, scaling, n_params):
    names = [p.name for p in parameters]
    if len(names) != n_params or len(set(names)) < n_params:
        raise InputError(f"emulator {name}: parameters {listed(names)}; the network takes {n_params} different ones")
    if [p.log for p in parameters] != [bool(log) for log in scaling.log]:
        raise InputError(f"emulator {name}: its parameters and its scaling disagree about which are logarithmic")


class _NumpyEngine:
    name = "numpy"

    def __init__(self, architecture, scaling, weights):
        self.parts = architecture, scaling, weights

    def batch(self, theta):
        architecture, scaling, weights = self.parts
        histories, scalars = forward(architecture, weights, scaling.inputs(theta))
        histories = histories * scaling.scale[:, None] + scaling.offset
        scalars = scalars * scaling.scalar_scale + scaling.scalar_offset
        return np.concatenate([histories.reshape(len(theta), -1), scalars], axis=1)

    def single(self, theta):
        return self.batch(theta[None])[0]


def _make_engine(name, architecture, scaling, weights):
    if name == "numba":
        from lstmfit.emulator.numba_engine import NumbaEngine

        return NumbaEngine(architecture, scaling, weights)
    if name == "numpy":
        return _NumpyEngine(architecture, scaling, weights)
    if name == "xla":
        from lstmfit.emulator.xla_engine import XlaEngine

        return XlaEngine(architecture, scaling, weights)
    if name == "jax":
        from lstmfit.emulator.jax_engine import JaxEngine

        return JaxEngine(architecture, scaling, weights)
    raise InputError(f"engine is {name!r}; expected numba, xla, jax or numpy")


def shipped() -> dict[str, Path]:
    """Emulator files that come with the package, by name."""
    folder = resources.files("lstmfit.emulator.shipped")
    return {
        p.name.removesuffix(".h5"): Path(str(p))
        for p in sorted(folder.iterdir(), key=lambda p: p.name)
        if p.name.endswith(".h5") and not p.name.endswith("_test.h5")
    }


def test_set_path(path) -> Path:
    """Where the test set of an emulator file lies: beside it, as ``NAME_test.h5``."""
    return Path(path).with_name(f"{Path(path).stem}_test.h5")


def shipped_test_set(source):
    """The test split that came with an emulator, see `test_set_path`.

    Returns
    -------
    lstmfit.datasets.signal_sets.Split or None
        None where there is none.
    """
    from lstmfit.datasets.signal_sets import load_signals

    beside = test_set_path(shipped().get(str(source), Path(source)))
    return load_signals(beside).test if beside.is_file() else None
