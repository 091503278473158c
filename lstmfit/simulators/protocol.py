"""What a simulator is: a callable from parameters to a history."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter


class SimulationError(RuntimeError):
    """A simulator could not make a finite history for these parameters."""


@dataclass(frozen=True)
class History:
    """What a simulator gives for one set of parameters.

    Parameters
    ----------
    redshifts : numpy.ndarray
        Redshifts ascending, shape (n,).
    signal : numpy.ndarray
        Global 21-cm brightness temperature in mK, shape (n,).
    x_HI : numpy.ndarray
        Neutral fraction of hydrogen, averaged over the volume, shape (n,).
    tau : float
        Thomson optical depth of the CMB.
    """

    redshifts: np.ndarray
    signal: np.ndarray
    x_HI: np.ndarray
    tau: float


def history_layout(redshifts: np.ndarray) -> OutputLayout:
    """The layout of a `History` on redshifts (n,) as a flat array."""
    return OutputLayout.of(len(redshifts), ("signal", "x_HI"), ("tau",))


@runtime_checkable
class Simulator(Protocol):
    """A callable with a redshift grid, parameter specs, a name and a version.

    Attributes
    ----------
    redshifts : numpy.ndarray
        Redshifts ascending, shape (n,).
    parameters : tuple of Parameter
        The parameters in the order of theta, with their prior ranges.
    name, version : str
        What made the histories; both are written into every set.
    """

    redshifts: np.ndarray
    parameters: tuple[Parameter, ...]
    name: str
    version: str

    def __call__(self, theta) -> History:
        """Simulate one history; theta has shape (n_params,) in physical units, or is a mapping by name."""
        ...
