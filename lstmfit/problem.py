"""From a run file to what a sampler needs: prior, likelihood, names."""

import difflib
from dataclasses import dataclass

import numpy as np

from lstmfit.config import RunConfig
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.spectrum import Spectrum, read_public_spectrum, read_spectrum
from lstmfit.emulator.emulator import Emulator, shipped_test_set
from lstmfit.errors import InputError
from lstmfit.likelihoods import GlobalSignal
from lstmfit.likelihoods.foregrounds import linear_basis
from lstmfit.parameters import Parameter, to_array
from lstmfit.priors import Distribution, Prior, make_distribution

OWN_LATEX = {"sigma": r"\sigma\ [\mathrm{mK}]"} | {f"a{i}": f"a_{i}\\ [\\mathrm{{K}}]" for i in range(20)}


class EmulatedSignal:
    """The signal function of a fit: an emulator, all parameters in, all outputs out."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self.name, self.checksum = emulator.name, emulator.checksum
        self.parameters, self.redshifts = emulator.parameters, emulator.redshifts
        self._raw, self._n = emulator.raw, emulator.architecture.n_channels

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Signal (n_channels,) mK for physical theta (n_params,); overwritten by the next call."""
        return self._raw(theta)[: self._n]


class SimulatedSignal:
    """The signal function of a direct fit: the simulator itself."""

    def __init__(self, name: str):
        from lstmfit.simulators import load

        self._simulate = load(name)
        self.emulator, self.name, self.checksum = None, name, str(self._simulate.version)
        self.parameters, self.redshifts = self._simulate.parameters, self._simulate.redshifts

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Signal (n_channels,) mK for physical theta (n_params,); NaN where the simulator fails."""
        from lstmfit.simulators.protocol import SimulationError

        try:
            return self._simulate(theta).signal
        except SimulationError:
            return np.full(len(self.redshifts), np.nan)


def make_signal(config: RunConfig):
    """The signal function that a run file names."""
    if config.simulator is not None:
        return SimulatedSignal(config.simulator)
    return EmulatedSignal(Emulator.load(config.emulator))


@dataclass
class Problem:
    """What a sampler needs.

    Parameters
    ----------
    signal : callable
        theta (all of the signal's parameters) -> (n_channels,) mK.
    prior : Prior
        The sampled parameters, in order: the signal's first, then the likelihood's own.
    likelihood : GlobalSignal
        ln L of a signal and the likelihood's own parameters.
    spectrum : Spectrum
        What is fitted.
    fixed : numpy.ndarray
        (n_signal_params,) values of fixed parameters, NaN where sampled.
    truth : dict of str to float
        True values of a mock's parameters; empty for real data.
    """

    signal: object
    prior: Prior
    likelihood: GlobalSignal
    spectrum: Spectrum
    fixed: np.ndarray
    truth: dict

    def __post_init__(self):
        self.names = self.prior.names
        self.latex = (*(self.prior.latex[name] for name in self.names), r"\ln\mathcal{L}_\mathrm{21cm}")
        self.derived_names = ("loglike_global_signal",)
        self.prior_transform = self.prior.transform
        self._full = self.fixed.copy()
        self._free = np.flatnonzero(np.isnan(self.fixed))
        self.n_signal = len(self._free)

    def signal_parameters(self, theta: np.ndarray) -> np.ndarray:
        """All of the signal's parameters, fixed ones included, from the sampled ones; overwritten by the next call."""
        self._full[self._free] = theta[: self.n_signal]
        return self._full

    def loglikelihood(self, theta: np.ndarray):
        """Ln L and the derived parameters for the sampled parameters (n,)."""
        signal = self.signal(self.signal_parameters(theta))
        value = self.likelihood(signal, theta[self.n_signal :])
        return value, (value,)


def build(config: RunConfig, spectrum: Spectrum | None = None) -> Problem:
    """Build everything that a run file describes.

    Parameters
    ----------
    config : RunConfig
        A validated run.
    spectrum : Spectrum, optional
        The data, where they have been made or read already.

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        Anything in the run file that does not fit the emulator, the data or itself.
    """
    signal = make_signal(config)
    if spectrum is None:
        spectrum = make_data(config, signal)
    likelihood = _likelihood(config, signal, spectrum)
    prior, fixed = _prior(config, signal, likelihood)
    return Problem(signal, prior, likelihood, spectrum, fixed, true_parameters(config, signal))


def _likelihood(config, signal, spectrum):
    block = config.likelihood.global_signal
    covariance = None
    if block.emulator_error:
        if signal.emulator is None or "covariance" not in signal.emulator.errors:
            raise InputError(
                f"emulator_error is true, but {signal.name} carries no test-set errors; "
                "retrain it with a test set or set it to false"
            )
        covariance = signal.emulator.errors["covariance"]
    basis, foreground = None, block.foreground
    if foreground is not None:
        basis = linear_basis(foreground.model, spectrum.frequency, foreground.terms, foreground.reference)
    return GlobalSignal(
        spectrum.frequency,
        spectrum.temperature,
        spectrum.weight,
        signal.redshifts,
        None if block.noise.sigma == "free" else block.noise.sigma,
        basis,
        foreground is not None and foreground.marginalise,
        0.0 if foreground is None else foreground.mean,
        1.0 if foreground is None else foreground.scale,
        covariance,
    )


def natural_prior(parameter: Parameter) -> Distribution:
    """Uniform or log-uniform over a parameter's range."""
    dist = "loguniform" if parameter.log else "uniform"
    return make_distribution({"dist": dist, "min": parameter.min, "max": parameter.max})


def _label(parameter: Parameter) -> str:
    latex = parameter.latex or parameter.name
    return f"{latex}\\ [\\mathrm{{{parameter.unit}}}]" if parameter.unit else latex


def _prior(config, signal, likelihood):
    own = {p.name: p for p in signal.parameters}
    known = (*own, *likelihood.names)
    for name in config.params:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"the parameters are {', '.join(known)}"
            raise InputError(f"params: nobody uses {name!r}; {hint}")
    distributions, latex, fixed = {}, {}, np.full(len(own), np.nan)
    for i, (name, parameter) in enumerate(own.items()):
        block = config.params.get(name)
        if block is not None and block.value is not None:
            _check_range(config, parameter, block.value, block.value)
            fixed[i] = block.value
            continue
        given = block.prior if block is not None else None
        distributions[name] = natural_prior(parameter) if given is None else make_distribution(given)
        _check_range(config, parameter, *distributions[name].support)
        latex[name] = (block and block.latex) or _label(parameter)
    for name in likelihood.names:
        block = config.params.get(name)
        if block is None or block.prior is None:
            raise InputError(
                f"params: {name} is sampled and needs a prior, for example {name}: {{prior: {_example(name)}}}"
            )
        distributions[name] = make_distribution(block.prior)
        latex[name] = block.latex or OWN_LATEX.get(name, name)
    return Prior(distributions, latex), fixed


def _example(name):
    return "{dist: loguniform, min: 1, max: 1000}" if name == "sigma" else "{dist: norm, loc: 0, scale: 3000}"


def _check_range(config, parameter, low, high):
    slack = 1e-9 * (parameter.max - parameter.min)
    if (low < parameter.min * (1 - 1e-9) - slack * (not parameter.log) or high > parameter.max + slack) and (
        not config.extrapolate
    ):
        raise InputError(
            f"params: the prior of {parameter.name} spans {low:g}..{high:g}, but the emulator was trained on "
            f"{parameter.min:g}..{parameter.max:g}; narrow the prior (truncnorm takes min and max) "
            "or set extrapolate: true"
        )


def true_parameters(config: RunConfig, signal) -> dict[str, float]:
    """True values of a mock's signal parameters by name; empty for real data."""
    mock = config.data.mock
    if mock is None:
        return {}
    if mock.theta is not None:
        theta = to_array(mock.theta, signal.parameters)
    else:
        theta, _ = _test_signal(config, signal, mock.test_signal)
    return {p.name: float(v) for p, v in zip(signal.parameters, theta)}


def _test_signal(config, signal, index):
    test = shipped_test_set(config.emulator) if config.emulator is not None else None
    if test is None:
        raise InputError(f"test_signal: {signal.name} has no test set with it; give theta instead")
    if not 0 <= index < len(test.theta):
        raise InputError(f"test_signal is {index}; the test set has signals 0 to {len(test.theta) - 1}")
    return test.theta[index], test.signal[index].astype(float)


def make_data(config: RunConfig, signal) -> Spectrum:
    """Read the data file, or make the mock: the true signal plus white noise from the mock's own seed.

    Parameters
    ----------
    config : RunConfig
        The run.
    signal : EmulatedSignal or SimulatedSignal
        Defines the grid of a mock.
    """
    mock = config.data.mock
    if config.data.public is not None:
        return read_public_spectrum(config.data.public)
    if mock is None:
        return read_spectrum(config.data.file, config.data.columns, config.data.unit)
    if mock.test_signal is not None:
        _, true = _test_signal(config, signal, mock.test_signal)
    elif mock.source == "emulator":
        true = np.array(signal(to_array(mock.theta, signal.parameters)), dtype=float)
    else:
        true = _simulate(config, signal, mock)
    noise = mock.noise * np.random.default_rng(mock.seed).standard_normal(len(true))
    frequency = redshift_to_frequency(signal.redshifts)
    return Spectrum(frequency, true + noise, np.ones(len(true)), true)


def _simulate(config, signal, mock):
    from lstmfit.simulators import load

    name = config.simulator or (signal.emulator.record.get("simulator") if signal.emulator else None)
    if not name:
        raise InputError(
            f"mock from simulator: {signal.name} does not say which simulator it emulates; use from: emulator"
        )
    simulate = load(name)
    if len(simulate.redshifts) != len(signal.redshifts) or not np.allclose(simulate.redshifts, signal.redshifts):
        raise InputError(f"mock from simulator: {name} and {signal.name} have different redshift grids")
    return simulate(mock.theta).signal
