"""Build a problem from a run file: prior, likelihoods, signal and data."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from lstmfit.config import RunConfig
from lstmfit.data import make_data, mock_of, simulate_truth, true_parameters, true_theta
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.emulator.base import describe_outside
from lstmfit.errors import InputError, naming
from lstmfit.likelihood_calls import JoinedCalls, LikelihoodCall
from lstmfit.likelihoods.base import class_of, make_likelihood
from lstmfit.likelihoods.joint_spectra import JointSpectra
from lstmfit.parameter_space import ParameterSpace, make_space
from lstmfit.parameters import is_inside, to_array_of, widened
from lstmfit.schema import shown
from lstmfit.signal_functions import Signal, make_signal
from lstmfit.spectra import Use, find_uses, join, name_parameters, rename
from lstmfit.spectrum_emulator import SpectrumEmulator

BATCH = 1024
"""Number of points that `Problem.loglikelihood_batch` evaluates at a time, to limit the memory for their signals."""


@dataclass
class Problem:
    """Everything that a sampler needs.

    Parameters
    ----------
    signal : Signal
        theta (all parameters of the signal) -> (n_channels,) mK.
    space : ParameterSpace
        All parameters: sampled, fixed, computed.
    likelihoods : dict of str to Likelihood
        Likelihoods by their names in the run file, beginning with those of spectra. Their logarithms are added. Spectra
        that share marginalised coefficients have a joint likelihood.
    truth : dict of str to float
        True values of a mock's parameters; empty for real data.
    options : dict of str to dict
        Options of the likelihoods that are not of spectra, including the values of their mocks.
    outside : {"raise", "nan", "allow"}
        Treatment of signal parameters outside their range: raise an InputError, return NaN, or extrapolate. ``allow``
        is used for run files with ``extrapolate: true`` and for analytic signals.
    spectra : dict of str to GlobalSignal
        Likelihoods of spectra by name, also those that are part of a joint likelihood.
    data : dict of str to Spectrum
        The spectra by their names in the run file.

    Attributes
    ----------
    names, latex : tuple of str
        Sampled parameters in the order of theta; labels of the sampled and the derived parameters.
    derived_names : tuple of str
        ``loglike_NAME`` of each likelihood, then the computed and the derived parameters of the run file.

    Notes
    -----
    Its methods are thread-safe, and it can be pickled and copied, provided that this also holds for user-defined
    likelihoods. If no parameter is sampled, ``loglikelihood(numpy.empty(0))`` gives the log-evidence.
    """

    signal: Signal
    space: ParameterSpace
    likelihoods: dict
    truth: dict
    options: dict = field(default_factory=dict)
    outside: str = "raise"
    spectra: dict = field(default_factory=dict)
    data: dict[str, Spectrum] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outside not in ("raise", "nan", "allow"):
            raise InputError(f"outside is {shown(self.outside)}; expected raise, nan or allow")
        space, own = self.space, len(self.signal.parameters)
        ranges = tuple(widened(p.min, p.max, p.log) for p in self.signal.parameters)
        # None if ranges are not checked, so that the likelihood only needs one test.
        self._ranges = None if self.outside == "allow" else ranges
        self._limits = np.array(ranges).reshape(own, 2).T
        self.prior = space.prior
        self.names, self.prior_transform = self.prior.names, self.prior.transform
        everything = self.spectra | self.likelihoods
        self._parts = {name: LikelihoodCall(name, part, self.signal, space.names) for name, part in everything.items()}
        self._calls, self._n_own = tuple(self._parts[name] for name in self.likelihoods), own
        self._joined = JoinedCalls(self._calls) if len(self.spectra) > 1 else None
        self.derived_names = (*(f"loglike_{name.replace('.', '_')}" for name in self.likelihoods), *space.derived_names)
        labels = (_SHORT.get(name, name).replace("_", r"\_") for name in self.likelihoods)
        parts = (r"\ln\mathcal{L}_\mathrm{" + label + "}" for label in labels)
        self.latex = (
            *(self.prior.latex[name] for name in self.names),
            *parts,
            *(space.latex[name] for name in space.derived_names),
        )
        self._nothing = (float("nan"),) * len(self.derived_names)
        self._kept_signal = None, None

    @property
    def spectral_likelihoods(self) -> dict:
        """Likelihoods of the spectra by name, with joint ones as a whole."""
        found = self.likelihoods.items()
        return {name: part for name, part in found if name in self.spectra or isinstance(part, JointSpectra)}

    @property
    def n_marginalised(self) -> int:
        """Number of coefficients of foregrounds that are marginalised analytically, shared ones counted once."""
        return sum(part.n_marginalised for part in self.spectral_likelihoods.values())

    @property
    def n_channels(self) -> int:
        """Number of channels of all spectra."""
        return sum(len(spectrum.frequency) for spectrum in self.data.values())

    @property
    def white_sigma(self) -> float | None:
        """Noise of each channel in mK if there is one spectrum and it is white, equal everywhere and fixed."""
        sigmas = [likelihood.white_sigma for likelihood in self.spectra.values()]
        return sigmas[0] if len(sigmas) == 1 else None

    def signal_parameters(self, theta: np.ndarray) -> np.ndarray:
        """All parameters of the signal (n_params,) from the sampled ones (n,); a new array.

        All are NaN if a computed parameter is out of range.
        """
        full = self.space.fill(theta)
        return np.full(self._n_own, np.nan) if full is None else full[: self._n_own]

    def signal_at(self, theta: np.ndarray) -> np.ndarray:
        """Signal (n_channels,) in mK for the sampled parameters (n,); a new float64 array."""
        return np.array(self.signal(self.signal_parameters(theta)), dtype=float)

    def values(self, theta: np.ndarray, name: str) -> np.ndarray:
        """Parameters of a likelihood, in its order, from the sampled ones (n,)."""
        return self._parts[name].values(self.space.complete(theta))

    def arguments(self, outputs: np.ndarray, theta: np.ndarray, name: str) -> list:
        """Arguments of a likelihood: the outputs that it needs, then its own parameters.

        Parameters
        ----------
        outputs : numpy.ndarray
            (n_out,) laid out as `Signal.layout` says.
        theta : numpy.ndarray
            (n,) sampled parameters.
        name : str
            Name of the likelihood.
        """
        part, full = self._parts[name], self.space.complete(theta)
        return [*part.arguments(outputs, full), part.values(full)]

    def loglikelihood(self, theta: np.ndarray) -> tuple[float, Sequence[float]]:
        """Ln L and the derived parameters for the sampled parameters (n,).

        Raises
        ------
        InputError
            A user-defined likelihood fails, or theta is outside the range of the signal (see `outside`).
        """
        full = self.space.fill(theta)
        if full is None:
            return -np.inf, self._nothing
        own = full[: self._n_own]
        if self.space.n_slow == len(self.names):
            if self._ranges is not None and not self._is_inside(own):
                return float("nan"), self._nothing
            return self._evaluate(self.signal.outputs(own), full)
        # A step in the fast parameters does not change the signal.
        wanted = own.tobytes()
        key, outputs = self._kept_signal
        if key != wanted:
            if self._ranges is not None and not self._is_inside(own):
                return float("nan"), self._nothing
            outputs = self.signal.outputs(own).copy()
            # A single assignment, so that another thread sees either the old or the new pair.
            self._kept_signal = wanted, outputs
        return self._evaluate(outputs, full)

    def _is_inside(self, own: np.ndarray) -> bool:
        """Whether the parameters of the signal (n_params,) are in range; raises an InputError if `outside` says so."""
        for value, (low, high) in zip(own.tolist(), self._ranges):
            if not low <= value <= high:
                break
        else:
            return True
        if self.outside == "nan":
            return False
        said = describe_outside(self.signal.parameters, own)
        raise InputError(f'{self.signal.name}: {said}; build the problem with extrapolate: true, or outside="nan"')

    @overload
    def loglikelihood_batch(self, theta: ArrayLike, return_derived: Literal[False] = False) -> np.ndarray: ...

    @overload
    def loglikelihood_batch(self, theta: ArrayLike, return_derived: Literal[True]) -> tuple[np.ndarray, np.ndarray]: ...

    def loglikelihood_batch(
        self, theta: ArrayLike, return_derived: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Ln L of many points, with signals and likelihoods in batches: faster than single calls, and on all cores.

        Parameters
        ----------
        theta : array_like or pandas.DataFrame
            (n, n_params) sampled parameters in the order of `names`, or a table with columns of these names.
        return_derived : bool
            Whether to return the derived parameters as well.

        Returns
        -------
        logL : numpy.ndarray
            (n,). It is -inf where a computed parameter is out of range, and NaN where a parameter is outside the range
            of the signal and `outside` is ``nan``.
        derived : numpy.ndarray
            (n, n_derived), only with `return_derived`; NaN in these two cases.

        Raises
        ------
        InputError
            theta has another shape, or as for `loglikelihood`.
        """
        theta = to_array_of(theta, self.names)
        if theta.ndim != 2:
            raise InputError(
                f"theta is one point; expected (n, {len(self.names)}) numbers, or use loglikelihood(theta)"
            )
        values = np.full(len(theta), -np.inf)
        derived = np.full((len(theta), len(self.derived_names)), np.nan)
        for first in range(0, len(theta), BATCH):
            part = slice(first, first + BATCH)
            self._evaluate_batch(theta[part], values[part], derived[part])
        return (values, derived) if return_derived else values

    def _evaluate_batch(self, theta: np.ndarray, values: np.ndarray, derived: np.ndarray) -> None:
        """Write ln L (n,) and the derived parameters (n, n_derived) of points (n, n_params)."""
        full, good = self.space.fill_batch(theta)
        own = full[:, : self._n_own]
        if self._ranges is not None:
            low, high = self._limits
            for i in np.flatnonzero(good & ~((own >= low) & (own <= high)).all(axis=1)):
                good[i] = self._is_inside(own[i])
                values[i] = np.nan
        if not good.any():
            return
        if not good.all():
            full, own = full[good], own[good]
        outputs = self.signal.batch(own)
        outputs.flags.writeable = False
        parts = [part.batch(outputs, full) for part in self._calls]
        values[good] = sum(parts)
        columns = [self.space.columns(row) for row in full]
        derived[good] = np.column_stack([*parts, np.array(columns).reshape(len(full), -1)])

    def loglikelihood_of(self, outputs: np.ndarray, theta: np.ndarray) -> float:
        """Ln L for given outputs, such as those of a simulator, instead of the outputs of the signal.

        Parameters
        ----------
        outputs : numpy.ndarray
            (n_out,) laid out as `Signal.layout` says.
        theta : numpy.ndarray
            (n,) sampled parameters.
        """
        full = self.space.fill(theta)
        return -np.inf if full is None else self._evaluate(outputs, full)[0]

    def _evaluate(self, outputs: np.ndarray, full: np.ndarray) -> tuple[float, tuple[float, ...]]:
        # Read-only, because other likelihoods and the next call with the same signal use the same array.
        outputs = outputs.view()
        outputs.flags.writeable = False
        parts = self._joined(outputs, full) if self._joined else [part(outputs, full) for part in self._calls]
        total = sum(parts)
        return total, (*parts, *self.space.columns(full))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kept_signal": (None, None)}


