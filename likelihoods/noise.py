"""Noise models of a spectrum. Each is a ``noise:`` block of the run file that builds a `Noise`.

All Gaussian models have the covariance C = sigma^2 diag(1 / weight) + E, where sigma is fixed or free and E is fixed:
the radiometer equation, one sigma per channel, or a covariance from a file. So they share one fast likelihood.

Imports neither pandas nor SciPy, because run files are validated with it. A new model is one class and its entry in
`NOISE`.
"""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, SerializeAsAny, model_validator

from lstmfit.datasets.columns import UNITS
from lstmfit.errors import InputError
from lstmfit.files import user_path
from lstmfit.likelihoods.noise_files import read_column, read_numbers
from lstmfit.mistakes import validate_model
from lstmfit.schema import LARGEST, Block, Index, Number, Positive, shown, to_number

SMALLEST_SIGMA, LARGEST_SIGMA = 1e-6, 1e12
"""Limits of a standard deviation in mK. Smaller noise would be below the rounding error of the data."""
SMALLEST_DOF = 1e-3
"""Smallest number of degrees of freedom of a Student-t distribution."""


@dataclass(frozen=True)
class Noise:
    """Noise of a spectrum.

    Parameters
    ----------
    sigma : float or None
        Standard deviation of a channel of weight one in mK, in addition to `extra`; None if it is free.
    extra : numpy.ndarray, optional
        E in mK^2, (n,) if diagonal or (n, n).
    name : str
        Name of sigma as a free parameter: ``sigma``, or ``floor`` if there is an E.
    student : bool
        Student-t instead of Gaussian noise.
    dof : float or None
        Degrees of freedom of Student-t noise; None if they are free (the parameter ``dof``).
    samples : float, optional
        Number dnu tau of independent samples in a channel of weight one, if E is the radiometer noise of the sky of the
        model. `extra` is then that of the temperature of the data, see `of_sky`.
    """

    sigma: float | None
    extra: np.ndarray | None = None
    name: str = "sigma"
    student: bool = False
    dof: float | None = None
    samples: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its free parameters."""
        return ((self.name,) if self.sigma is None else ()) + (("dof",) if self.student and self.dof is None else ())

    def check(self) -> None:
        """Check the parameters that are not free.

        Raises
        ------
        InputError
            A number is out of bounds.
        """
        sigma, dof = self.sigma, self.dof
        if sigma is not None and not (sigma == 0 or SMALLEST_SIGMA <= sigma <= LARGEST_SIGMA):
            raise InputError(
                f"noise: {self.name} is {sigma:g} mK; give a number from {SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g} mK"
            )
        if dof is not None and not SMALLEST_DOF <= dof <= LARGEST:
            raise InputError(f"noise: dof is {dof:g}; give a number from {SMALLEST_DOF:g} to {LARGEST:g}")

    def at(self, values) -> "Noise":
        """Copy with the free parameters set to values (len(names),)."""
        found = dict(zip(self.names, (float(v) for v in values)))
        sigma = self.sigma if self.sigma is not None else found[self.name]
        return dataclasses.replace(self, sigma=sigma, dof=found.get("dof", self.dof))

    def of_sky(self, sky: np.ndarray, weight: np.ndarray) -> "Noise":
        """Copy with the radiometer noise of a sky (n,) mK in channels with these weights, if that is the model."""
        if self.samples is None:
            return self
        return dataclasses.replace(self, extra=radiometer_variance(sky, self.samples, weight), samples=None)

    def draw(self, weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw noise (n,) mK for channels with these weights.

        Raises
        ------
        InputError
            A parameter of the noise is free.
        """
        if self.names:
            raise InputError(f"mock noise: {' and '.join(self.names)} is free, but a mock needs a number")
        n = len(weight)
        scale = np.broadcast_to(self.sigma / np.sqrt(weight), (n,))
        if self.extra is not None and self.extra.ndim == 1:
            scale = np.sqrt(scale**2 + self.extra)
        noise = scale * (rng.standard_t(self.dof, n) if self.student else rng.standard_normal(n))
        if self.extra is not None and self.extra.ndim == 2:
            values, vectors = np.linalg.eigh(self.extra)
            noise = noise + vectors @ (np.sqrt(np.clip(values, 0.0, None)) * rng.standard_normal(n))
        return noise


def _free_or(value, what, good):
    if value == "free":
        return value
    try:
        number = to_number(value)
    except ValueError:
        number = None
    if number is None or not good(number):
        raise ValueError(f"{shown(value)} is neither {what} nor free (which means that it is fitted)")
    return number


PositiveOrFree = Annotated[
    float | str, BeforeValidator(lambda v: _free_or(v, "a positive number", lambda number: number > 0))
]
FloorOrFree = Annotated[
    float | str, BeforeValidator(lambda v: _free_or(v, "zero or a positive number", lambda number: number >= 0))
]


def _number(value):
    return None if value == "free" else float(value)


