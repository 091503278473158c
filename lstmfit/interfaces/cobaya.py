"""Components for Cobaya: the signal as a Theory, and the likelihoods.

In a Cobaya input they are named by their dotted paths, such as ``lstmfit.interfaces.cobaya.Signal``. `lstmfit cobaya`
writes the input of a run file. The defaults of a class are in the ``.yaml`` of its name, which ``cobaya-doc`` prints.
"""

from importlib import resources
from typing import ClassVar

import numpy as np
from cobaya.likelihood import Likelihood
from cobaya.log import LoggedError
from cobaya.theory import Theory

from lstmfit.config import UNNAMED, validate
from lstmfit.data import read_data
from lstmfit.interfaces.cobaya_params import cobaya_params
from lstmfit.likelihoods.base import make_likelihood, read_defaults
from lstmfit.parameters import widened
from lstmfit.problem import make_likelihoods
from lstmfit.signal_functions import make_signal
from lstmfit.spectra import find_uses, join, rename

OUTPUTS = "outputs_21cm"
"""Cobaya's name of the outputs of the signal, see `Signal.get_outputs_21cm`."""
_ANYTHING = {"likelihood": {"planck_tau": {}}}
"""A likelihood, since a run file must have one."""


class Signal(Theory):
    """Global 21-cm signal with all outputs of an emulator or a simulator.

    Its input parameters are those of the emulator. Numbers among its outputs, such as the optical depth ``tau``, are
    derived parameters.

    Parameters
    ----------
    emulator, simulator, signal, extrapolate
        As in a run file of lstmfit; one of the first three.

    Attributes
    ----------
    function : lstmfit.signal_functions.Signal
        The signal, which also knows its redshifts and parameters.
    """

    emulator: object
    simulator: object
    signal: object
    extrapolate: bool

    @classmethod
    def get_modified_defaults(cls, defaults, input_options=None):
        """Defaults with the parameters of the emulator and the priors over its training range."""
        options = {key: (input_options or {}).get(key, defaults.get(key)) for key in _SIGNAL_KEYS}
        if any(options[key] is not None for key in _SIGNAL_KEYS[:3]):
            params = cobaya_params({p.name: p for p in make_signal(_config_of(options)).parameters})
            defaults = defaults | {"params": params | (defaults.get("params") or {})}
        return defaults

    def initialize(self):
        """Load the emulator."""
        self._config = _config_of({key: getattr(self, key) for key in _SIGNAL_KEYS})
        self._frequencies: list[np.ndarray] = []
        self._use(make_signal(self._config))

    def _use(self, function):
        self.function = function
        self._names = tuple(p.name for p in function.parameters)
        check = not self.extrapolate and self._config.signal is None
        self._limits = [widened(p.min, p.max, p.log) for p in function.parameters] if check else None
        self._scalars = [(name, function.layout[name]) for name in function.layout.scalars]

    def get_requirements(self):
        """Parameters of the signal."""
        return dict.fromkeys(self._names)

    def get_can_provide_params(self):
        """Numbers among the outputs."""
        return [name for name, _ in self._scalars]

    def must_provide(self, **requirements):
        """Collect the channels of the data, which are the grid of an analytic signal."""
        super().must_provide(**requirements)
        for options in requirements.values():
            if isinstance(options, dict) and options.get("frequency") is not None:
                self._frequencies.append(np.asarray(options["frequency"], dtype=float))
        if self._config.signal is not None and self._frequencies:
            self._use(make_signal(self._config, np.unique(np.concatenate(self._frequencies))))

    def calculate(self, state, want_derived=True, **params):
        """Evaluate the signal; outside the training range the likelihood is zero."""
        theta = np.array([params[name] for name in self._names])
        if self._limits is not None:
            for value, (low, high) in zip(theta.tolist(), self._limits):
                if not low <= value <= high:
                    return False
        outputs = np.array(self.function.outputs(theta), dtype=float)
        if not np.isfinite(outputs).all():
            return False
        outputs.flags.writeable = False
        state[OUTPUTS] = outputs
        if want_derived:
            state["derived"] = {name: float(outputs[where]) for name, where in self._scalars}
        return True

    def get_outputs_21cm(self) -> np.ndarray:
        """All outputs (n_out,), laid out as ``function.layout`` says; read-only."""
        return self.current_state[OUTPUTS]

    def get_signal_21cm(self) -> np.ndarray:
        """Signal (n_channels,) in mK at ``function.redshifts``, ascending; read-only."""
        return self.current_state[OUTPUTS][self.function.layout["signal"]]


