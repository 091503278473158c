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
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, StrictBool, model_validator

from lstmfit.datasets.channel_files import ChannelFile, Kept, read_channel_file
from lstmfit.errors import InputError
from lstmfit.files import user_path
from lstmfit.likelihoods.base import read_defaults
from lstmfit.mistakes import validate_model
from lstmfit.schema import LARGEST, Block, Count, NotNegative, Number, Positive


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
        (n, len(names)) basis of a linear component: evaluate(values) = basis @ values + offset.
    mean, scale : numpy.ndarray, optional
        (len(names),) mean and standard deviation of the Gaussian prior of the coefficients of a linear component, in K.
    marginalise : bool
        Whether the coefficients of a linear component are marginalised analytically instead of sampled.
    offset : numpy.ndarray, optional
        (n,) mK, the part of a linear component that has no coefficient.
    mixing : numpy.ndarray, optional
        (k, k) matrix if the coefficients of a marginalised component are correlated a priori: coefficients = mean +
        mixing @ x, where the x are independent with standard deviations `scale`.
    """

    names: tuple[str, ...]
    evaluate: Callable
    params: dict[str, dict]
    basis: np.ndarray | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    marginalise: bool = False
    offset: np.ndarray | None = None
    mixing: np.ndarray | None = None

    def mixed(self, x: np.ndarray) -> np.ndarray:
        """Independent coefficients (k,), or a basis for the coefficients (n, k), with the prior correlations applied.

        ``mixed(x)`` is ``mixing @ x``, and ``mixed(basis)`` is ``basis @ mixing``.
        """
        if self.mixing is None:
            return x
        return self.mixing @ x if x.ndim == 1 else x @ self.mixing

    def draw(self, rng: np.random.Generator | None) -> np.ndarray:
        """Coefficients (k,) drawn from their prior; their prior mean if `rng` is None."""
        if rng is None:
            return self.mean
        return self.mean + self.mixed(self.scale * rng.standard_normal(len(self.names)))


class ComponentBlock(Block):
    """Abstract base class of the options of a foreground or systematic error."""

    FILES: ClassVar[tuple[str, ...]] = ()
    """Keys whose values are paths of files."""
    MEANING: ClassVar[tuple[str, ...]] = ("reference",)
    """Keys that define what the parameters mean: if they agree, parameters of two blocks can be compared."""

    model: str

    @property
    def files(self) -> dict[str, str]:
        """Paths of the files that it names, by their keys."""
        return {key: path for key in self.FILES if (path := getattr(self, key)) is not None}

    def beside(self, folder: Path) -> "ComponentBlock":
        """Copy with the paths of its files made absolute relative to a folder."""
        changes = {key: str(folder / user_path(path, "foreground file")) for key, path in self.files.items()}
        return self.model_copy(update=changes) if changes else self

    def means_the_same(self, other: "ComponentBlock") -> bool:
        """Whether the parameters have the same meaning as those of another block."""
        return self.model == other.model and all(getattr(self, key) == getattr(other, key) for key in self.MEANING)

    def resolved(self, frequency: np.ndarray) -> "ComponentBlock":
        """Copy with all defaults resolved for channels at these frequencies (n,) in MHz."""
        return self

    def build(self, frequency: np.ndarray, kept: Kept | None = None) -> Component:
        """Build the component for the channels of the data.

        Parameters
        ----------
        frequency : numpy.ndarray
            (n,) MHz.
        kept : Kept, optional
            Numbers of the channels in the data file, if others were left out; for files with one row per channel.

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

    def build(self, frequency, kept=None):
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
        return _only_sampled(self)

    def _params(self) -> dict[str, dict]:
        known = read_defaults("foregrounds")[self.model]
        return {name: known[name] for name in self.names}

    def build(self, frequency, kept=None):
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


