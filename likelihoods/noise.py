"""Noise models of a spectrum: each is the run file's ``noise:`` block of its name, and builds a `Noise`.

Every Gaussian one is C = sigma^2 diag(1 / weight) + E, with a number sigma, fixed or free, and a fixed E: the
radiometer equation, one sigma per channel or a covariance from a file. So they share one fast likelihood.

A leaf without pandas and SciPy: the run file is validated with it. A new model is one class and its entry in `NOISE`.
"""

import dataclasses
import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, SerializeAsAny

from lstmfit.datasets.columns import UNITS
from lstmfit.errors import InputError, one_line
from lstmfit.files import user_path
from lstmfit.mistakes import validate_model
from lstmfit.schema import LARGEST, Block, Index, Number, Positive, shown, to_number

SMALLEST_SIGMA, LARGEST_SIGMA = 1e-6, 1e12
"""mK: bounds of a standard deviation. Below, the rounding of the data's own numbers is larger than the noise."""


@dataclass(frozen=True)
class Noise:
    """Noise of a spectrum.

    Parameters
    ----------
    sigma : float or None
        Standard deviation of a channel of weight one in mK, besides `extra`; None where it is free.
    extra : numpy.ndarray, optional
        E in mK^2, (n,) where it is diagonal or (n, n).
    name : str
        Name of sigma where it is free: ``sigma``, or ``floor`` where there is an E.
    student : bool
        Student-t instead of Gaussian.
    dof : float or None
        Degrees of freedom of a Student-t; None where they are free (the parameter ``dof``).
    """

    sigma: float | None
    extra: np.ndarray | None = None
    name: str = "sigma"
    student: bool = False
    dof: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its free parameters."""
        return ((self.name,) if self.sigma is None else ()) + (("dof",) if self.student and self.dof is None else ())

    def at(self, values) -> "Noise":
        """The same with its free parameters set to values (len(names),)."""
        found = dict(zip(self.names, (float(v) for v in values)))
        sigma = self.sigma if self.sigma is not None else found[self.name]
        return dataclasses.replace(self, sigma=sigma, dof=found.get("dof", self.dof))

    def in_order(self, order: np.ndarray) -> "Noise":
        """The same for the channels in another order, (n,) indices."""
        if self.extra is None:
            return self
        extra = np.asarray(self.extra)
        return dataclasses.replace(self, extra=extra[order] if extra.ndim == 1 else extra[np.ix_(order, order)])

    def draw(self, weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw noise (n,) mK for channels of these weights.

        Raises
        ------
        InputError
            Something is free, so there is nothing to draw from.
        """
        if self.names:
            raise InputError(f"mock noise: {' and '.join(self.names)} is free; a mock needs a number")
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
        raise ValueError(f"{shown(value)} is neither {what} nor free (free: it is fitted)")
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
    """Abstract: options of a noise model in mK; ``free`` fits a number as the parameter sigma, floor or dof."""

    model: str

    def build(self, frequency: np.ndarray, temperature: np.ndarray, weight: np.ndarray) -> Noise:
        """The noise of the channels of a spectrum.

        Parameters
        ----------
        frequency, temperature, weight : numpy.ndarray
            (n,) MHz, mK and weights of the data.

        Raises
        ------
        InputError
            The options do not suit the channels.
        """
        raise NotImplementedError

    def beside(self, folder: Path) -> "NoiseBlock":
        """The same with the path of its file, if it has one, taken from a folder."""
        return self


class White(NoiseBlock):
    """White noise of `sigma` mK."""

    model: Literal["white"] = "white"
    sigma: PositiveOrFree

    def build(self, frequency, temperature, weight) -> Noise:
        """As `NoiseBlock.build`."""
        return Noise(_number(self.sigma))


class StudentT(NoiseBlock):
    """Student-t noise of scale `sigma` mK and `dof` degrees of freedom."""

    model: Literal["student_t"] = "student_t"
    sigma: PositiveOrFree
    dof: PositiveOrFree

    def build(self, frequency, temperature, weight) -> Noise:
        """As `NoiseBlock.build`."""
        return Noise(_number(self.sigma), student=True, dof=_number(self.dof))


class _FromFile(NoiseBlock):
    """Noise from a file of numbers: text (commas or blanks between numbers, # starts a comment) or ``.npy``.

    The data's weights scale only the floor, which is added in quadrature.
    """

    file: str
    unit: Literal["K", "mK"] | None = None
    floor: FloorOrFree | None = None

    def beside(self, folder) -> "NoiseBlock":
        """As `NoiseBlock.beside`."""
        return self.model_copy(update={"file": str(folder / user_path(self.file, "noise file"))})

    def _read(self):
        """Numbers of the file, its name for messages, what brings them to mK, and the floor."""
        factor = UNITS[self.unit or "mK"]
        array = _read_numbers(user_path(self.file, "noise file"))
        return array * factor, Path(self.file).name, factor, _number(self.floor or 0.0)