_SIGNAL_KEYS = ("emulator", "simulator", "signal", "extrapolate")


def _config_of(options):
    return validate({key: value for key, value in options.items() if value is not None} | _ANYTHING, "Signal")


class _FromSignal(Likelihood):
    """A likelihood of lstmfit that takes outputs of `Signal` and parameters of its own.

    Parameters
    ----------
    without_signal : bool
        Whether there is no signal: ``signal: none`` of a run file, which Cobaya cannot have as a Theory.
    """

    without_signal: bool = False
    _files: ClassVar[dict[str, str]] = {}
    """Files of `lstmfit.likelihoods` that take the place of the ``.yaml`` and ``.bibtex`` of the class."""

    @classmethod
    def get_associated_file_content(cls, ext, file_root=None):
        """Content of the defaults or of the references."""
        if ext in cls._files:
            return resources.files("lstmfit.likelihoods").joinpath(cls._files[ext]).read_text(encoding="utf-8")
        return super().get_associated_file_content(ext, file_root)

    def initialize(self):
        """Read the data, and find the names of the parameters."""
        self._likelihood = None
        self._provisional = self.build(None)
        self._names = tuple(self._provisional.names)
        self._outputs = tuple(self._provisional.outputs)

    def build(self, function):
        """Build the likelihood for a signal, or for an unknown one if it is None."""
        raise NotImplementedError

    @property
    def frequency(self):
        """Channels (n,) in MHz at which the signal is needed; None if it is needed on its own grid."""
        return None

    def get_requirements(self):
        """Outputs of the signal, and parameters."""
        needed = {} if self.without_signal else {OUTPUTS: {"frequency": self.frequency}}
        return needed | dict.fromkeys(self._names)

    def _prepare(self):
        if self.without_signal:
            function = make_signal(_config_of({"signal": "none"}), self.frequency)
            self._likelihood, self._nothing = self.build(function), function.outputs(np.empty(0))
            return
        theory = self.provider.requirement_providers[OUTPUTS]
        function, layout = theory.function, theory.function.layout
        likelihood = self.build(function)
        missing = [name for name in likelihood.outputs if name not in layout and name not in theory.input_params]
        if missing:
            raise LoggedError(
                self.log,
                f"{self.get_name()} needs {missing[0]}, which {function.name} does not give (outputs "
                f"{', '.join(layout)}); use an emulator with this output, or remove the likelihood",
            )
        self._arguments = [
            (layout[name], None) if name in layout else (None, theory.input_params.index(name))
            for name in likelihood.outputs
        ]
        self._likelihood = likelihood

    def logp(self, _derived=None, **params):
        """Log likelihood."""
        if self._likelihood is None:
            self._prepare()
        if self.without_signal:
            arguments = [self._nothing] * len(self._outputs)
        else:
            outputs = self.provider.get_outputs_21cm()
            arguments = [
                outputs[where] if at is None else self.provider.get_param(name)
                for (where, at), name in zip(self._arguments, self._outputs)
            ]
        value = self._likelihood(*arguments, np.array([params[name] for name in self._names]))
        return float(value)


class GlobalSignal(_FromSignal):
    """Likelihood of one spectrum, with the options of ``global_signal`` in a run file.

    Parameters
    ----------
    data : dict
        Block ``data`` of a run file; not a mock.
    noise, foreground, systematics, emulator_error
        As in a run file.
    label : str, optional
        What is appended to the names of its parameters, ``sigma_lst1``, if there are several spectra.
    shared : list of str
        Parameters that keep their plain names, as they are shared with other spectra.
    """

    data: object
    noise: object
    foreground: object
    systematics: object
    emulator_error: object
    label: object
    shared: object
    _files: ClassVar[dict[str, str]] = {".bibtex": "global_signal.bib"}

    @classmethod
    def get_modified_defaults(cls, defaults, input_options=None):
        """Defaults with the parameters of noise and foreground and their priors."""
        options = dict(defaults) | dict(input_options or {})
        if options.get("data") is None:
            return defaults
        likelihood = _likelihood_of(options)
        return defaults | {"params": cobaya_params(likelihood.params) | (defaults.get("params") or {})}

    def build(self, function):
        """As `_FromSignal.build`."""
        keys = ("data", "noise", "foreground", "systematics", "emulator_error", "label", "shared")
        return _likelihood_of({key: getattr(self, key) for key in keys}, function)

    @property
    def frequency(self):
        """As `_FromSignal.frequency`."""
        return self._provisional.spectrum.frequency


