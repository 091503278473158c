"""Protocol of a likelihood, and how likelihoods are found by name and built."""

import inspect
from importlib import resources
from typing import Protocol

import numpy as np
from pydantic import ValidationError

from lstmfit.errors import InputError, did_you_mean
from lstmfit.plugins import import_dotted, is_dotted
from lstmfit.schema import Block, first_mistake, shown
from lstmfit.yaml_files import parse_yaml

LIKELIHOODS = {
    "global_signal": "lstmfit.likelihoods.global_signal:GlobalSignal",
    "planck_tau": "lstmfit.likelihoods.planck_tau:PlanckTau",
    "x_HI": "lstmfit.likelihoods.x_HI:NeutralFraction",
    "uvlf_bouwens2015": "lstmfit.likelihoods.uvlf_bouwens2015:UVLFBouwens2015",
    "uvlf_bouwens2021": "lstmfit.likelihoods.uvlf_bouwens2021:UVLFBouwens2021",
}
"""Dotted paths of the shipped likelihoods, by their names in run files."""


class Likelihood(Protocol):
    """A likelihood: built once, called several hundred thousand times.

    Its defaults are in a ``.yaml`` next to its module, its references in a ``.bib``.

    Attributes
    ----------
    outputs : tuple of str
        Outputs of the model that it needs: ``signal`` (n_channels,) mK, ``x_HI`` (n_channels,), ``tau``. If the model
        has no such output but a parameter of that name (tau of 21cmGEM), the parameter is passed.
    names : tuple of str
        Parameters that it takes; those of the model and of other likelihoods are shared by name.
    params : dict of str to dict
        ``prior`` and ``latex`` of the parameters that it adds; may be empty.

    Notes
    -----
    It is built by ``cls(redshifts, **options)`` with the model's redshifts (n_channels,) and the options of the run
    file (and with ``layout``, the `lstmfit.outputs.OutputLayout` of the model, if it has an argument of that name). It
    is called as ``likelihood(*outputs, values)`` with values (len(names),) float64, and must not modify its arguments.
    ``loglikelihood_batch(*outputs, values)`` may evaluate m points, with each argument (m, ...), and returns (m,); a
    derived class does not inherit it.
    ``mocked(arguments, rng)`` may return the options of a mock: see `lstmfit.likelihoods.planck_tau`. A class with the
    method ``from_options(options, spectrum, redshifts, signal_covariance)`` is the likelihood of a spectrum and is
    built by it. It must have what `lstmfit.likelihoods.global_signal.GlobalSignal` has, from which it may be derived.
    """

    outputs: tuple[str, ...]
    names: tuple[str, ...]
    params: dict[str, dict]

    def __call__(self, *arguments) -> float:
        """Log likelihood, normalised over the data."""
        ...


def read_defaults(name: str, package: str = "lstmfit.likelihoods") -> dict:
    """Content of the ``.yaml`` next to a likelihood's module."""
    text = resources.files(package).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse_yaml(text, f"{name}.yaml")


def class_of(name: str, options) -> str:
    """Class of a likelihood in a run file: its ``class:``, or the name of its block.

    Parameters
    ----------
    name : str
        Name of the block.
    options : dict or Block
        Its content.
    """
    given = options.get("class") if isinstance(options, dict) else options.class_
    return name if given is None else given


def in_common(one: dict, other: dict) -> dict:
    """Entry of ``params`` for a parameter that two likelihoods share: the first, without its prior if they differ."""
    if one.get("prior") == other.get("prior"):
        return one
    return {key: value for key, value in one.items() if key != "prior"}


def with_defaults(name: str, options: dict) -> dict:
    """Options of a likelihood, including the defaults of a shipped one; other classes have their own defaults."""
    of = class_of(name, options)
    return (read_defaults(of) if of in LIKELIHOODS else {}) | options


