"""The surface of every emulator: physical parameters in, mK out, whatever network computes it."""

import warnings

import numpy as np

from lstmfit.errors import InputError, listed
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter, to_array
from lstmfit.schema import shown


class BaseEmulator:
    """An emulator of the global 21-cm signal, of whatever kind; `lstmfit.Emulator.load` makes one.

    Parameters
    ----------
    engine : object
        What computes: ``name``, ``single(theta) -> (n_out,)`` for theta (n_params,), and ``batch(theta) -> (n, n_out)``
        for theta (n, n_params), float64 and physical. Both may be called from several threads; what `single` returns
        may be overwritten by the next call of its thread.
    layout : OutputLayout
        Where each output lies in what the engine returns; ``signal`` comes first.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    parameters : sequence of Parameter
        Specs in the order of theta; their ranges are the training range.
    errors : dict of str to numpy.ndarray, optional
        Test-set errors of the signal, in mK at each channel: ``bias`` and ``rms`` (n_channels,), ``covariance``
        (n_channels, n_channels) about zero, and ``relative`` (n_test,), the relative rms error of each test signal. Of
        an emulator that was distilled from another one these are errors against that teacher; ``teacher_rms``
        (n_channels,) is the teacher's own error, where its authors publish it.
    record : dict, optional
        How it was trained.
    name : str
        What to call it in messages and run files.
    checksum : str
        Of its content.
    network : str
        The network in words.

    Raises
    ------
    InputError
        Grid, parameters and engine do not belong together.
    """

    def __init__(
        self,
        engine,
        layout: OutputLayout,
        redshifts: np.ndarray,
        parameters,
        *,
        errors: dict[str, np.ndarray] | None = None,
        record: dict | None = None,
        name: str = "emulator",
        checksum: str = "",
        network: str = "",
    ):
        self._engine, self.layout, self.network = engine, layout, network
        self.redshifts = _check_grid(name, redshifts, layout.shapes["signal"])
        self.parameters: tuple[Parameter, ...] = tuple(parameters)
        names = [p.name for p in self.parameters]
        if len(set(names)) < len(names):
            raise InputError(f"emulator {name}: parameters {listed(names)}; the network takes different ones")
        self.errors, self.record, self.name, self.checksum = errors or {}, record or {}, name, checksum
        self._warned = False

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
        return self._evaluate(theta)[..., self.layout["signal"]].astype(float)

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
            ``tau``, () or (n,); tables on grids of their own, see ``layout.axes``.
        """
        return self.split(self._evaluate(self._physical(theta, outside)))

    @property
    def error_covariance(self) -> np.ndarray | None:
        """Covariance (n_channels, n_channels) mK^2 of the signal's error, the teacher's own included; may be None."""
        covariance = self.errors.get("covariance")
        if covariance is None or "teacher_rms" not in self.errors:
            return covariance
        return covariance + np.diag(self.errors["teacher_rms"] ** 2)

    def jacobian(self, theta, outside: str = "warn") -> np.ndarray:
        """Derivatives of the signal by the physical parameters, by central differences.

        Parameters
        ----------
        theta : array_like or mapping
            (n_params,) or (n, n_params) physical, positive where a parameter is log.
        outside : {"warn", "raise", "nan", "allow"}
            As in a plain call.

        Returns
        -------
        numpy.ndarray
            (n_channels, n_params) or (n, n_channels, n_params), mK per unit of each parameter.
        """
        theta = self._physical(theta, outside)
        # The step that balances rounding and curvature, of each parameter's width in its natural space.
        epsilon = np.finfo(self._engine.single(np.atleast_2d(theta)[0]).dtype).eps ** (1 / 3)
        slopes = []
        for i, p in enumerate(self.parameters):
            low, high = theta.copy(), theta.copy()
            if p.log:
                factor = (p.max / p.min) ** (0.5 * epsilon)
                low[..., i], high[..., i] = theta[..., i] / factor, theta[..., i] * factor
            else:
                step = 0.5 * epsilon * (p.max - p.min)
                low[..., i], high[..., i] = theta[..., i] - step, theta[..., i] + step
            rise = self(high, "allow") - self(low, "allow")
            slopes.append(rise / (high - low)[..., i, None])
        return np.stack(slopes, axis=-1)

    def save(self, path) -> None:
        """Refuse: only this package's own network is written.

        Raises
        ------
        InputError
            Always, with the commands that distil the emulator into this package's network.
        """
        raise InputError(
            f"{self.name} ({self.network}) cannot be saved as an emulator of lstmfit; distil it: lstmfit simulate "
            f"--simulator {self.name}, then lstmfit train"
        )

    def split(self, out: np.ndarray) -> dict[str, np.ndarray]:
        """Name the parts of an engine's output (..., n_out); copies in float64."""
        return {name: self.layout.take(out, name).astype(float) for name in self.layout}

    @property
    def raw(self):
        """The engine's own single call, for hot loops: (n_params,) float64 -> (n_out,).

        The array belongs to the engine and is overwritten by the next call.
        The first ``n_channels`` numbers are the signal in mK; `split` names the rest.
        """
        return self._engine.single

    @property
    def raw_batch(self):
        """The engine's own call for many: (n, n_params) float64 -> (n, n_out), laid out as by `raw`."""
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
        n, channels = len(self.parameters), len(self.redshifts)
        return f"<Emulator {self.name}: {n} parameters, {channels} channels, {self.network}>"


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


def _check_grid(name, redshifts, shape) -> np.ndarray:
    grid = np.array(redshifts, dtype=float)
    if grid.shape != tuple(shape) or not np.isfinite(grid).all() or grid[0] < 0 or (np.diff(grid) <= 0).any():
        raise InputError(
            f"emulator {name}: {grid.size} redshifts for {shape[0]} channels; as many are needed, finite, ascending, "
            "not negative"
        )
    grid.flags.writeable = False
    return grid
