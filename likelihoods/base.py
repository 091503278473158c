"""What a likelihood is, and how one is found by name."""

import importlib
import inspect
from importlib import resources
from typing import Protocol

import numpy as np
import yaml

from lstmfit.errors import InputError, did_you_mean

LIKELIHOODS = {
    "planck_tau": "lstmfit.likelihoods.planck_tau:PlanckTau",
    "x_HI": "lstmfit.likelihoods.x_HI:NeutralFraction",
    "uvlf_bouwens2015": "lstmfit.likelihoods.uvlf_bouwens2015:UVLFBouwens2015",
    "uvlf_bouwens2021": "lstmfit.likelihoods.uvlf_bouwens2021:UVLFBouwens2021",
}
"""Likelihoods that ship besides ``global_signal``, by the name that run files use."""


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
    It is built by ``cls(redshifts, **options)`` with the model's redshifts (n_channels,) and the run file's options,
    and called as ``likelihood(*outputs, values)``, values being (len(names),) float64; what it is handed it must not
    change. ``mocked(arguments, rng)`` may give the options of a mock: see `lstmfit.likelihoods.planck_tau`.
    """

    outputs: tuple[str, ...]
    names: tuple[str, ...]
    params: dict[str, dict]

    def __call__(self, *arguments) -> float:
        """Log likelihood, normalised over the data."""
        ...


def read_defaults(name: str, package: str = "lstmfit.likelihoods") -> dict:
    """Content of the ``.yaml`` that lies beside a likelihood's module."""
    return yaml.safe_load(resources.files(package).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


def with_defaults(name: str, options: dict) -> dict:
    """The defaults of a likelihood that ships, overridden by a run file's options.

    Raises
    ------
    InputError
        An option that it does not have.
    """
    defaults = read_defaults(name)
    for key in options:
        if key not in defaults:
            hint = did_you_mean(key, defaults, "its options are")
            raise InputError(f"likelihood.{name}: unknown option {key!r}; {hint}")
    return defaults | options


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
    module_name, _, attribute = target.partition(":") if ":" in target else target.rpartition(".")
    if not module_name or not attribute:
        hint = did_you_mean(name, ("global_signal", *LIKELIHOODS))
        raise InputError(f'likelihood: unknown {name!r}; {hint}; your own is written "package.module.Class"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"likelihood {name}: no module {error.name!r}; install it or add its folder to PYTHONPATH"
        ) from None
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"likelihood {name}: module {module_name} has no {attribute!r}")
    if not callable(found):
        raise InputError(f"likelihood {name} is {found!r}; a class is needed, see docs/likelihoods.md")
    return found


def make_likelihood(name: str, redshifts: np.ndarray, options: dict):
    """Build a likelihood by name with the options of a run file.

    Raises
    ------
    InputError
        As `find_likelihood`, options that it does not take, or what is built is no likelihood.
    """
    found = find_likelihood(name)
    try:
        inspect.signature(found).bind(redshifts, **options)
    except TypeError as error:
        raise InputError(f"likelihood {name}: {error}; its options are {inspect.signature(found)}") from None
    try:
        likelihood = found(redshifts, **options)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"likelihood {name}: {error}") from error
    missing = [what for what in ("outputs", "names") if not hasattr(likelihood, what)]
    if missing or not callable(likelihood):
        raise InputError(
            f"likelihood {name} lacks {', '.join(missing) or '__call__'}; see docs/likelihoods.md for what is needed"
        )
    return likelihood