class Channels(_FromFile):
    """One standard deviation for each channel that is fitted, from a column of a file."""

    model: Literal["channels"] = "channels"
    column: Index | None = None

    def build(self, frequency, temperature, weight) -> Noise:
        """As `NoiseBlock.build`.

        Raises
        ------
        InputError
            No such file, not numbers, another number of channels, or a sigma that is not positive.
        """
        array, name, _, floor = self._read()
        column, n = self.column or 0, len(frequency)
        if array.ndim == 2:
            if not 0 <= column < array.shape[1]:
                raise InputError(f"noise: {name} has no column {column}; columns are 0 to {array.shape[1] - 1}")
            array = array[:, column]
        if array.shape != (n,):
            raise InputError(
                f"noise: {name} has {len(array)} rows; {n} channels are fitted (those with weight, inside the band)"
            )
        wrong = ~((array >= SMALLEST_SIGMA) & (array <= LARGEST_SIGMA))
        if wrong.any():
            raise InputError(
                f"noise: {name} has a sigma of {array[wrong][0]:g} mK in row {wrong.argmax()}; numbers from "
                f"{SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g} mK are needed"
            )
        return Noise(floor, array**2, "floor")


class Covariance(_FromFile):
    """A covariance (n, n) of the channels that are fitted, from a file; in the square of the unit."""

    model: Literal["covariance"] = "covariance"

    def build(self, frequency, temperature, weight) -> Noise:
        """As `NoiseBlock.build`.

        Raises
        ------
        InputError
            No such file, not numbers, or another number of channels.
        """
        array, name, factor, floor = self._read()
        n = len(frequency)
        if array.shape != (n, n):
            raise InputError(
                f"noise: {name} is {' x '.join(map(str, array.shape))}; {n} channels are fitted (those with "
                f"weight, inside the band), so {n} x {n} numbers are needed"
            )
        if not (np.abs(array) <= LARGEST).all():
            raise InputError(f"noise: {name} has a covariance that is not finite; give {n} x {n} numbers")
        return Noise(floor, array * factor, "floor")


class Sky(Block):
    """Temperature of the sky as a power law of frequency: K, MHz and the index."""

    temperature: Positive
    frequency: Positive
    index: Number


class Radiometer(NoiseBlock):
    """Noise by the radiometer equation, sigma(nu) = T_sky(nu) / sqrt(dnu tau), with a floor added in quadrature.

    `channel_width` is dnu in MHz, `integration_time` tau in hours; T_sky is the data themselves, or a power law. All
    is divided by the square root of the weights, as in Sims et al. (2019, arXiv:1910.03165).
    """

    model: Literal["radiometer"] = "radiometer"
    channel_width: Positive
    integration_time: Positive
    sky: Literal["data"] | Sky | None = None
    floor: FloorOrFree | None = None

    def build(self, frequency, temperature, weight) -> Noise:
        """As `NoiseBlock.build`.

        Raises
        ------
        InputError
            The data are not sky temperatures, or the noise is out of bounds.
        """
        if not isinstance(self.sky, Sky):
            if not (temperature > 0).all():
                raise InputError(
                    f"noise: radiometer noise needs the temperature of the sky, but the data go down to "
                    f"{temperature.min():.4g} mK (was a foreground subtracted?); "
                    "give sky: {temperature: K, frequency: MHz, index: -2.5}"
                )
            sky_mk = temperature
        else:
            with np.errstate(over="ignore", under="ignore"):
                sky_mk = 1000.0 * self.sky.temperature * (frequency / self.sky.frequency) ** self.sky.index
        samples = self.channel_width * 1e6 * self.integration_time * 3600.0
        with np.errstate(over="ignore", under="ignore"):
            variance = sky_mk**2 / samples / weight
        if not ((variance >= SMALLEST_SIGMA**2) & (variance <= LARGEST_SIGMA**2)).all():
            low, high = np.sqrt(variance.min()), np.sqrt(variance.max())
            raise InputError(
                f"noise: the radiometer equation gives {low:.3g} to {high:.3g} mK; check channel_width (MHz), "
                "integration_time (hours) and sky (K, MHz)"
            )
        return Noise(_number(self.floor or 0.0), variance, "floor")


NOISE: dict[str, type[NoiseBlock]] = {
    "white": White,
    "student_t": StudentT,
    "channels": Channels,
    "covariance": Covariance,
    "radiometer": Radiometer,
}
"""Noise models by the name that run files use; the first is the default."""

NoiseOptions = Annotated[SerializeAsAny[NoiseBlock], BeforeValidator(functools.partial(validate_model, NOISE, "noise"))]
"""A ``noise:`` block of whatever model it names."""


def _read_numbers(path) -> np.ndarray:
    """A table (rows, columns) or an array of numbers, from text or from ``.npy``; real, and one or two axes."""
    if not path.is_file():
        raise InputError(f"noise: no file {path}; a path is relative to the folder of the run file")
    try:
        if path.suffix == ".npy":
            # Not np.load, which takes anything that it can read: a .npz under this name, an archive, a pickle.
            with path.open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        else:
            with warnings.catch_warnings():
                # Of an empty file, which is refused below.
                warnings.simplefilter("ignore", UserWarning)
                array = np.loadtxt(path.read_text(encoding="utf-8-sig").replace(",", " ").splitlines(), ndmin=2)
    except (ValueError, OSError, EOFError, MemoryError, OverflowError) as error:
        raise InputError(f"noise: {path.name} is not a table of numbers ({one_line(error, 120)})") from None
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or not array.size:
        raise InputError(
            f"noise: {path.name} has shape {array.shape} and type {array.dtype}; a column or a table of real numbers "
            "is needed"
        )
    return array.astype(float)