def read_options(name: str, block: type[Block], options: dict):
    """Validated options of a shipped likelihood: its defaults, updated with those of a run file.

    Parameters
    ----------
    name : str
        Name of the likelihood and of the ``.yaml`` with its defaults.
    block : type
        Class that validates the options.
    options : dict
        Options from the run file.

    Returns
    -------
    Block
        An instance of `block`.

    Raises
    ------
    InputError
        An option is unknown, or its value is invalid.
    """
    defaults = read_defaults(name)
    for key in options:
        if key not in defaults:
            hint = did_you_mean(key, defaults, "options are")
            raise InputError(f"likelihood.{name}: unknown option {shown(key)}; {hint}")
    try:
        return block.model_validate(defaults | options)
    except ValidationError as error:
        raise InputError(f"likelihood.{name}.{first_mistake(error)}") from None


def find_likelihood(name: str):
    """Class of a likelihood, given the name of a shipped one or the dotted path of your own.

    Parameters
    ----------
    name : str
        A name in `LIKELIHOODS`, or ``package.module.Class`` or ``package.module:Class``.

    Raises
    ------
    InputError
        The name is unknown, or there is no such module or class.
    """
    target = LIKELIHOODS.get(name, name)
    if not is_dotted(target):
        hint = did_you_mean(name, LIKELIHOODS)
        raise InputError(f'likelihood: unknown {shown(name)}; {hint}; for your own, give "package.module.Class"')
    found = import_dotted(target, "likelihood")
    if not callable(found):
        raise InputError(f"likelihood {name} is {shown(found)}, but must be a class; see docs/likelihoods.md")
    return found


def make_likelihood(
    name: str,
    redshifts: np.ndarray,
    options,
    spectrum=None,
    signal_covariance=None,
    layout=None,
    load_emulator=None,
):
    """Build a likelihood by name with the options of a run file.

    Parameters
    ----------
    name : str
        Name of its block in the run file.
    redshifts : numpy.ndarray
        (n_channels,) redshift grid of the model.
    options : dict or Block
        Options of the likelihood; its class is `class_of` them.
    layout : OutputLayout, optional
        Outputs of the model, for likelihoods with an argument of that name.
    spectrum, signal_covariance : optional
        Data, and covariance of the emulator error, for the likelihood of a spectrum, i.e. one with ``from_options``.
    load_emulator : callable, optional
        Function that loads an emulated foreground, for a ``from_options`` with an argument of that name.

    Raises
    ------
    InputError
        As `find_likelihood`; also if an option is not accepted, or if the object is not a likelihood.
    """
    found = find_likelihood(class_of(name, options))
    if isinstance(options, dict):
        options = {key: value for key, value in options.items() if key != "class"}
    if hasattr(found, "from_options"):
        takes = inspect.signature(found.from_options).parameters
        loader = {"load_emulator": load_emulator} if "load_emulator" in takes else {}
        return found.from_options(options, spectrum, redshifts, signal_covariance, **loader)
    try:
        if "layout" in inspect.signature(found).parameters and "layout" not in options:
            options = options | {"layout": layout}
        inspect.signature(found).bind(redshifts, **options)
    except TypeError as error:
        raise InputError(f"likelihood {name}: {error}; its options are {inspect.signature(found)}") from None
    except ValueError:
        # Compiled classes may have no signature.
        pass
    try:
        likelihood = found(redshifts, **options)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"likelihood {name}: {error}; install the missing package") from error
    except Exception as error:
        # A ValueError describes a mistake of the user; anything else is a bug in the class.
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise InputError(f"likelihood {name}: {kind}{error}") from error
    missing = [what for what in ("outputs", "names") if not hasattr(likelihood, what)]
    if missing or not callable(likelihood):
        raise InputError(
            f"likelihood {name} lacks {', '.join(missing) or '__call__'}; see docs/likelihoods.md for what is required"
        )
    for what in ("outputs", "names"):
        value = getattr(likelihood, what)
        if isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise InputError(f'likelihood {name}: {what} is {shown(value)}; give a tuple of names, such as ("tau",)')
    return likelihood
