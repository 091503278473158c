"""Foregrounds and systematics, in mK. Each model is a block of the run file that builds a `Component`.

A linear model is a basis: foreground = basis @ coefficients. It can be sampled, or marginalised analytically. Any other
model is a function of named parameters.

Imports neither pandas nor SciPy, because run files are validated with it. A new model is one class and its entry in
`FOREGROUNDS` or `SYSTEMATICS`.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, StrictBool, model_validator

from lstmfit.errors import InputError
from lstmfit.likelihoods.base import read_defaults
from lstmfit.mistakes import validate_model
from lstmfit.schema import Block, Count, Number, Positive


def log_polynomial(frequency, terms: int, reference: float) -> np.ndarray:
    """Basis of the linear log polynomial ("LinLog").

    T(nu) = (nu / nu_c)^-2.5 sum_i a_i ln(nu / nu_c)^i, as used for EDGES (Bowman et al. 2018, Eq. 2 is its expansion;
    Hills et al. 2018), with coefficients in K.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    terms : int
        Number of coefficients.
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n, terms) mK for one K of each coefficient.
    """
    x = np.asarray(frequency, dtype=float) / reference
    return 1000.0 * x[:, None] ** -2.5 * np.log(x)[:, None] ** np.arange(terms)


def physical_linear(frequency, terms: int, reference: float) -> np.ndarray:
    """Basis of the five physically motivated terms.

    T(nu) = a_0 y^-2.5 + a_1 y^-2.5 ln y + a_2 y^-2.5 ln^2 y + a_3 y^-4.5 + a_4 y^-2, y = nu / nu_c: synchrotron
    emission with a spectral index and curvature, ionospheric absorption and emission to first order (Bowman et al.
    2018, Eq. 1; Hills et al. 2018, Eq. 8), with coefficients in K.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    terms : int
        Number of coefficients; always 5.
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n, 5) mK for one K of each coefficient.

    """
    y = np.asarray(frequency, dtype=float) / reference
    log = np.log(y)
    return 1000.0 * np.stack([y**-2.5, y**-2.5 * log, y**-2.5 * log**2, y**-4.5, y**-2.0], axis=1)


def loglog_polynomial(frequency, values, reference: float) -> np.ndarray:
    """Log-log polynomial: ln(T / K) = sum_i a_i ln(nu / nu_c)^i (Anstey et al. 2020, arXiv:2010.09644).

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        Any number of coefficients a_0, a_1, ...
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    log = np.log(np.asarray(frequency, dtype=float) / reference)
    return 1000.0 * np.exp(np.polynomial.polynomial.polyval(log, np.asarray(values)))