_SHORT = {"global_signal": "21cm", "planck_tau": r"\tau", "uvlf_bouwens2015": "UVLF", "uvlf_bouwens2021": "UVLF"}


def build(config: RunConfig, spectra: Mapping[str, Spectrum] | None = None) -> Problem:
    """Build everything that a run file describes.

    Parameters
    ----------
    config : RunConfig
        A validated run file.
    spectra : mapping of str to Spectrum, optional
        The data by the names of their spectra, if they have already been created or read.

    Returns
    -------
    Problem

    Raises
    ------
    InputError
        The run file is inconsistent with the emulator, the data or itself.
    """
    uses = find_uses(config)
    signal = make_signal(config)
    data = make_data(config, signal) if spectra is None else dict(spectra)
    if config.signal is not None and data:
        signal = make_signal(config, np.unique(np.concatenate([spectrum.frequency for spectrum in data.values()])))
    options = {name: block for name, block in config.others.items() if name not in uses}
    likelihoods, names = make_likelihoods(config, signal, data, uses)
    members = {name: likelihoods[name] for name in uses}
    truth = true_parameters(config, signal, uses, names)
    _check_outputs(signal, likelihoods, config.signal is not None)
    _make_mocks(config, signal, likelihoods, options, truth)
    likelihoods = join(likelihoods, names)
    for likelihood in likelihoods.values():
        if isinstance(likelihood, JointSpectra):
            members |= likelihood.members
    plain = {n for name, use in uses.items() if use.label is not None for given, n in names[name].items() if given == n}
    space = make_space(config, signal, likelihoods, plain)
    _check_truth(space, truth)
    for name, likelihood in members.items():
        with naming(f"likelihood.{name}", f"likelihood.{class_of(name, config.likelihood[name])}"):
            _check_noise(space, likelihood)
    outside = "allow" if config.extrapolate or config.signal is not None else "raise"
    return Problem(signal, space, likelihoods, truth, options, outside, members, data)


