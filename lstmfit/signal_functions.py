"""Signal functions of a fit with a common interface: an emulator, a simulator, or a formula."""

import threading
from collections.abc import Callable

import numpy as np

from lstmfit.config import RunConfig
from lstmfit.constants import frequency_to_redshift, redshift_to_frequency
from lstmfit.emulator.emulator import Emulator
from lstmfit.errors import InputError, one_line
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter


class Signal:
    """Abstract base class of the signal functions, whose outputs are the input of the likelihoods.

    Attributes
    ----------
    name, checksum : str
        Identification for messages and for the resolved run file.
    emulator : Emulator or None
        The emulator, if the signal is emulated.
    parameters : tuple of Parameter
        In the order of theta.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    layout : OutputLayout
        Position of each output in the array that `outputs` returns: ``signal``, and others such as ``x_HI`` and
        ``tau`` if available.
    outputs : callable
        All outputs (n_out,) for physical theta (n_params,); may be overwritten by the next call.
    costly : bool
        Whether a call takes long enough to make additional processes worthwhile.

    Notes
    -----
    `outputs` and `batch` may be called from several threads; the array that `outputs` returns belongs to the calling
    thread. A signal can be pickled and copied.
    """

    name: str
    checksum: str
    emulator: Emulator | None = None
    parameters: tuple[Parameter, ...]
    redshifts: np.ndarray
    layout: OutputLayout
    outputs: Callable[[np.ndarray], np.ndarray]
    costly: bool = False

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Signal (n_channels,) mK for physical theta (n_params,); may be overwritten by the next call."""
        return self.outputs(theta)[self.layout["signal"]]

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """All outputs (n, n_out) for physical theta (n, n_params)."""
        return np.array([np.array(self.outputs(row)) for row in theta])


class EmulatedSignal(Signal):
    """Signal function that evaluates an emulator."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self.name, self.checksum = emulator.name, emulator.checksum
        self.parameters, self.redshifts = emulator.parameters, emulator.redshifts
        self.layout = emulator.layout
        # Call the engine directly, because this is the hot loop.
        self.outputs, self.batch = emulator.raw, emulator.raw_batch


class SimulatedSignal(Signal):
    """Signal function that runs a simulator, for a direct fit."""

    costly = True

    def __init__(self, name: str):
        from lstmfit.simulators import load
        from lstmfit.simulators.protocol import SimulationError, simulator_layout

        self._simulate = load(name)
        # A simulator may not be thread-safe.
        self._lock = threading.Lock()
        self.name, self.checksum = name, str(self._simulate.version)
        self.parameters, self.redshifts = self._simulate.parameters, self._simulate.redshifts
        try:
            self.layout = simulator_layout(self._simulate)
        except SimulationError as error:
            raise InputError(
                f"simulator {name} fails at the centre of its ranges: {one_line(error)}; correct the simulator"
            ) from None

    def __reduce__(self):
        # Load it again by name, because a simulator may contain objects that cannot be pickled.
        return type(self), (self.name,)

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        """As `Signal.outputs`; NaN if the simulator fails."""
        from lstmfit.simulators.protocol import SimulationError, outputs_of

        try:
            with self._lock:
                return self.layout.pack(outputs_of(self._simulate(theta)))
        except SimulationError:
            return np.full(self.layout.size, np.nan)


def flattened_gaussian(frequency, values) -> np.ndarray:
    """Flattened Gaussian absorption (Bowman et al. 2018, Nature 555, 67, methods).

    T(nu) = -A (1 - exp(-tau e^B)) / (1 - e^-tau), B = 4 (nu - nu_0)^2 / w^2 ln[-ln((1 + e^-tau) / 2) / tau],
    so that w is the full width at half maximum for every flattening tau.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        A [mK], nu_0 [MHz], w [MHz] and tau.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    a, nu_0, w, tau = values
    half = np.log(-np.log1p(0.5 * np.expm1(-tau)) / tau)
    b = 4.0 * (np.asarray(frequency, dtype=float) - nu_0) ** 2 / w**2 * half
    return a * np.expm1(-tau * np.exp(b)) / -np.expm1(-tau)


class AnalyticSignal(Signal):
    """Abstract base class of signals without a simulator, which are evaluated at the channels of the data.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz, in any order.
    """

    def __init__(self, frequency: np.ndarray):
        self._frequency = np.sort(frequency)[::-1]
        self.redshifts = frequency_to_redshift(self._frequency)
        self.layout = OutputLayout.of(len(frequency), ("signal",))


class FlattenedGaussianSignal(AnalyticSignal):
    """The phenomenological absorption of Bowman et al. (2018)."""

    name, checksum = "flattened_gaussian", "Bowman et al. 2018"
    # Our own wide ranges, which cover the whole EDGES low band.
    parameters = (
        Parameter("A", 0, 2000, unit="mK", latex="A"),
        Parameter("nu_0", 60, 95, unit="MHz", latex=r"\nu_0"),
        Parameter("w", 5, 40, unit="MHz", latex="w"),
        Parameter("tau", 0.1, 20, latex=r"\tau"),
    )

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        """As `Signal.outputs`."""
        return flattened_gaussian(self._frequency, theta)


class NoSignal(AnalyticSignal):
    """A signal of zero in every channel, without parameters."""

    name, checksum = "signal: none", "none"
    parameters = ()

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        """As `Signal.outputs`."""
        return np.zeros(len(self._frequency))


ANALYTIC: dict[str, type[AnalyticSignal]] = {"flattened_gaussian": FlattenedGaussianSignal, "none": NoSignal}
"""Analytic signals by their names in run files (``signal:``)."""


MOCK_REDSHIFTS = np.linspace(5.0, 50.0, 451)
"""Grid for mocks of a signal without its own grid; it is the grid of the shipped emulators."""


def make_signal(config: RunConfig, frequency: np.ndarray | None = None) -> Signal:
    """Create the signal function that a run file chooses.

    Parameters
    ----------
    config : RunConfig
        The run file.
    frequency : numpy.ndarray, optional
        (n,) MHz, channels of the data, for a signal without its own grid.
    """
    if config.signal is not None:
        return ANALYTIC[config.signal](redshift_to_frequency(MOCK_REDSHIFTS) if frequency is None else frequency)
    if config.simulator is not None:
        return SimulatedSignal(config.simulator)
    return EmulatedSignal(Emulator.load(config.emulator))