def hills(frequency, values, reference: float) -> np.ndarray:
    """Sky with ionospheric absorption and emission (Hills et al. 2018, Eq. 6).

    T(nu) = d0 y^(-2.5 + d1 + d2 ln y) exp(-tau_e y^-2) + T_e (1 - exp(-tau_e y^-2)), y = nu / nu_c.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        d0 [K], d1, d2, tau_e and T_e [K].
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    d0, d1, d2, tau_e, t_e = values
    log = np.log(np.asarray(frequency, dtype=float) / reference)
    through = np.exp(-tau_e * np.exp(-2.0 * log))
    return 1000.0 * (d0 * np.exp(log * (-2.5 + d1 + d2 * log)) * through + t_e * (1.0 - through))


def sinusoid(frequency, values, reference: float) -> np.ndarray:
    """Sinusoid damped by a power law (Hills et al. 2018; Sims & Pober 2020).

    T(nu) = (nu / nu_c)^b [A_sin sin(2 pi nu / P) + A_cos cos(2 pi nu / P)].

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    values : sequence of float
        A_sin [mK], A_cos [mK], the period P [MHz] and the power b.
    reference : float
        nu_c in MHz.

    Returns
    -------
    numpy.ndarray
        (n,) mK.
    """
    a_sin, a_cos, period, power = values
    nu = np.asarray(frequency, dtype=float)
    phase = 2.0 * np.pi * nu / period
    return (nu / reference) ** power * (a_sin * np.sin(phase) + a_cos * np.cos(phase))


@dataclass(frozen=True)
class Component:
    """A term of the model at the channels of the data.

    Parameters
    ----------
    names : tuple of str
        Names of its parameters.
    evaluate : callable
        values (len(names),) -> (n,) mK.
    params : dict of str to dict
        LaTeX label and, if there is one, default prior of each parameter.
    basis : numpy.ndarray, optional
        (n, len(names)) basis of a linear component: evaluate(values) = basis @ values.
    mean, scale : numpy.ndarray, optional
        (len(names),) mean and standard deviation of the Gaussian prior of the coefficients of a linear component, in K.
    marginalise : bool
        Whether the coefficients of a linear component are marginalised analytically instead of sampled.
    """

    names: tuple[str, ...]
    evaluate: Callable
    params: dict[str, dict]
    basis: np.ndarray | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    marginalise: bool = False


class ComponentBlock(Block):
    """Abstract base class of the options of a foreground or systematic error."""

    model: str

    def resolved(self, frequency: np.ndarray) -> "ComponentBlock":
        """Copy with all defaults resolved for channels at these frequencies (n,) in MHz."""
        return self

    def build(self, frequency: np.ndarray) -> Component:
        """Build the component for channels at these frequencies (n,) in MHz.

        Raises
        ------
        InputError
            The options do not match the channels.
        """
        raise NotImplementedError


class _WithReference(ComponentBlock):
    """A model with a reference frequency in MHz, by default the centre of the band."""

    reference: Positive | None = None

    def resolved(self, frequency):
        """As `ComponentBlock.resolved`.

        Raises
        ------
        InputError
            The reference is far from the data, probably in Hz or GHz; powers of frequency would overflow.
        """
        reference = self.reference
        if reference is None:
            return self.model_copy(update={"reference": middle(frequency)})
        if not 1e-3 * np.min(frequency) <= reference <= 1e3 * np.max(frequency):
            raise InputError(
                f"reference is {reference:g} MHz, but the data span {np.min(frequency):.4g} to "
                f"{np.max(frequency):.4g} MHz; give a frequency in MHz near the band"
            )
        return self


class _Foreground(_WithReference):
    """A foreground with a number of terms, 5 by default unless the model fixes it."""

    NAMES: ClassVar[tuple[str, ...] | None] = None
    """Parameters of a model with a fixed number of them; otherwise a0, a1, ..."""

    terms: Annotated[Count, Field(le=100)] | None = None
    marginalise: StrictBool | None = None

    @model_validator(mode="after")
    def _as_many_terms_as_it_has(self):
        if self.NAMES is not None and self.terms not in (None, len(self.NAMES)):
            raise ValueError(f"{self.model} has {len(self.NAMES)} parameters, not {self.terms}; omit terms")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its parameters."""
        if self.NAMES is not None:
            return self.NAMES
        return tuple(f"a{i}" for i in range(5 if self.terms is None else self.terms))

    def resolved(self, frequency):
        """As `ComponentBlock.resolved`.

        Raises
        ------
        InputError
            The reference is far from the data, or there are not fewer terms than channels.
        """
        found = super().resolved(frequency)
        n = len(self.names)
        if n >= len(frequency):
            raise InputError(
                f"foreground: {n} terms for {len(frequency)} channels; use at least 1 and fewer terms than channels"
            )
        return found.model_copy(update={"terms": n, "marginalise": bool(self.marginalise)})


class _Linear(_Foreground):
    """A foreground that is linear in its coefficients, with the mean and scale of their Gaussian prior in K."""

    BASIS: ClassVar[Callable]

    mean: Number | list[Number] = 0.0
    scale: Positive | list[Positive] = 1e4

    def resolved(self, frequency):
        """As `ComponentBlock.resolved`.

        Raises
        ------
        InputError
            As above, or mean or scale does not match the number of terms.
        """
        found = super().resolved(frequency)
        changes = {what: _one_each(what, getattr(self, what), found.terms) for what in ("mean", "scale")}
        return found.model_copy(update=changes | {"marginalise": self.marginalise is not False})

    def build(self, frequency):
        """As `ComponentBlock.build`."""
        given = self.resolved(frequency)
        basis = type(self).BASIS(frequency, given.terms, given.reference)
        params = {
            name: {"prior": {"dist": "norm", "loc": m, "scale": s}, "latex": f"a_{{{i}}}\\ [\\mathrm{{K}}]"}
            for i, (name, m, s) in enumerate(zip(self.names, given.mean, given.scale))
        }
        prior = np.array(given.mean), np.array(given.scale)
        return Component(
            self.names, functools.partial(np.matmul, basis), params, basis, *prior, marginalise=given.marginalise
        )


class LogPolynomial(_Linear):
    """The linear log polynomial, see `log_polynomial`."""

    BASIS = staticmethod(log_polynomial)

    model: Literal["log_polynomial"] = "log_polynomial"


class PhysicalLinear(_Linear):
    """Five physically motivated terms, see `physical_linear`."""

    NAMES = ("a0", "a1", "a2", "a3", "a4")
    BASIS = staticmethod(physical_linear)

    model: Literal["physical_linear"] = "physical_linear"