class Basis(ComponentBlock):
    """A basis from a file, such as modes of simulated spectra (`lstmfit.datasets.modes`), linear in its coefficients.

    T = mean(nu) + sum_i a_i f_i(nu) in K, where the f_i are the columns of a matrix (n_channels, n_modes). The
    coefficients have a Gaussian prior of mean zero.

    Parameters
    ----------
    file : str
        File with the matrix ``basis``; see `lstmfit.datasets.channel_files.read_channel_file`.
    mean : str, optional
        File with the mean spectrum (n_channels,); by default the array ``mean`` of `file`, if it has one.
    covariance : str, optional
        File with the prior covariance (n_modes, n_modes) of the coefficients; by default the array ``covariance`` of
        `file`.
    scale : float or list of float, optional
        Standard deviations of independent coefficients, instead of a covariance.
    terms : int, optional
        Number of columns to use, from the first; by default all.
    marginalise : bool, optional
        Whether the coefficients are marginalised analytically (the default) or sampled.
    """

    FILES = ("file", "mean", "covariance")
    MEANING = ("file", "mean")

    model: Literal["basis"] = "basis"
    file: str
    mean: str | None = None
    covariance: str | None = None
    scale: Positive | list[Positive] | None = None
    terms: Annotated[Count, Field(le=1000)] | None = None
    marginalise: StrictBool | None = None

    @model_validator(mode="after")
    def _one_prior(self):
        if self.covariance is not None and self.scale is not None:
            raise ValueError("covariance and scale are both given; give one of them")
        return self

    def resolved(self, frequency):
        """As `ComponentBlock.resolved`."""
        return self.model_copy(update={"marginalise": self.marginalise is not False})

    def build(self, frequency, kept=None):
        """As `ComponentBlock.build`.

        Raises
        ------
        InputError
            A file cannot be read, its rows are not the channels of the data, it has too few or dependent columns, or
            there is no valid prior.
        """
        file = read_channel_file(self.file, "basis", ("mean", "covariance"))
        basis = file.on_channels("basis", 2, frequency, kept)
        if self.terms is not None and self.terms > basis.shape[1]:
            raise InputError(
                f"foreground: {self.terms} terms, but {file.name} has {basis.shape[1]} columns; use fewer terms"
            )
        basis = np.ascontiguousarray(basis[:, : self.terms])
        n, k = basis.shape
        if k >= n:
            raise InputError(
                f"foreground: {k} terms for {n} channels; use at least 1 and fewer terms than channels (terms: "
                f"{n - 1} takes the first columns of {file.name})"
            )
        norms = np.sqrt((basis**2).sum(axis=0))
        singular = np.linalg.svd(basis / np.where(norms > 0, norms, 1.0), compute_uv=False)
        if not (norms > 0).all() or singular[-1] < 1e-13 * singular[0]:
            raise InputError(
                f"foreground: the {k} columns of {file.name} are not independent on these {n} channels; use fewer "
                "(terms), or remove the columns that are zero or repeated"
            )
        scale, mixing = self._prior(file, k)
        marginalise = self.marginalise is not False
        if mixing is not None and not marginalise:
            raise InputError(
                "foreground: the covariance has correlations, but sampled coefficients have independent priors; omit "
                "marginalise: false, or give scale"
            )
        offset = self._mean_spectrum(file, frequency, kept)
        names = tuple(f"a{i}" for i in range(k))
        params = {
            name: {"prior": {"dist": "norm", "loc": 0.0, "scale": float(s)}, "latex": f"a_{{{i}}}"}
            for i, (name, s) in enumerate(zip(names, scale))
        }
        evaluate = functools.partial(np.matmul, basis) if offset is None else functools.partial(_affine, basis, offset)
        return Component(
            names, evaluate, params, basis, np.zeros(k), scale, marginalise=marginalise, offset=offset, mixing=mixing
        )

    def _mean_spectrum(self, file: ChannelFile, frequency, kept):
        if self.mean is not None:
            return read_channel_file(self.mean, "mean").on_channels("mean", 1, frequency, kept)
        return file.on_channels("mean", 1, frequency, kept) if "mean" in file.arrays else None

    def _prior(self, file: ChannelFile, k):
        """Standard deviations (k,) of independent coefficients, and their mixing (k, k) or None."""
        if self.scale is not None:
            return np.array(_one_each("scale", self.scale, k)), None
        source = file if self.covariance is None else read_channel_file(self.covariance, "covariance")
        if "covariance" not in source.arrays:
            raise InputError(
                f"foreground: {file.name} has no array covariance for the prior of its coefficients; give scale, or "
                "covariance: FILE"
            )
        covariance = source.arrays["covariance"]
        if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or len(covariance) < k:
            raise InputError(
                f"foreground: the covariance in {source.name} has shape {covariance.shape} for {k} terms; give "
                f"({k}, {k})"
            )
        covariance = covariance[:k, :k]
        largest = np.abs(covariance).max()
        symmetric = largest <= LARGEST and np.abs(covariance - covariance.T).max() <= 1e-6 * largest
        try:
            factor = np.linalg.cholesky(0.5 * (covariance + covariance.T)) if symmetric else None
        except np.linalg.LinAlgError:
            factor = None
        if factor is None:
            raise InputError(
                f"foreground: the covariance in {source.name} is not a finite, symmetric and positive definite matrix; "
                "estimate it from more spectra than modes, or give scale"
            )
        # C = M diag(s^2) M^T with a unit lower triangular M.
        scale = factor.diagonal().copy()
        mixing = factor / scale
        return scale, mixing if np.any(mixing != np.eye(k)) else None