def make_likelihoods(
    config: RunConfig, signal: Signal, data: Mapping[str, Spectrum], uses: dict[str, Use]
) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Build the likelihoods of a run file, with the names that their parameters have in the run.

    Parameters
    ----------
    config : RunConfig
        A validated run file.
    signal : Signal
        The signal, whose grid, outputs and emulator error they use.
    data : mapping of str to Spectrum
        The data by the names of their spectra.
    uses : dict of str to Use
        Result of `lstmfit.spectra.find_uses`.

    Returns
    -------
    likelihoods : dict of str to Likelihood
        By name; not yet joined by shared coefficients (`lstmfit.spectra.join`).
    names : dict of str to dict of str to str
        Result of `lstmfit.spectra.name_parameters`.
    """
    covariance = None if signal.emulator is None else signal.emulator.error_covariance
    likelihoods = {}
    for name, block in config.likelihood.items():
        if isinstance(block, dict):
            block = {key: value for key, value in block.items() if key not in _KEYS_OF[name in uses]}
        spectrum = data[uses[name].data] if name in uses else None
        with naming(f"likelihood.{name}", f"likelihood.{class_of(name, config.likelihood[name])}"):
            likelihoods[name] = make_likelihood(
                name, signal.redshifts, block, spectrum, covariance, signal.layout, SpectrumEmulator
            )
    names = name_parameters(likelihoods, uses)
    for name, use in uses.items():
        rename(likelihoods[name], names[name], use.label)
    return likelihoods, names


_KEYS_OF = {False: ("mock",), True: ("data", "shared")}
"""Keys of a likelihood's options that are not passed to its class, by whether it is one of a spectrum."""


