"""The emulator as a user sees it: physical parameters in, mK out."""

import warnings
from importlib import resources
from pathlib import Path

import numpy as np

from lstmfit.emulator import store
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.numpy_engine import forward, signal_jacobian
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError, did_you_mean, listed
from lstmfit.files import user_path
from lstmfit.parameters import Parameter, to_array
from lstmfit.schema import shown


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
        a = architecture
        a.check(weights)
        scaling.check(a.n_params, len(a.histories), a.n_channels, len(a.scalars))
        self.architecture, self.scaling, self.weights = architecture, scaling, weights
        self.redshifts = _check_grid(name, redshifts, a.n_channels)
        self.parameters: tuple[Parameter, ...] = tuple(parameters)
        _check_parameters(name, self.parameters, scaling, a.n_params)
        self.errors, self.record, self.name, self.checksum = errors or {}, record or {}, name, checksum
        self._warned = False
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
            path = user_path(source, "emulator")
            if path.is_dir():
                raise InputError(f"emulator {name} is a folder; give a file, or the name of one that is shipped")
            if not path.exists() and not path.suffix:
                raise InputError(f"no emulator {shown(name)}, neither shipped nor a file; {did_you_mean(name, files)}")
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

    def __call__(self, theta, outside: str = "warn") -> np.ndarray:
        """The signal.

        Parameters
        ----------
        theta : array_like or mapping
            (n_params,) or (n, n_params) physical values in the order of `parameters`, or a mapping by name.
        outside : {"warn", "raise", "nan", "allow"}
            What to do with values outside the training range, where the network extrapolates: warn (once for each
            emulator), raise an InputError, give NaN, or nothing.

        Returns
        -------
        numpy.ndarray
            (n_channels,) or (n, n_channels) float64 mK at `redshifts`, a new array. NaN where theta holds NaN or a
            log parameter that is not positive.

        Raises
        ------
        InputError
            theta has the wrong names or shape, or lies outside with ``outside="raise"``.
        """
        theta = self._physical(theta, outside)
        return self._evaluate(theta)[..., : self.architecture.n_channels].astype(float)

    def _evaluate(self, theta):
        return self._engine.single(theta) if theta.ndim == 1 else self._engine.batch(theta)

    def _physical(self, theta, outside) -> np.ndarray:
        if outside not in OUTSIDE:
            raise InputError(f"outside is {shown(outside)}; expected one of {', '.join(OUTSIDE)}")
        theta = to_array(theta, self.parameters)
        for i, parameter in enumerate(self.parameters):
            if parameter.zero is not None:
                column = theta[..., i]
                theta = theta.copy()
                theta[..., i] = np.where(column == 0, parameter.zero, column)
        if outside == "allow" or (outside == "warn" and self._warned):
            return theta
        inside = np.stack([p.is_inside(theta[..., i]) for i, p in enumerate(self.parameters)], axis=-1)
        if inside.all():
            return theta
        if outside == "nan":
            return np.where(inside.all(axis=-1, keepdims=True), theta, np.nan)
        message = f"{self.name}: {describe_outside(self.parameters, theta)}"
        if outside == "raise":
            raise InputError(f'{message}; outside="allow" extrapolates, outside="nan" gives NaN')
        self._warned = True
        warnings.warn(f"{message}: the emulator extrapolates (said once)", stacklevel=3)
        return theta

    def histories(self, theta, outside: str = "warn") -> dict[str, np.ndarray]:
        """Every output of the network by name.

        Parameters
        ----------
        theta : array_like or mapping
            As in a plain call.
        outside : {"warn", "raise", "nan", "allow"}
            As in a plain call.

        Returns
        -------
        dict of str to numpy.ndarray
            ``signal`` in mK and further histories such as ``x_HI``, (n_channels,) or (n, n_channels); scalars such as
            ``tau``, () or (n,).
        """
        return self.split(self._evaluate(self._physical(theta, outside)))

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

    def split(self, out: np.ndarray) -> dict[str, np.ndarray]:
        """Name the parts of an engine's output (..., n_out); copies in float64."""
        layout = self.architecture.layout
        return {name: layout.take(out, name).astype(float) for name in layout}

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
        """Names of the parameters that lie outside the training range anywhere in theta, or are NaN there."""
        theta = np.atleast_2d(self._physical(theta, "allow"))
        return [p.name for i, p in enumerate(self.parameters) if not p.is_inside(theta[:, i]).all()]

    def __setstate__(self, state):
        self.__dict__.update(state)
        # A pickle does not keep it.
        self.redshifts.flags.writeable = False

    def __repr__(self):
        a = self.architecture
        network = f"{a.layers} x LSTM({a.units}), {a.steps} steps"
        return f"<Emulator {self.name}: {len(self.parameters)} parameters, {a.n_channels} channels, {network}>"


OUTSIDE = ("warn", "raise", "nan", "allow")


def describe_outside(parameters, theta) -> str:
    """Say which parameter of theta, (n_params,) or (n, n_params), is outside its range: the first that is.

    Parameters
    ----------
    parameters : sequence of Parameter
        In the order of theta.
    theta : numpy.ndarray
        Physical; something in it is outside.
    """
    theta = np.atleast_2d(theta)
    for i, p in enumerate(parameters):
        outside = ~p.is_inside(theta[:, i])
        if outside.any():
            value = theta[outside.argmax(), i]
            many = f" (and {outside.sum() - 1} more of {len(theta)})" if outside.sum() > 1 else ""
            return f"{p.name} is {value:.6g}{many}, outside the training range {p.min:.6g}..{p.max:.6g}"
    return "every parameter is inside its training range"


def _check_grid(name, redshifts, n_channels) -> np.ndarray:
    grid = np.array(redshifts, dtype=float)
    if grid.shape != (n_channels,) or not np.isfinite(grid).all() or grid[0] < 0 or (np.diff(grid) <= 0).any():
        raise InputError(
            f"emulator {name}: {grid.size} redshifts for {n_channels} channels; as many are needed, finite, ascending, "
            "not negative"
        )
    grid.flags.writeable = False
    return grid


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