class NoiseBlock(Block):
    """Abstract base class of the options of a noise model, in mK.

    ``free`` instead of a number means that sigma, floor or dof is a parameter of the fit.

    Parameters
    ----------
    model : str
        Name of the model.
    """

    model: str

    def build(self, spectrum) -> Noise:
        """Build the noise for the channels of a spectrum.

        Parameters
        ----------
        spectrum : Spectrum
            ``frequency``, ``temperature``, ``weight`` (n,) MHz, mK and weights of the data, and their ``sigma`` (n,)
            in mK or None.

        Raises
        ------
        InputError
            The options do not match the channels.
        """
        raise NotImplementedError

    def beside(self, folder: Path) -> "NoiseBlock":
        """Copy with the path of its file, if it has one, made absolute relative to a folder."""
        return self


class White(NoiseBlock):
    """White noise.

    Parameters
    ----------
    sigma : float or "free"
        Standard deviation of a channel of weight one [mK].
    """

    model: Literal["white"] = "white"
    sigma: PositiveOrFree

    def build(self, spectrum) -> Noise:
        """As `NoiseBlock.build`."""
        return Noise(_number(self.sigma))


class StudentT(NoiseBlock):
    """Student-t noise, for outliers.

    Parameters
    ----------
    sigma : float or "free"
        Scale of the distribution in a channel of weight one [mK].
    dof : float or "free"
        Degrees of freedom.
    """

    model: Literal["student_t"] = "student_t"
    sigma: PositiveOrFree
    dof: PositiveOrFree

    def build(self, spectrum) -> Noise:
        """As `NoiseBlock.build`."""
        return Noise(_number(self.sigma), student=True, dof=_number(self.dof))


class _WithFloor(NoiseBlock):
    """Noise of each channel, in the data or in a file of numbers: text (commas or spaces, # for comments) or ``.npy``.

    The weights of the data only scale the floor, which is added in quadrature.

    Parameters
    ----------
    file : str, optional
        File with the noise.
    unit : {"K", "mK"}, optional
        Unit of the file; mK by default.
    floor : float or "free", optional
        Further noise of a channel of weight one, added in quadrature [mK]; 0 by default.
    """

    file: str | None
    unit: Literal["K", "mK"] | None = None
    floor: FloorOrFree | None = None

    def beside(self, folder) -> "NoiseBlock":
        """As `NoiseBlock.beside`."""
        if self.file is None:
            return self
        return self.model_copy(update={"file": str(folder / user_path(self.file, "noise file"))})

    @property
    def _factor(self) -> float:
        """The unit of the file in mK."""
        return UNITS[self.unit or "mK"]


class Channels(_WithFloor):
    """One standard deviation per channel: the column sigma of the data, or a column of another file.

    Parameters
    ----------
    file : str, optional
        File with one row per fitted channel, or one per channel of the data file; by default the column sigma of the
        data is used.
    column : int or str, optional
        Column of the file: its number, from 0, or its name in the header. 0 by default.
    """

    model: Literal["channels"] = "channels"
    file: str | None = None
    column: Index | str | None = None

    @model_validator(mode="after")
    def _of_a_file(self):
        given = [key for key in ("column", "unit") if getattr(self, key) is not None]
        if self.file is None and given:
            raise ValueError(
                f"{given[0]} is given without a file; give file, or name the sigma column under data.columns"
            )
        return self

    def build(self, spectrum) -> Noise:
        """As `NoiseBlock.build`.

        Raises
        ------
        InputError
            The file does not exist or contains no numbers, the number of channels differs, or a sigma is not positive;
            or there is neither a file nor a sigma column in the data.
        """
        if self.file is None and spectrum.sigma is None:
            raise InputError(
                "noise: the data have no sigma column; name it under data (columns: {..., sigma: COLUMN}), or give "
                "file: FILE"
            )
        sigma, name = (spectrum.sigma, "the data") if self.file is None else self._read(spectrum)
        wrong = ~((sigma >= SMALLEST_SIGMA) & (sigma <= LARGEST_SIGMA))
        if wrong.any():
            raise InputError(
                f"noise: {name} has a sigma of {sigma[wrong][0]:g} mK in row {wrong.argmax()}; give numbers from "
                f"{SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g} mK"
            )
        return Noise(_number(self.floor or 0.0), sigma**2, "floor")

    def _read(self, spectrum):
        """Standard deviations (n,) in mK, and the name of the file."""
        path, n = user_path(self.file, "noise file"), len(spectrum.frequency)
        if isinstance(self.column, str):
            array = read_column(path, self.column)
        else:
            array, column = read_numbers(path), self.column or 0
            if array.ndim == 2:
                if not 0 <= column < array.shape[1]:
                    raise InputError(
                        f"noise: {path.name} has no column {column}; columns are 0 to {array.shape[1] - 1}"
                    )
                array = array[:, column]
        if spectrum.kept is not None and len(array) == spectrum.kept.n_before:
            array = array[spectrum.kept.number]
        if array.shape != (n,):
            before = "" if spectrum.kept is None else f" of the {spectrum.kept.n_before} in the data file"
            raise InputError(
                f"noise: {path.name} has {len(array)} rows, but {n} channels{before} are fitted (those with non-zero "
                "weight inside the band); give one row per fitted channel, or one per channel of the data file"
            )
        return array * self._factor, path.name