def _check_noise(space: ParameterSpace, likelihood: Any) -> None:
    """Warn if data and noise seem to be in different units."""
    sigma = likelihood.noise.sigma
    if sigma is None:
        name = likelihood.names[0]
        distribution = space.prior.distributions.get(name)
        sigma = space.fixed.get(name) if distribution is None else distribution.support
    if sigma is not None:
        likelihood.check_scale(np.maximum(sigma, 0.0))


def _check_truth(space: ParameterSpace, truth: dict[str, float]) -> None:
    """Warn about true values of a mock that the fit cannot recover, which is usually a mistake."""
    for name, value in truth.items():
        distribution = space.prior.distributions.get(name)
        if distribution is not None:
            low, high = distribution.support
            if not is_inside(value, low, high, distribution.log):
                warnings.warn(f"the mock's {name} {value:g} is outside its prior {low:g}..{high:g}", stacklevel=3)
        elif name in space.fixed and not np.isclose(space.fixed[name], value, rtol=1e-9, atol=0.0):
            warnings.warn(f"the mock's {name} is {value:g}, but it is fixed at {space.fixed[name]:g}", stacklevel=3)


def _check_outputs(signal: Signal, likelihoods: dict, formula: dict) -> None:
    # Only parameters of physical models may replace outputs: tau of an analytic formula is not the optical depth.
    parameters = [] if formula else [p.name for p in signal.parameters]
    for name, likelihood in likelihoods.items():
        for output in likelihood.outputs:
            if output in signal.layout and output in parameters:
                raise InputError(f"{signal.name} has {output} both as a parameter and as an output; rename one of them")
            if output not in signal.layout and output not in parameters:
                raise InputError(
                    f"likelihood.{name} needs {output}, which {signal.name} does not give "
                    f"(outputs {', '.join(signal.layout)}); remove the likelihood or use an emulator with this output"
                )