class Regions(_WithReference):
    """Regions of the sky with a spectral index each, seen through a chromatic beam (Anstey et al. 2020).

    T(nu) = sum_i K_i(nu) (nu / nu_c)^-beta_i + T_cmb in K, where K_i is the beam-weighted temperature of region i at
    the reference frequency, without the cosmic microwave background.

    Parameters
    ----------
    file : str
        File with the matrix ``K`` (n_channels, n_regions); see `lstmfit.datasets.channel_files.read_channel_file`.
    reference : float
        nu_c in MHz.
    T_cmb : float
        K.
    marginalise : bool, optional
        Only false, because the model is not linear in its parameters.
    """

    FILES = ("file",)
    MEANING = ("file", "reference", "T_cmb")

    model: Literal["regions"] = "regions"
    file: str
    reference: Positive = 230.0
    T_cmb: NotNegative = 2.725
    marginalise: StrictBool | None = None

    @model_validator(mode="after")
    def _sampled(self):
        return _only_sampled(self)

    @staticmethod
    def names_of(n: int) -> tuple[str, ...]:
        """Names of the spectral indices of n regions."""
        return tuple(f"beta_{i}" for i in range(n))

    def build(self, frequency, kept=None):
        """As `ComponentBlock.build`.

        Raises
        ------
        InputError
            The file cannot be read, its rows are not the channels of the data, or a region is not seen in any of them.
        """
        from lstmfit.likelihoods._regions_kernel import sky_of_regions

        reference = self.resolved(frequency).reference
        file = read_channel_file(self.file, "K")
        weights = file.on_channels("K", 2, frequency, kept)
        unseen = ~(weights != 0).any(axis=0)
        if unseen.any():
            raise InputError(
                f"foreground: column {int(unseen.argmax())} of {file.name} is zero in all {len(frequency)} channels, "
                "so its spectral index has no effect; remove the column"
            )
        known = read_defaults("foregrounds")[self.model]["beta"]
        names = self.names_of(weights.shape[1])
        params = {name: known | {"latex": f"\\beta_{{{i}}}"} for i, name in enumerate(names)}
        log_frequency = np.log(np.asarray(frequency, dtype=float) / reference)
        parts = np.ascontiguousarray(weights.T), log_frequency, 1000.0 * self.T_cmb
        return Component(names, functools.partial(sky_of_regions, *parts), params)


class Sinusoid(_WithReference):
    """Sinusoid damped by a power law, see `sinusoid`."""

    NAMES: ClassVar[tuple[str, ...]] = ("A_sin", "A_cos", "period", "damping")

    model: Literal["sinusoid"] = "sinusoid"

    def build(self, frequency, kept=None):
        """As `ComponentBlock.build`."""
        evaluate = functools.partial(_evaluate, sinusoid, frequency, self.resolved(frequency).reference)
        return Component(self.NAMES, evaluate, read_defaults("foregrounds")[self.model])