class Covariance(_WithFloor):
    """Covariance (n, n) of the fitted channels from a file.

    Parameters
    ----------
    file : str
        File with the matrix, in the square of `unit`.
    """

    model: Literal["covariance"] = "covariance"
    file: str

    def build(self, spectrum) -> Noise:
        """As `NoiseBlock.build`.

        Raises
        ------
        InputError
            The file does not exist or contains no numbers, or the number of channels differs.
        """
        path = user_path(self.file, "noise file")
        array, n = read_numbers(path), len(spectrum.frequency)
        if array.shape != (n, n):
            raise InputError(
                f"noise: {path.name} is {' x '.join(map(str, array.shape))}, but {n} channels are fitted (those with "
                f"non-zero weight inside the band); give {n} x {n} numbers"
            )
        array = array * self._factor * self._factor
        if not (np.abs(array) <= LARGEST).all():
            raise InputError(f"noise: {path.name} contains values that are not finite; give {n} x {n} finite numbers")
        return Noise(_number(self.floor or 0.0), array, "floor")


class Sky(Block):
    """Sky temperature as a power law.

    Parameters
    ----------
    temperature : float
        Temperature at `frequency` [K].
    frequency : float
        Reference frequency [MHz].
    index : float
        Spectral index.
    """

    temperature: Positive
    frequency: Positive
    index: Number


class Radiometer(NoiseBlock):
    """Noise from the radiometer equation, sigma(nu) = T_sky(nu) / sqrt(dnu tau), with a floor added in quadrature.

    The noise is divided by the square root of the weights, as in Sims et al. (2019, arXiv:1910.03165).

    Parameters
    ----------
    channel_width : float
        Width of a channel, dnu [MHz].
    integration_time : float
        Integration time of a channel of weight one, tau [h].
    sky : "data", "model" or Sky, optional
        Sky temperature: that of the data (the default), that of the model of the data at the parameters of the fit, or
        a power law.
    floor : float or "free", optional
        Further noise of a channel of weight one, added in quadrature [mK]; 0 by default.
    """

    model: Literal["radiometer"] = "radiometer"
    channel_width: Positive
    integration_time: Positive
    sky: Literal["data", "model"] | Sky | None = None
    floor: FloorOrFree | None = None

    def build(self, spectrum) -> Noise:
        """As `NoiseBlock.build`.

        Raises
        ------
        InputError
            The data are not sky temperatures, or the noise is out of bounds.
        """
        frequency, temperature = spectrum.frequency, spectrum.temperature
        if not isinstance(self.sky, Sky):
            if not (temperature > 0).all():
                raise InputError(
                    f"noise: radiometer noise needs the sky temperature, but the data go down to "
                    f"{temperature.min():.4g} mK (was a foreground subtracted?); "
                    "give sky: {temperature: K, frequency: MHz, index: -2.5}"
                )
            sky_mk = temperature
        else:
            with np.errstate(over="ignore", under="ignore"):
                sky_mk = 1000.0 * self.sky.temperature * (frequency / self.sky.frequency) ** self.sky.index
        samples = self.channel_width * 1e6 * self.integration_time * 3600.0
        with np.errstate(over="ignore", under="ignore"):
            variance = radiometer_variance(sky_mk, samples, spectrum.weight)
        if not ((variance >= SMALLEST_SIGMA**2) & (variance <= LARGEST_SIGMA**2)).all():
            low, high = np.sqrt(variance.min()), np.sqrt(variance.max())
            raise InputError(
                f"noise: the radiometer equation gives {low:.3g} to {high:.3g} mK; check channel_width (MHz), "
                "integration_time (hours) and sky (K, MHz)"
            )
        of_model = samples if self.sky == "model" else None
        return Noise(_number(self.floor or 0.0), variance, "floor", samples=of_model)


def radiometer_variance(sky: np.ndarray, samples: float, weight: np.ndarray) -> np.ndarray:
    """Variance (n,) in mK^2 of channels with a sky (n,) in mK and these weights: the radiometer equation."""
    return sky**2 / samples / weight


NOISE: dict[str, type[NoiseBlock]] = {
    "white": White,
    "student_t": StudentT,
    "channels": Channels,
    "covariance": Covariance,
    "radiometer": Radiometer,
}
"""Noise models by their names in run files; the first is the default."""

NoiseOptions = Annotated[SerializeAsAny[NoiseBlock], BeforeValidator(functools.partial(validate_model, NOISE, "noise"))]
"""A ``noise:`` block, validated by the class of its model."""