def _make_mocks(config: RunConfig, signal: Signal, likelihoods: dict, options: dict, truth: dict[str, float]) -> None:
    """Replace likelihoods with the option ``mock`` by mocks at the true parameters, and update their options."""
    wanted = {name: given["mock"] for name, given in options.items() if given.get("mock") is not None}
    if not any(wanted.values()):
        for name in wanted:
            options[name] = {key: value for key, value in options[name].items() if key != "mock"}
        return
    mock = mock_of(config)
    if mock is None:
        raise InputError(f"likelihood.{next(iter(wanted))}: mock needs the true parameters, but data is not a mock")
    theta = true_theta(config, signal)
    if mock.source == "emulator" or config.simulator is not None:
        outputs = np.array(signal.outputs(theta), dtype=float)
    else:
        outputs = signal.layout.pack(simulate_truth(config, signal))
    truth = truth | {name: block.value for name, block in config.params.items() if isinstance(block.value, float)}
    for name, choice in wanted.items():
        given = {key: value for key, value in options[name].items() if key != "mock"}
        if choice:
            likelihood = likelihoods[name]
            if not hasattr(likelihood, "mocked"):
                raise InputError(f"likelihood.{name} cannot make a mock of itself; leave mock out")
            needed = [*likelihood.names, *(o for o in likelihood.outputs if o not in signal.layout)]
            unknown = [n for n in needed if n not in truth]
            if unknown:
                raise InputError(f"likelihood.{name}: mock needs the true {unknown[0]}; fix it: {unknown[0]}: VALUE")
            arguments = [outputs[signal.layout[o]] if o in signal.layout else truth[o] for o in likelihood.outputs]
            arguments.append(np.array([truth[n] for n in likelihood.names]))
            given |= likelihood.mocked(arguments, _mock_generator(name, choice))
            likelihoods[name] = make_likelihood(name, signal.redshifts, given, layout=signal.layout)
        options[name] = given


def _mock_generator(name: str, choice: Any) -> np.random.Generator | None:
    """None for a mock without noise (``mock: true``), else a generator from ``mock: {seed: N}``."""
    if choice is True:
        return None
    if isinstance(choice, dict) and set(choice) == {"seed"} and type(choice["seed"]) is int:
        return np.random.default_rng(choice["seed"])
    raise InputError(f"likelihood.{name}: mock is {choice!r}; give true (no noise) or {{seed: 1}} (noise from a seed)")
