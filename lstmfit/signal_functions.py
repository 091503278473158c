"""Signal functions of a fit: an emulator, the simulator itself, or a formula; all behind one interface."""

import threading
from collections.abc import Callable

import numpy as np

from lstmfit.config import RunConfig
from lstmfit.constants import frequency_to_redshift
from lstmfit.emulator.emulator import Emulator
from lstmfit.likelihoods.base import read_defaults
from lstmfit.likelihoods.foregrounds import NAMES, flattened_gaussian
from lstmfit.parameter import Parameter


class Signal:
    """Abstract: what a likelihood is fed from.

    Attributes
    ----------
    name, checksum : str
        What it is, for messages and for the resolved run file.
    emulator : Emulator or None
        The emulator, where it is one.
    parameters : tuple of Parameter
        In the order of theta.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    where : dict of str to slice or int
        Where each output lies in what `outputs` returns: ``signal``, and ``x_HI`` and ``tau`` where there are such.
    outputs : callable
        Every output (n_out,) for physical theta (n_params,); may be overwritten by the next call.
    costly : bool
        Whether a call takes so long that it is worth another process.

    Notes
    -----
    `outputs` and `batch` may be called from several threads; what `outputs` returns belongs to its thread. A signal can
    be pickled and copied.
    """

    name: str
    checksum: str
    emulator: Emulator | None = None
    parameters: tuple[Parameter, ...]
    redshifts: np.ndarray
    where: dict
    outputs: Callable[[np.ndarray], np.ndarray]
    costly: bool = False

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Signal (n_channels,) mK for physical theta (n_params,); may be overwritten by the next call."""
        return self.outputs(theta)[self.where["signal"]]

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """Every output (n, n_out) for physical theta (n, n_params)."""
        return np.array([np.array(self.outputs(row)) for row in theta])


class EmulatedSignal(Signal):
    """The signal function of a fit: an emulator, all parameters in, all outputs out."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self.name, self.checksum = emulator.name, emulator.checksum
        self.parameters, self.redshifts = emulator.parameters, emulator.redshifts
        a = emulator.architecture
        n, first = a.n_channels, a.n_channels * len(a.histories)
        self.where = {name: slice(i * n, (i + 1) * n) for i, name in enumerate(a.histories)}
        self.where |= {name: first + i for i, name in enumerate(a.scalars)}
        # The engine's own call, without a layer in between: this is the hot loop.
        self.outputs, self.batch = emulator.raw, emulator.raw_batch


class SimulatedSignal(Signal):
    """The signal function of a direct fit: the simulator itself."""

    costly = True

    def __init__(self, name: str):
        from lstmfit.simulators import load

        self._simulate = load(name)
        # Nothing is known about a simulator's own state.
        self._lock = threading.Lock()
        self.name, self.checksum = name, str(self._simulate.version)
        self.parameters, self.redshifts = self._simulate.parameters, self._simulate.redshifts
        n = len(self.redshifts)
        self.where = {"signal": slice(0, n), "x_HI": slice(n, 2 * n), "tau": 2 * n}

    def __reduce__(self):
        # By name, as in a worker: a simulator may hold what cannot be pickled.
        return type(self), (self.name,)

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        """As `Signal.outputs`; NaN where the simulator fails."""
        from lstmfit.simulators.protocol import SimulationError

        try:
            with self._lock:
                history = self._simulate(theta)
        except SimulationError:
            return np.full(2 * len(self.redshifts) + 1, np.nan)
        return np.concatenate([history.signal, history.x_HI, [history.tau]])


class FlattenedGaussianSignal(Signal):
    """The phenomenological absorption of Bowman et al. (2018), evaluated at the data's own channels.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz, any order.
    """

    name, checksum = "flattened_gaussian", "Bowman et al. 2018"

    def __init__(self, frequency: np.ndarray):
        self._frequency = np.sort(frequency)[::-1]
        self.redshifts = frequency_to_redshift(self._frequency)
        known = read_defaults("foregrounds")["flattened_gaussian"]
        self.parameters = tuple(Parameter(name, **known[name]) for name in NAMES["flattened_gaussian"])
        self.where = {"signal": slice(0, len(frequency))}

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        """As `Signal.outputs`."""
        return flattened_gaussian(self._frequency, theta)


MOCK_REDSHIFTS = np.linspace(5.0, 50.0, 451)
"""Grid of a mock of a signal that has no grid of its own: that of the shipped emulator."""


def make_signal(config: RunConfig, frequency: np.ndarray | None = None) -> Signal:
    """The signal function that a run file names.

    Parameters
    ----------
    config : RunConfig
        The run.
    frequency : numpy.ndarray, optional
        (n,) MHz, the data's channels, for a signal that has no grid of its own.
    """
    if config.signal is not None:
        from lstmfit.constants import redshift_to_frequency

        return FlattenedGaussianSignal(redshift_to_frequency(MOCK_REDSHIFTS) if frequency is None else frequency)
    if config.simulator is not None:
        return SimulatedSignal(config.simulator)
    return EmulatedSignal(Emulator.load(config.emulator))