class _Nonlinear(_Foreground):
    """A foreground that is not linear in its parameters and can therefore only be sampled."""

    FUNCTION: ClassVar[Callable]

    @model_validator(mode="before")
    @classmethod
    def _without_the_keys_of_linear_ones(cls, data):
        """Version 0.1 accepted mean and scale for every model, wrote them to run folders, and ignored them here."""
        if not isinstance(data, dict):
            return data
        if data.get("mean", 0.0) != 0.0 or data.get("scale", 1e4) != 1e4:
            warnings.warn(f"foreground: {data['model']} ignores mean and scale; give priors under params", stacklevel=2)
        return {key: value for key, value in data.items() if key not in ("mean", "scale")}

    @model_validator(mode="after")
    def _sampled(self):
        if self.marginalise:
            linear = " or ".join(name for name, block in FOREGROUNDS.items() if issubclass(block, _Linear))
            raise ValueError(
                f"{self.model} is not linear in its parameters and cannot be marginalised; set marginalise: false, or "
                f"use {linear}"
            )
        return self

    def _params(self) -> dict[str, dict]:
        known = read_defaults("foregrounds")[self.model]
        return {name: known[name] for name in self.names}

    def build(self, frequency):
        """As `ComponentBlock.build`."""
        reference = self.resolved(frequency).reference
        evaluate = functools.partial(_evaluate, type(self).FUNCTION, frequency, reference)
        return Component(self.names, evaluate, self._params())


class LoglogPolynomial(_Nonlinear):
    """Log-log polynomial, see `loglog_polynomial`."""

    FUNCTION = staticmethod(loglog_polynomial)

    model: Literal["loglog_polynomial"] = "loglog_polynomial"

    def _params(self):
        known = read_defaults("foregrounds")[self.model]["a"]
        return {name: known | {"latex": f"a_{{{name[1:]}}}"} for name in self.names}


class Hills(_Nonlinear):
    """Sky with ionospheric absorption and emission, see `hills`."""

    NAMES = ("d0", "d1", "d2", "tau_e", "T_e")
    FUNCTION = staticmethod(hills)

    model: Literal["hills"] = "hills"


class Sinusoid(_WithReference):
    """Sinusoid damped by a power law, see `sinusoid`."""

    NAMES: ClassVar[tuple[str, ...]] = ("A_sin", "A_cos", "period", "damping")

    model: Literal["sinusoid"] = "sinusoid"

    def build(self, frequency):
        """As `ComponentBlock.build`."""
        evaluate = functools.partial(_evaluate, sinusoid, frequency, self.resolved(frequency).reference)
        return Component(self.NAMES, evaluate, read_defaults("foregrounds")[self.model])


FOREGROUNDS: dict[str, type[ComponentBlock]] = {
    "log_polynomial": LogPolynomial,
    "physical_linear": PhysicalLinear,
    "loglog_polynomial": LoglogPolynomial,
    "hills": Hills,
}
"""Foreground models by their names in run files; the first is the default."""

SYSTEMATICS: dict[str, type[ComponentBlock]] = {"sinusoid": Sinusoid}
"""Systematics by their names in run files; the first is the default."""


class MockForeground(Block):
    """A foreground added to a mock: a model and the values of its parameters."""

    model: str = next(iter(FOREGROUNDS))
    reference: Positive
    coefficients: Annotated[list[Number], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _of_a_model(self):
        _ = self.foreground
        return self

    @property
    def foreground(self) -> _Foreground:
        """The foreground block of a fit with this model."""
        given = {"model": self.model, "reference": self.reference, "terms": len(self.coefficients)}
        return validate_model(FOREGROUNDS, "foreground", given)

    def evaluate(self, frequency: np.ndarray) -> np.ndarray:
        """Temperature (n,) in mK at frequencies (n,) in MHz; infinite if it overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.foreground.build(frequency).evaluate(np.array(self.coefficients))


def _options(models: dict[str, type[ComponentBlock]], what: str) -> Any:
    validate = functools.partial(validate_model, models, what)
    return Annotated[SerializeAsAny[ComponentBlock], BeforeValidator(validate)]


ForegroundOptions = _options(FOREGROUNDS, "foreground")
"""A ``foreground:`` block, validated by the class of its model."""
SystematicsOptions = _options(SYSTEMATICS, "systematics")
"""A ``systematics:`` block, validated by the class of its model."""


def _evaluate(function, frequency, reference, values):
    return function(frequency, values, reference)


def middle(frequency) -> float:
    """Centre of the band in MHz, the default reference frequency."""
    return 0.5 * float(np.min(frequency) + np.max(frequency))


def _one_each(what, value, terms):
    values = [float(v) for v in np.atleast_1d(value)]
    if len(values) not in (1, terms):
        raise InputError(f"foreground: {what} has {len(values)} numbers for {terms} terms; give one, or one per term")
    return values * terms if len(values) == 1 else values