class Spectra(_FromSignal):
    """Likelihood of several spectra that share coefficients of a marginalised foreground.

    Parameters
    ----------
    data, likelihood : dict
        Blocks of a run file with the spectra and their likelihoods only.
    """

    data: object
    likelihood: object
    _files: ClassVar[dict[str, str]] = {".bibtex": "global_signal.bib"}

    def build(self, function):
        """As `_FromSignal.build`."""
        config = _spectra_config({"data": self.data, "likelihood": self.likelihood})
        data = {name: read_data(block) for name, block in config.data.items()}
        self._frequency = np.unique(np.concatenate([spectrum.frequency for spectrum in data.values()]))
        if function is None:
            function, config = make_signal(config, self._frequency), _without_emulator_error(config)
        return _Sum(join(*make_likelihoods(config, function, data, find_uses(config))))

    @property
    def frequency(self):
        """As `_FromSignal.frequency`."""
        return self._frequency


class _Sum:
    """Sum of log-likelihoods that need the signal only."""

    outputs = ("signal",)

    def __init__(self, parts):
        self.names = tuple(dict.fromkeys(name for part in parts.values() for name in part.names))
        self._parts = [(part, [self.names.index(name) for name in part.names]) for part in parts.values()]

    def __call__(self, signal, values):
        return sum(part(signal, values[at]) for part, at in self._parts)


def _spectra_config(content):
    return validate({"signal": "flattened_gaussian"} | content, "likelihood")


def _without_emulator_error(config):
    """Copy without the emulator error, which only the signal knows."""
    return config.model_copy(update={"likelihood": config.with_spectrum_blocks(emulator_error=False)})


def _likelihood_of(options, function=None):
    """Likelihood of one spectrum, for a signal or an unknown one."""
    block = {key: options[key] for key in ("noise", "foreground", "systematics", "emulator_error")}
    block = {key: value for key, value in block.items() if value is not None}
    config = _spectra_config({"data": options["data"], "likelihood": {UNNAMED: block}})
    data = read_data(config.data[UNNAMED])
    if function is None:
        function, config = make_signal(config, data.frequency), _without_emulator_error(config)
    found = make_likelihoods(config, function, {UNNAMED: data}, find_uses(config))[0][UNNAMED]
    label, shared = options.get("label"), options.get("shared") or ()
    if label is not None:
        rename(found, {name: name if name in shared else f"{name}_{label}" for name in found.params}, label)
    return found


class _Complementary(_FromSignal):
    """A likelihood of other data."""

    of: object = None

    def built(self, likelihood, options, function):
        """Build a likelihood by name or dotted path."""
        if function is None:
            function = make_signal(_config_of(self.of or {"signal": "flattened_gaussian"}))
        return make_likelihood(likelihood, function.redshifts, options, layout=function.layout)


class _Shipped(_Complementary):
    """A likelihood of other data that ships with lstmfit.

    Its options and their defaults are those of the run file. `of` is the block of the `Signal` (such as ``{emulator:
    21cmfast}``); it is needed if the parameters of the likelihood depend on the outputs of the signal.
    """

    _shipped: ClassVar[str] = ""

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        cls._files = {".yaml": f"{cls._shipped}.yaml", ".bibtex": f"{cls._shipped}.bib"}

    def build(self, function):
        """As `_FromSignal.build`."""
        options = {key: getattr(self, key) for key in read_defaults(self._shipped)}
        return self.built(self._shipped, options, function)


class PlanckTau(_Shipped):
    """Optical depth of the cosmic microwave background; see `lstmfit.likelihoods.planck_tau`."""

    _shipped = "planck_tau"


class NeutralFraction(_Shipped):
    """Neutral fraction of hydrogen; see `lstmfit.likelihoods.x_HI`."""

    _shipped = "x_HI"


class UVLFBouwens2015(_Shipped):
    """UV luminosity functions of Bouwens et al. (2015); see `lstmfit.likelihoods.uvlf_bouwens2015`."""

    _shipped = "uvlf_bouwens2015"


class UVLFBouwens2021(_Shipped):
    """UV luminosity functions of Bouwens et al. (2021); see `lstmfit.likelihoods.uvlf_bouwens2021`."""

    _shipped = "uvlf_bouwens2021"


class Own(_Complementary):
    """A likelihood of your own.

    Parameters
    ----------
    likelihood : str
        Its dotted path, as in a run file.
    options : dict
        Its options.
    of : dict, optional
        Block of the `Signal`, if its parameters depend on the outputs of the signal.
    """

    likelihood: object
    options: object

    def build(self, function):
        """As `_FromSignal.build`."""
        return self.built(str(self.likelihood), dict(self.options or {}), function)