FOREGROUNDS: dict[str, type[ComponentBlock]] = {
    "log_polynomial": LogPolynomial,
    "physical_linear": PhysicalLinear,
    "loglog_polynomial": LoglogPolynomial,
    "hills": Hills,
    "basis": Basis,
    "regions": Regions,
}
"""Foreground models by their names in run files; the first is the default."""

SYSTEMATICS: dict[str, type[ComponentBlock]] = {"sinusoid": Sinusoid}
"""Systematics by their names in run files; the first is the default."""


class MockForeground(Block):
    """A foreground added to a mock: a model and the values of its parameters.

    Parameters
    ----------
    model : str
        One of `FOREGROUNDS`.
    coefficients : list of float
        Values of its parameters.
    reference : float, optional
        Reference frequency in MHz; only `Basis` and `Regions` can do without.
    file, mean, T_cmb : optional
        Options of `Basis` and `Regions`.
    """

    model: str = next(iter(FOREGROUNDS))
    coefficients: Annotated[list[Number], Field(min_length=1, max_length=1000)]
    reference: Positive | None = None
    file: str | None = None
    mean: str | None = None
    T_cmb: NotNegative | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_its_reference(cls, data):
        if isinstance(data, dict) and set(data) <= set(cls.model_fields):
            block = FOREGROUNDS.get(str(data.get("model", next(iter(FOREGROUNDS)))))
            if block is not None and not block.FILES and data.get("reference") is None:
                raise ValueError("reference is missing")
        return data

    @model_validator(mode="after")
    def _of_a_model(self):
        _ = self.foreground
        return self

    @property
    def foreground(self) -> ComponentBlock:
        """The foreground block of a fit with this model."""
        given = self.model_dump(exclude_none=True, exclude={"coefficients"})
        if self.model != "regions":
            given["terms"] = len(self.coefficients)
        if self.model == "basis":
            # Its coefficients are given, so it does not need the prior.
            given["scale"] = 1.0
        return validate_model(FOREGROUNDS, "foreground", given)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its parameters."""
        block, n = self.foreground, len(self.coefficients)
        if isinstance(block, _Foreground):
            return block.names
        return block.names_of(n) if isinstance(block, Regions) else tuple(f"a{i}" for i in range(n))

    def beside(self, folder: Path) -> "MockForeground":
        """Copy with the paths of its files made absolute relative to a folder."""
        files = self.foreground.beside(folder).files
        return self.model_copy(update=files) if files else self

    def evaluate(self, frequency: np.ndarray) -> np.ndarray:
        """Temperature (n,) in mK at frequencies (n,) in MHz; infinite if it overflows.

        Raises
        ------
        InputError
            As `ComponentBlock.build`; also if the number of coefficients is not that of the regions.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            component = self.foreground.build(frequency)
            if len(component.names) != len(self.coefficients):
                raise InputError(
                    f"data.mock.foreground: {len(self.coefficients)} coefficients for {len(component.names)} regions; "
                    "give one spectral index for each"
                )
            return component.evaluate(np.array(self.coefficients))


def _options(models: dict[str, type[ComponentBlock]], what: str) -> Any:
    validate = functools.partial(validate_model, models, what)
    return Annotated[SerializeAsAny[ComponentBlock], BeforeValidator(validate)]


ForegroundOptions = _options(FOREGROUNDS, "foreground")
"""A ``foreground:`` block, validated by the class of its model."""
SystematicsOptions = _options(SYSTEMATICS, "systematics")
"""A ``systematics:`` block, validated by the class of its model."""


def _only_sampled(block):
    """Refuse ``marginalise: true`` of a block whose model is not linear."""
    if block.marginalise:
        linear = " or ".join(name for name, cls in FOREGROUNDS.items() if issubclass(cls, (_Linear, Basis)))
        raise ValueError(
            f"{block.model} is not linear in its parameters and cannot be marginalised; set marginalise: false, or "
            f"use {linear}"
        )
    return block


def _affine(basis, offset, values):
    return basis @ values + offset


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
