"""Foregrounds and systematics by name. Each model is a block of the run file that builds a `Component`.

A linear model is a basis: foreground = basis @ coefficients. It can be sampled, or marginalised analytically. Any other
model is a function of named parameters.

Imports neither pandas nor SciPy, because run files are validated with it. A new model is one class and its entry in
`FOREGROUNDS` or `SYSTEMATICS`.
"""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, StrictBool, model_validator

from lstmfit.errors import InputError
from lstmfit.likelihoods.base import read_defaults
from lstmfit.likelihoods.components import Component, ComponentBlock, WithReference, one_each, only_sampled
from lstmfit.likelihoods.foreground_emulator import Emulated
from lstmfit.likelihoods.foreground_files import Basis, Regions
from lstmfit.likelihoods.foreground_formulae import (
    hills,
    log10_polynomial,
    log_polynomial,
    loglog_polynomial,
    physical_linear,
    sinusoid,
)
from lstmfit.mistakes import validate_model
from lstmfit.schema import Block, Count, NotNegative, Number, Positive


class _Foreground(WithReference):
    """A foreground with a number of terms.

    Parameters
    ----------
    terms : int, optional
        Number of coefficients, 5 by default; ``physical_linear`` and ``hills`` have exactly 5.
    marginalise : bool, optional
        Whether the coefficients are marginalised analytically (the default of linear models) or sampled. Other models
        can only be sampled.
    """

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
    """A foreground that is linear in its coefficients, which have a Gaussian prior.

    Parameters
    ----------
    mean : float or list of float
        Mean of the prior, one number or one per term [K].
    scale : float or list of float
        Standard deviation of the prior, one number or one per term [K].
    """

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
        changes = {what: one_each(what, getattr(self, what), found.terms) for what in ("mean", "scale")}
        return found.model_copy(update=changes | {"marginalise": self.marginalise is not False})

    def build(self, frequency, kept=None, load_emulator=None):
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
        return only_sampled(self)

    def _params(self) -> dict[str, dict]:
        known = read_defaults("foregrounds")[self.model]
        return {name: known[name] for name in self.names}

    def build(self, frequency, kept=None, load_emulator=None):
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


