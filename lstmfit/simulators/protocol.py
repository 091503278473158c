"""Interface of a simulator: a callable that maps parameters to a history."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lstmfit.errors import InputError, listed, one_line
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter, check_name
from lstmfit.schema import shown


class SimulationError(RuntimeError):
    """A simulator failed or returned a history that is not finite."""


@dataclass(frozen=True)
class History:
    """Result of a simulation.

    Parameters
    ----------
    redshifts : numpy.ndarray
        Ascending redshifts, shape (n,).
    signal : numpy.ndarray
        Global 21-cm brightness temperature in mK, shape (n,).
    x_HI : numpy.ndarray, optional
        Volume-averaged neutral fraction of hydrogen, shape (n,).
    tau : float, optional
        Thomson optical depth of the CMB.
    """

    redshifts: np.ndarray
    signal: np.ndarray
    x_HI: np.ndarray | None = None
    tau: float | None = None


def outputs_of(result: History | Mapping) -> dict[str, np.ndarray]:
    """Outputs of a simulation by name, with the signal first.

    Parameters
    ----------
    result : History or mapping
        Result of a simulator; outputs that are None are left out.

    Returns
    -------
    dict of str to numpy.ndarray
        float64: histories (n,), numbers (), tables of any other shape.

    Raises
    ------
    SimulationError
        There is no signal, or an output is not an array of finite numbers.
    """
    given = dict(result) if isinstance(result, Mapping) else dict(vars(result))
    given.pop("redshifts", None)
    found = {name: value for name, value in given.items() if value is not None}
    if "signal" not in found:
        raise SimulationError(f"the result has no signal; its outputs are {listed(found) or 'none'}")
    outputs = {}
    for name in ("signal", *(name for name in found if name != "signal")):
        try:
            outputs[name] = np.asarray(found[name], dtype=float)
        except (TypeError, ValueError):
            raise SimulationError(f"{name} is {shown(found[name])}, not an array of numbers") from None
        if not np.isfinite(outputs[name]).all():
            raise SimulationError("the result is not finite" if name == "signal" else f"{name} is not finite")
    return outputs


RESERVED = ("axes", "failed", "message", "par", "redshifts", "row", "split", "theta")
"""Names that are used by the files of signals."""


def layout_of(outputs: Mapping[str, np.ndarray], redshifts: np.ndarray, axes: Mapping | None = None) -> OutputLayout:
    """Layout of the outputs of a simulation.

    Parameters
    ----------
    outputs : mapping of str to numpy.ndarray
        Outputs of one simulation, see `outputs_of`.
    redshifts : numpy.ndarray
        (n,) grid of the simulator.
    axes : mapping, optional
        Grids of its tables, see `OutputLayout`.

    Raises
    ------
    SimulationError
        The signal does not have the length of the grid, a name is invalid, or a table has no axes.
    """
    axes, shapes = axes or {}, {name: np.shape(value) for name, value in outputs.items()}
    grid = np.shape(redshifts)
    if shapes["signal"] != grid:
        raise SimulationError(f"the signal has shape {shapes['signal']}, but the redshifts have shape {grid}")
    for name, shape in shapes.items():
        if name in RESERVED:
            raise SimulationError(f"the output name {name} is reserved; rename the output")
        try:
            check_name(name, "output")
        except InputError as error:
            raise SimulationError(str(error)) from None
        if name not in axes and shape not in ((), grid):
            raise SimulationError(
                f"{name} has shape {shape}, so it is neither a number nor a history on the {grid[0]} redshifts; for a "
                f"table, give the simulator axes = {{{name!r}: {{AXIS: values, ...}}}}"
            )
    order = {name: 2 if name in axes else 1 if not shape else 0 for name, shape in shapes.items()}
    try:
        used = {name: grids for name, grids in axes.items() if name in shapes}
        return OutputLayout({name: shapes[name] for name in sorted(shapes, key=lambda name: order[name])}, used)
    except ValueError as error:
        raise SimulationError(one_line(error)) from None


def simulator_layout(simulator: Any) -> OutputLayout:
    """Layout of a simulator's outputs: the attribute ``layout``, or else from a simulation at the centre of its ranges.

    Raises
    ------
    SimulationError
        This simulation fails.
    """
    declared = getattr(simulator, "layout", None)
    if isinstance(declared, OutputLayout):
        return declared
    middle = np.array([np.sqrt(p.min * p.max) if p.log else 0.5 * (p.min + p.max) for p in simulator.parameters])
    try:
        result = simulator(middle)
    except Exception as error:
        raise SimulationError(f"{type(error).__name__}: {one_line(error)}") from error
    return layout_of(outputs_of(result), simulator.redshifts, getattr(simulator, "axes", None))


@runtime_checkable
class Simulator(Protocol):
    """A callable with a redshift grid, parameter specs, a name and a version.

    Attributes
    ----------
    redshifts : numpy.ndarray
        Ascending redshifts, shape (n,).
    parameters : tuple of Parameter
        The parameters in the order of theta, with their prior ranges.
    name, version : str
        Name and version, recorded in every set.
    layout : OutputLayout, optional
        Layout of the outputs; by default it is determined by a simulation.
    axes : dict of str to dict of str to array_like, optional
        Grids of the table outputs: ``{"log10_uvlf": {"redshift": [6, 8], "M_UV": [-20, -18, -16]}}``.
    batch : callable, optional
        ``batch(theta)`` for theta (n, n_params) returns a list of n results; used if available.
    """

    redshifts: np.ndarray
    parameters: tuple[Parameter, ...]
    name: str
    version: str

    def __call__(self, theta: np.ndarray) -> History | Mapping:
        """Simulate one parameter set; theta has shape (n_params,) in physical units, or is a mapping by name.

        The result is a `History`, or a mapping by name with ``signal`` in mK and any other outputs: histories on the
        redshift grid, numbers, tables (see ``axes``).
        """
        ...
