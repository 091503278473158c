"""Common interface of all emulators: physical parameters in, mK out, for any kind of network."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lstmfit.errors import InputError, listed
from lstmfit.files import AnyPath
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter, Theta, to_array, widened
from lstmfit.schema import shown


class BaseEmulator:
    """An emulator of the global 21-cm signal, of any kind; load one with `lstmfit.Emulator.load`.

    Parameters
    ----------
    engine : object
        Object that evaluates the network. It has a ``name``, ``single(theta) -> (n_out,)`` for theta (n_params,), and
        ``batch(theta) -> (n, n_out)`` for theta (n, n_params), float64 and physical. Both may be called from several
        threads; the array returned by `single` may be overwritten by the next call from the same thread.
    layout : OutputLayout
        Position of each output in the array that the engine returns; ``signal`` comes first.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    parameters : sequence of Parameter
        Specs in the order of theta; their ranges are the training range.
    errors : dict of str to numpy.ndarray, optional
        Test-set errors of the signal, in mK at each channel: ``bias`` and ``rms`` (n_channels,), ``covariance``
        (n_channels, n_channels) about zero, and ``relative`` (n_test,), the relative rms error of each test signal. For
        an emulator that was distilled from another one, these errors are relative to that teacher; ``teacher_rms``
        (n_channels,) is the teacher's own error, if its authors published it.
    record : dict, optional
        Record of the training.
    name : str
        Name for messages and run files.
    checksum : str
        Checksum of the content.
    network : str
        Short description of the network.

    Raises
    ------
    InputError
        The grid does not match the layout, or a parameter appears twice.
    """

    def __init__(
        self,
        engine: Any,
        layout: OutputLayout,
        redshifts: np.ndarray,
        parameters: Sequence[Parameter],
        *,
        errors: dict[str, np.ndarray] | None = None,
        record: dict | None = None,
        name: str = "emulator",
        checksum: str = "",
        network: str = "",
    ) -> None:
        self._engine, self.layout, self.network = engine, layout, network
        self.redshifts = _check_grid(name, redshifts, layout.shapes["signal"])
        self.parameters: tuple[Parameter, ...] = tuple(parameters)
        self._limits = np.array([widened(p.min, p.max, p.log) for p in self.parameters]).reshape(-1, 2).T
        names = [p.name for p in self.parameters]
        if len(set(names)) < len(names):
            raise InputError(f"emulator {name}: a parameter appears twice in {listed(names)}; give distinct names")
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

    def __call__(self, theta: Theta, outside: str = "warn") -> np.ndarray:
        """Evaluate the signal.

        Parameters
        ----------
        theta : array_like or mapping
            (n_params,) or (n, n_params) physical values in the order of `parameters`, or a mapping by name.
        outside : {"warn", "raise", "nan", "allow"}
            How to treat values outside the training range, where the network extrapolates: warn (once per emulator),
            raise an InputError, return NaN, or evaluate without a warning.

        Returns
        -------
        numpy.ndarray
            (n_channels,) or (n, n_channels) float64 mK at `redshifts`, a new array. NaN if theta contains NaN or a
            non-positive value of a log parameter.

        Raises
        ------
        InputError
            theta has the wrong names or shape, or is outside the training range with ``outside="raise"``.
        """
        theta = self._physical(theta, outside)
        return self._evaluate(theta)[..., self.layout["signal"]].astype(float)

    def _evaluate(self, theta: Theta) -> np.ndarray:
        return self._engine.single(theta) if theta.ndim == 1 else self._engine.batch(theta)

    def _physical(self, theta: Theta, outside: str) -> np.ndarray:
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
        low, high = self._limits
        inside = (theta >= low) & (theta <= high)
        if inside.all():
            return theta
        if outside == "nan":
            return np.where(inside.all(axis=-1, keepdims=True), theta, np.nan)
        message = f"{self.name}: {describe_outside(self.parameters, theta)}"
        if outside == "raise":
            raise InputError(f'{message}; use outside="allow" to extrapolate, or outside="nan" to get NaN')
        self._warned = True
        warnings.warn(f"{message}: the emulator extrapolates (this warning is shown once)", stacklevel=3)
        return theta

    def histories(self, theta: Theta, outside: str = "warn") -> dict[str, np.ndarray]:
        """Evaluate all outputs of the network.

        Parameters
        ----------
        theta : array_like or mapping
            As for `__call__`.
        outside : {"warn", "raise", "nan", "allow"}
            As for `__call__`.

        Returns
        -------
        dict of str to numpy.ndarray
            By name: ``signal`` in mK and other histories such as ``x_HI``, (n_channels,) or (n, n_channels); scalars
            such as ``tau``, () or (n,); tables on their own grids, see ``layout.axes``.
        """
        return self.split(self._evaluate(self._physical(theta, outside)))

    @property
    def error_covariance(self) -> np.ndarray | None:
        """Covariance (n_channels, n_channels) mK^2 of the signal's error, including the teacher's; None if unknown."""
        covariance = self.errors.get("covariance")
        if covariance is None or "teacher_rms" not in self.errors:
            return covariance
        return covariance + np.diag(self.errors["teacher_rms"] ** 2)

    def jacobian(self, theta: Theta, outside: str = "warn") -> np.ndarray:
        """Derivatives of the signal with respect to the physical parameters, by central differences.

        Parameters
        ----------
        theta : array_like or mapping
            (n_params,) or (n, n_params) physical; log parameters must be positive.
        outside : {"warn", "raise", "nan", "allow"}
            As for `__call__`.

        Returns
        -------
        numpy.ndarray
            (n_channels, n_params) or (n, n_channels, n_params), mK per unit of each parameter.
        """
        theta = self._physical(theta, outside)
        # This step, relative to the width of each parameter in its natural space, balances rounding and curvature.
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

    def save(self, path: AnyPath) -> None:
        """Not supported: only the network of this package can be saved.

        Raises
        ------
        InputError
            Always, with the commands that distil the emulator into this package's network.
        """
        raise InputError(
            f"{self.name} ({self.network}) cannot be saved as an lstmfit emulator; to distil it into one, run lstmfit "
            f"simulate --simulator {self.name}, then lstmfit train"
        )

    def split(self, out: np.ndarray) -> dict[str, np.ndarray]:
        """Split an engine's output (..., n_out) into named outputs, copied to float64."""
        return {name: self.layout.take(out, name).astype(float) for name in self.layout}

    @property
    def raw(self) -> Callable[[np.ndarray], np.ndarray]:
        """The engine's function for one signal, for hot loops: (n_params,) float64 -> (n_out,).

        The returned array belongs to the engine and is overwritten by the next call. The first ``n_channels`` numbers
        are the signal in mK; use `split` to get the others by name.
        """
        return self._engine.single

    @property
    def raw_batch(self) -> Callable[[np.ndarray], np.ndarray]:
        """The engine's function for a batch: (n, n_params) float64 -> (n, n_out), with the layout of `raw`."""
        return self._engine.batch

    def outside(self, theta: Theta) -> list[str]:
        """Names of the parameters that are NaN or outside the training range in any row of theta."""
        theta = np.atleast_2d(self._physical(theta, "allow"))
        return [p.name for i, p in enumerate(self.parameters) if not p.is_inside(theta[:, i]).all()]

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # Pickling does not preserve this flag.
        self.redshifts.flags.writeable = False

    def __repr__(self) -> str:
        n, channels = len(self.parameters), len(self.redshifts)
        return f"<Emulator {self.name}: {n} parameters, {channels} channels, {self.network}>"


OUTSIDE = ("warn", "raise", "nan", "allow")


def describe_outside(parameters: Sequence[Parameter], theta: Theta) -> str:
    """Message that names the first parameter outside its training range.

    Parameters
    ----------
    parameters : sequence of Parameter
        In the order of theta.
    theta : numpy.ndarray
        (n_params,) or (n, n_params) physical values.
    """
    theta = np.atleast_2d(theta)
    for i, p in enumerate(parameters):
        outside = ~p.is_inside(theta[:, i])
        if outside.any():
            value = theta[outside.argmax(), i]
            many = f" (and {outside.sum() - 1} more of {len(theta)})" if outside.sum() > 1 else ""
            return f"{p.name} is {value:.6g}{many}, outside the training range {p.min:.6g}..{p.max:.6g}"
    return "every parameter is inside its training range"


def _check_grid(name: str, redshifts: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    grid = np.array(redshifts, dtype=float)
    if grid.shape != tuple(shape) or not np.isfinite(grid).all() or grid[0] < 0 or (np.diff(grid) <= 0).any():
        raise InputError(
            f"emulator {name}: {grid.size} redshifts for {shape[0]} channels; give one redshift per channel, finite, "
            "non-negative and ascending"
        )
    grid.flags.writeable = False
    return grid