class Log10Polynomial(ComponentBlock):
    """Polynomial in log-log space on a band, see `log10_polynomial`.

    Parameters
    ----------
    terms : int
        Number of coefficients, 7 as for SARAS3.
    band : (float, float), optional
        Frequencies that are mapped to -1 and 1 [MHz]; by default the lowest and the highest of the data.
    marginalise : bool, optional
        Only false, because the model is not linear in its parameters.
    """

    MEANING = ("band",)

    model: Literal["log10_polynomial"] = "log10_polynomial"
    terms: Annotated[Count, Field(le=100)] = 7
    band: tuple[Positive, Positive] | None = None
    marginalise: StrictBool | None = None

    @model_validator(mode="after")
    def _valid(self):
        if self.band is not None and not self.band[0] < self.band[1]:
            raise ValueError(f"band is {list(self.band)}; give two frequencies in MHz, the lower one first")
        return only_sampled(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its parameters."""
        return tuple(f"a{i}" for i in range(self.terms))

    def meaning(self, frequency):
        """As `ComponentBlock.meaning`."""
        low, high = self.resolved(frequency).band
        return f"{self.model} with band {low:.6g} to {high:.6g} MHz"

    def resolved(self, frequency):
        """As `ComponentBlock.resolved`.

        Raises
        ------
        InputError
            The data are far from the band, probably in Hz or GHz, or there are not fewer terms than channels.
        """
        low, high = float(np.min(frequency)), float(np.max(frequency))
        if self.terms >= len(frequency):
            raise InputError(
                f"foreground: {self.terms} terms for {len(frequency)} channels; use at least 1 and fewer terms than "
                "channels"
            )
        band = (low, high) if self.band is None else self.band
        if not 0.5 * band[0] <= low <= high <= 2.0 * band[1]:
            raise InputError(
                f"foreground: band is {list(band)} MHz, but the data span {low:.4g} to {high:.4g} MHz; give the "
                "lowest and the highest frequency of the data in MHz, or omit band"
            )
        return self.model_copy(update={"band": band, "marginalise": False})

    def build(self, frequency, kept=None, load_emulator=None):
        """As `ComponentBlock.build`."""
        band = self.resolved(frequency).band
        # There are no published priors of all coefficients that we know of.
        params = {name: {"latex": f"a_{{{name[1:]}}}"} for name in self.names}
        return Component(self.names, functools.partial(_evaluate, log10_polynomial, frequency, band), params)


class Hills(_Nonlinear):
    """Sky with ionospheric absorption and emission, see `hills`."""

    NAMES = ("d0", "d1", "d2", "tau_e", "T_e")
    FUNCTION = staticmethod(hills)

    model: Literal["hills"] = "hills"


class Sinusoid(WithReference):
    """Sinusoid damped by a power law, see `sinusoid`."""

    NAMES: ClassVar[tuple[str, ...]] = ("A_sin", "A_cos", "period", "damping")

    model: Literal["sinusoid"] = "sinusoid"

    def build(self, frequency, kept=None, load_emulator=None):
        """As `ComponentBlock.build`."""
        evaluate = functools.partial(_evaluate, sinusoid, frequency, self.resolved(frequency).reference)
        return Component(self.NAMES, evaluate, read_defaults("foregrounds")[self.model])


FOREGROUNDS: dict[str, type[ComponentBlock]] = {
    "log_polynomial": LogPolynomial,
    "physical_linear": PhysicalLinear,
    "loglog_polynomial": LoglogPolynomial,
    "log10_polynomial": Log10Polynomial,
    "hills": Hills,
    "basis": Basis,
    "regions": Regions,
    "emulator": Emulated,
}
"""Foreground models by their names in run files; the first is the default."""

SYSTEMATICS: dict[str, type[ComponentBlock]] = {"sinusoid": Sinusoid}
"""Systematics by their names in run files; the first is the default."""


class MockForeground(Block):
    """A foreground added to a mock: a model and the values of its parameters.

    Parameters
    ----------
    model : str
        Name of the foreground model, one of `FOREGROUNDS`.
    coefficients : list of float
        Values of its parameters, in their order.
    reference : float, optional
        Reference frequency [MHz], required where the model has one. Only ``regions`` has a default, 230.
    band : (float, float), optional
        Frequencies that ``log10_polynomial`` maps to -1 and 1 [MHz]; required there.
    file : str, optional
        File of ``basis``, ``regions`` or ``emulator``, required there.
    mean : str, optional
        File with the mean spectrum of ``basis``.
    T_cmb : float, optional
        Temperature of the cosmic microwave background in ``regions`` [K]; 2.725 by default.
    """

    model: str = next(iter(FOREGROUNDS))
    coefficients: Annotated[list[Number], Field(min_length=1, max_length=1000)]
    reference: Positive | None = None
    band: tuple[Positive, Positive] | None = None
    file: str | None = None
    mean: str | None = None
    T_cmb: NotNegative | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_its_reference(cls, data):
        if isinstance(data, dict) and set(data) <= set(cls.model_fields):
            block = FOREGROUNDS.get(str(data.get("model", next(iter(FOREGROUNDS)))))
            for key in () if block is None or block.FILES else block.MEANING:
                if data.get(key) is None:
                    raise ValueError(f"{key} is missing")
        return data

    @model_validator(mode="after")
    def _of_a_model(self):
        _ = self.foreground
        return self

    @property
    def foreground(self) -> ComponentBlock:
        """The foreground block of a fit with this model."""
        given = self.model_dump(exclude_none=True, exclude={"coefficients"})
        if self.model not in ("regions", "emulator"):
            given["terms"] = len(self.coefficients)
        if self.model == "basis":
            # Its coefficients are given, so it does not need the prior.
            given["scale"] = 1.0
        return validate_model(FOREGROUNDS, "foreground", given)

    def names(self, load_emulator: Callable | None = None) -> tuple[str, ...]:
        """Names of its parameters; `load_emulator` as in `ComponentBlock.build`."""
        block, n = self.foreground, len(self.coefficients)
        if isinstance(block, (_Foreground, Log10Polynomial)):
            return block.names
        if isinstance(block, Emulated):
            return tuple(block.load(load_emulator).params)
        return block.names_of(n) if isinstance(block, Regions) else tuple(f"a{i}" for i in range(n))

    def beside(self, folder: Path) -> "MockForeground":
        """Copy with the paths of its files made absolute relative to a folder."""
        files = self.foreground.beside(folder).files
        return self.model_copy(update=files) if files else self

    def evaluate(
        self, frequency: np.ndarray, load_emulator: Callable | None = None, band: tuple[float, float] | None = None
    ) -> np.ndarray:
        """Temperature (n,) in mK at frequencies (n,) in MHz; infinite if it overflows.

        Parameters
        ----------
        frequency : numpy.ndarray
            (n,) MHz.
        load_emulator : callable, optional
            As in `ComponentBlock.build`.
        band : (float, float), optional
            Channels in MHz that are kept. The grid of an emulator need only cover these; outside, the temperature is
            that at the edge of the band.

        Raises
        ------
        InputError
            As `ComponentBlock.build`; also if the number of coefficients is not that of the regions or of the
            parameters of an emulator, or if these are outside its training range.
        """
        block = self.foreground
        if isinstance(block, Emulated):
            at = frequency if band is None else frequency[(frequency >= band[0]) & (frequency <= band[1])]
            component = block.build(at, None, load_emulator)
            self._check_number(component, "parameters of the emulator; give a value of each")
            sky = component.evaluate(np.array(self.coefficients))
            if not np.isfinite(sky).all():
                raise InputError(
                    f"data.mock.foreground: the coefficients {self.coefficients} are outside the training range of "
                    f"{Path(block.file).name} ({', '.join(component.names)}); choose others"
                )
            order = np.argsort(at)
            return np.interp(frequency, at[order], sky[order])
        with np.errstate(over="ignore", invalid="ignore"):
            component = block.build(frequency)
            self._check_number(component, "regions; give one spectral index for each")
            return component.evaluate(np.array(self.coefficients))

    def _check_number(self, component, expected):
        if len(component.names) != len(self.coefficients):
            raise InputError(
                f"data.mock.foreground: {len(self.coefficients)} coefficients for {len(component.names)} {expected}"
            )


def _options(models: dict[str, type[ComponentBlock]], what: str) -> Any:
    validate = functools.partial(validate_model, models, what)
    return Annotated[SerializeAsAny[ComponentBlock], BeforeValidator(validate)]


ForegroundOptions = _options(FOREGROUNDS, "foreground")
"""A ``foreground:`` block, validated by the class of its model."""
SystematicsOptions = _options(SYSTEMATICS, "systematics")
"""A ``systematics:`` block, validated by the class of its model."""


def _evaluate(function, frequency, where, values):
    return function(frequency, values, where)
