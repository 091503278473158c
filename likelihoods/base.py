"""What a likelihood is, and how one is found by name."""

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
"""Likelihoods that ship, by the name that run files use."""


class Likelihood(Protocol):
    """A likelihood: built once, called some hundred thousand times.

    Its defaults lie in a ``.yaml`` beside its module, its references in a ``.bib``.

    Attributes
    ----------
    outputs : tuple of str
        What it needs of the model: ``signal`` (n_channels,) mK, ``x_HI`` (n_channels,), ``tau``. Where the model has
        no such output but a parameter of that name (the tau of 21cmGEM), it gets the parameter.
    names : tuple of str
        Parameters that it takes; those of the model and of other likelihoods are shared by name.
    params : dict of str to dict
        ``prior`` and ``latex`` of those that it brings itself; may be empty.

    Notes
    -----
    It is built by ``cls(redshifts, **options)`` with the model's redshifts (n_channels,) and the run file's options
    (and ``layout``, the `lstmfit.outputs.OutputLayout` of the model, if it takes an argument of that name),
    and called as ``likelihood(*outputs, values)``, values being (len(names),) float64; what it is handed it must not
    change. ``mocked(arguments, rng)`` may give the options of a mock: see `lstmfit.likelihoods.planck_tau`.
    The likelihood of a spectrum is built by ``cls.from_options(options, spectrum, redshifts, signal_covariance)``: see
    `lstmfit.likelihoods.global_signal.GlobalSignal`.
    """

    outputs: tuple[str, ...]
    names: tuple[str, ...]
    params: dict[str, dict]

    def __call__(self, *arguments) -> float:
        """Log likelihood, normalised over the data."""
        ...


def read_defaults(name: str, package: str = "lstmfit.likelihoods") -> dict:
    """Content of the ``.yaml`` that lies beside a likelihood's module."""
    text = resources.files(package).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse_yaml(text, f"{name}.yaml")


def with_defaults(name: str, options: dict) -> dict:
    """Options of a likelihood with the defaults of one that ships written out; others know their own.

    The block of ``global_signal`` has been validated with the run file, and its defaults are in it.
    """
    return (read_defaults(name) if name in LIKELIHOODS and name != "global_signal" else {}) | options


def read_options(name: str, block: type[Block], options: dict):
    """Options of a likelihood that ships: its defaults, overridden by a run file's, validated.

    Parameters
    ----------
    name : str
        Of the likelihood and of the ``.yaml`` with its defaults.
    block : type
        The schema.
    options : dict
        Of the run file.

    Returns
    -------
    Block
        An instance of `block`.

    Raises
    ------
    InputError
        An option that it does not have, or a value that it cannot have.
    """
    defaults = read_defaults(name)
    for key in options:
        if key not in defaults:
            hint = did_you_mean(key, defaults, "its options are")
            raise InputError(f"likelihood.{name}: unknown option {shown(key)}; {hint}")
    try:
        return block.model_validate(defaults | options)
    except ValidationError as error:
        raise InputError(f"likelihood.{name}.{first_mistake(error)}") from None


def find_likelihood(name: str):
    """Class of a likelihood, by the name of a shipped one or by the dotted path of your own.

    Parameters
    ----------
    name : str
        A name in `LIKELIHOODS`, or ``package.module.Class`` or ``package.module:Class``.

    Raises
    ------
    InputError
        Unknown name, no such module, or no such class in it.
    """
    target = LIKELIHOODS.get(name, name)
    if not is_dotted(target):
        hint = did_you_mean(name, LIKELIHOODS)
        raise InputError(f'likelihood: unknown {shown(name)}; {hint}; your own is written "package.module.Class"')
    found = import_dotted(target, "likelihood")
    if not callable(found):
        raise InputError(f"likelihood {name} is {shown(found)}; a class is needed, see docs/likelihoods.md")
    return found


def make_likelihood(name: str, redshifts: np.ndarray, options, spectrum=None, signal_covariance=None, layout=None):
    """Build a likelihood by name with the options of a run file.

    Parameters
    ----------
    name : str
        As for `find_likelihood`.
    redshifts : numpy.ndarray
        (n_channels,) the model's grid.
    options : dict or Block
        Its options.
    layout : OutputLayout, optional
        What the model gives, for likelihoods that ask for it.
    spectrum, signal_covariance : optional
        Data, and covariance of the emulator's error, for a likelihood of a spectrum: one with ``from_options``.

    Raises
    ------
    InputError
        As `find_likelihood`, options that it does not take, or what is built is not a likelihood.
    """
    found = find_likelihood(name)
    if hasattr(found, "from_options"):
        return found.from_options(options, spectrum, redshifts, signal_covariance)
    try:
        if "layout" in inspect.signature(found).parameters and "layout" not in options:
            options = options | {"layout": layout}
        inspect.signature(found).bind(redshifts, **options)
    except TypeError as error:
        raise InputError(f"likelihood {name}: {error}; its options are {inspect.signature(found)}") from None
    except ValueError:
        # Compiled classes have no signature to look at.
        pass
    try:
        likelihood = found(redshifts, **options)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"likelihood {name}: {error}; install what is missing") from error
    except Exception as error:
        # A ValueError is the user's mistake in words; anything else a mistake in the class.
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise InputError(f"likelihood {name}: {kind}{error}") from error
    missing = [what for what in ("outputs", "names") if not hasattr(likelihood, what)]
    if missing or not callable(likelihood):
        raise InputError(
            f"likelihood {name} lacks {', '.join(missing) or '__call__'}; see docs/likelihoods.md for what is needed"
        )
    for what in ("outputs", "names"):
        value = getattr(likelihood, what)
        if isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise InputError(f'likelihood {name}: {what} is {shown(value)}; give a tuple of names, such as ("tau",)')
    return likelihood
