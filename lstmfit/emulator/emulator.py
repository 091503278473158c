"""The emulator as a user sees it: physical parameters in, mK out."""

from importlib import resources
from pathlib import Path

import numpy as np

from lstmfit.emulator import store
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.numpy_engine import forward, signal_jacobian
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError, did_you_mean
from lstmfit.parameters import Parameter, to_array


class Emulator:
    """A trained emulator of the global 21-cm signal.

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
    ):
        architecture.check(weights)
        self.architecture, self.scaling, self.weights = architecture, scaling, weights
        self.redshifts = np.array(redshifts, dtype=float)
        self.redshifts.flags.writeable = False
        self.parameters: tuple[Parameter, ...] = tuple(parameters)
        self.errors, self.record, self.name, self.checksum = errors or {}, record or {}, name, checksum
        self._engine = _make_engine(engine, architecture, scaling, weights)

    @classmethod
    def load(cls, source, engine: str = "numba") -> "Emulator":
        """Load a shipped emulator by name, or a file.

        Parameters
        ----------
        source : str or path
            A name that `shipped` lists, or the path of an emulator file.
        engine : {"numba", "xla", "jax", "numpy"}
            See the class.

        Raises
        ------
        InputError
            No such name or file, or a file that is damaged or of another version.
        """
        files = shipped()
        name = str(source)
        if name in files:
            path = files[name]
        else:
            path = Path(source)
            if not path.exists() and not path.suffix:
                raise InputError(f"no emulator {name!r}, neither shipped nor a file; {did_you_mean(name, files)}")
            name = path.stem
        return cls(**store.read(path), name=name, engine=engine)

    def save(self, path) -> None:
        """Write everything into one HDF5 file (see `lstmfit.emulator.store`)."""
        self.checksum = store.write(
            path,
            architecture=self.architecture,
            scaling=self.scaling,
            weights=self.weights,
            redshifts=self.redshifts,
            parameters=self.parameters,
            errors=self.errors,
            record=self.record,
        )

    @property
    def engine(self) -> str:
        """Name of the engine in use."""
        return self._engine.name

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in the order of theta."""
        return tuple(p.name for p in self.parameters)

    def __call__(self, theta) -> np.ndarray:
        """The signal.

        Parameters
        ----------
        theta : array_like or mapping
            (n_params,) or (n, n_params) physical values in the order of `parameters`, or a mapping by name.

        Returns
        -------
        numpy.ndarray
            (n_channels,) or (n, n_channels) float64 mK at `redshifts`, a new array. NaN where theta holds NaN or a
            log parameter that is not positive.
        """
        theta = self._physical(theta)
        out = self._engine.single(theta) if theta.ndim == 1 else self._engine.batch(theta)
        return out[..., : self.architecture.n_channels].astype(float)

    def _physical(self, theta) -> np.ndarray:
        theta = to_array(theta, self.parameters)
        for i, parameter in enumerate(self.parameters):
            if parameter.zero is not None:
                column = theta[..., i]
                theta = theta.copy()
                theta[..., i] = np.where(column == 0, parameter.zero, column)
        return theta

    def histories(self, theta) -> dict[str, np.ndarray]:
        """Every output of the network by name.

        Parameters
        ----------
        theta : array_like or mapping
            As in a plain call.

        Returns
        -------
        dict of str to numpy.ndarray
            ``signal`` in mK and further histories such as ``x_HI``, (n_channels,) or (n, n_channels); scalars such as
            ``tau``, () or (n,).
        """
        theta = self._physical(theta)
        return self.split(self._engine.single(theta) if theta.ndim == 1 else self._engine.batch(theta))

    def jacobian(self, theta) -> np.ndarray:
        """Derivatives of the signal by the physical parameters, exact for the network.

        Parameters
        ----------
        theta : array_like or mapping
            (n_params,) or (n, n_params) physical, positive where a parameter is log.

        Returns
        -------
        numpy.ndarray
            (n_channels, n_params) or (n, n_channels, n_params), mK per unit of each parameter. In float64 by forward
            differentiation, except by the ``xla`` engine, which differentiates its own float32 pass.
        """
        theta = self._physical(theta)
        slopes = self.scaling.input_slopes(theta)
        if hasattr(self._engine, "jacobian"):
            return self._engine.jacobian(theta) * slopes[..., None, :]
        rows = np.atleast_2d(self.scaling.inputs(theta))
        jacobians = np.array([signal_jacobian(self.architecture, self.weights, x) for x in rows])
        jacobians = jacobians.reshape(*theta.shape[:-1], *jacobians.shape[1:])
        return self.scaling.scale[0] * jacobians * slopes[..., None, :]

    def split(self, out: np.ndarray) -> dict[str, np.ndarray]:
        """Name the parts of an engine's output (..., n_out); copies in float64."""
        a, n = self.architecture, self.architecture.n_channels
        parts = {name: out[..., i * n : (i + 1) * n].astype(float) for i, name in enumerate(a.histories)}
        first = len(a.histories) * n
        return parts | {name: out[..., first + i].astype(float) for i, name in enumerate(a.scalars)}

    @property
    def raw(self):
        """The engine's own single call, for hot loops: (n_params,) float64 -> (n_out,) float32.

        The array belongs to the engine and is overwritten by the next call.
        The first ``n_channels`` numbers are the signal in mK; `split` names the rest.
        """
        return self._engine.single

    @property
    def raw_batch(self):
        """The engine's own call for many: (n, n_params) float64 -> (n, n_out) float32, laid out as by `raw`."""
        return self._engine.batch

    def outside(self, theta) -> list[str]:
        """Names of the parameters that lie outside the training range anywhere in theta."""
        theta = np.atleast_2d(to_array(theta, self.parameters))
        low, high = np.array([(p.min, p.max) for p in self.parameters]).T
        bad = ((theta < low * (1 - 1e-12)) | (theta > high * (1 + 1e-12))).any(axis=0)
        return [p.name for p, b in zip(self.parameters, bad) if b]

    def __repr__(self):
        a = self.architecture
        network = f"{a.layers} x LSTM({a.units}), {a.steps} steps"
        return f"<Emulator {self.name}: {len(self.parameters)} parameters, {a.n_channels} channels, {network}>"


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
    lstmfit.datasets.signals.Split or None
        None where there is none.
    """
    from lstmfit.datasets.signals import load_signals

    beside = test_set_path(shipped().get(str(source), Path(source)))
    return load_signals(beside).test if beside.is_file() else None
