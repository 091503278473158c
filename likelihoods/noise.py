"""Noise models of a spectrum: what a run file's ``noise:`` block becomes.

Every Gaussian one is C = sigma^2 diag(1 / weight) + E, with a number sigma, fixed or free, and a fixed E: the
radiometer equation, one sigma per channel or a covariance from a file. So they share one fast likelihood.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmfit.datasets.spectrum import UNITS
from lstmfit.errors import InputError, one_line
from lstmfit.files import user_path
from lstmfit.schema import LARGEST

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


def _number(value):
    return None if value == "free" else float(value)


def white(sigma) -> Noise:
    """White noise of `sigma` mK, or ``"free"``."""
    return Noise(_number(sigma))


def student_t(sigma, dof) -> Noise:
    """Student-t noise of scale `sigma` mK and `dof` degrees of freedom, each a number or ``"free"``."""
    return Noise(_number(sigma), student=True, dof=_number(dof))


def radiometer(frequency, temperature, weight, channel_width, integration_time, sky="data", floor=0.0) -> Noise:
    """Noise by the radiometer equation, sigma(nu) = T_sky(nu) / sqrt(dnu tau), with a floor added in quadrature.

    Both are divided by the square root of the weights, as in Sims et al. (2019, arXiv:1910.03165).

    Parameters
    ----------
    frequency, temperature, weight : numpy.ndarray
        (n,) MHz, mK and weights of the data.
    channel_width : float
        dnu in MHz.
    integration_time : float
        tau in hours.
    sky : "data" or mapping
        T_sky is the data themselves, or a power law ``{temperature: K, frequency: MHz, index}``.
    floor : float or "free"
        In mK.

    Raises
    ------
    InputError
        The data are not sky temperatures.
    """
    if sky == "data":
        if not (temperature > 0).all():
            raise InputError(
                f"noise: radiometer noise needs the temperature of the sky, but the data go down to "
                f"{temperature.min():.4g} mK (was a foreground subtracted?); "
                "give sky: {temperature: K, frequency: MHz, index: -2.5}"
            )
        sky_mk = temperature
    else:
        with np.errstate(over="ignore", under="ignore"):
            sky_mk = 1000.0 * sky["temperature"] * (frequency / sky["frequency"]) ** sky["index"]
    samples = channel_width * 1e6 * integration_time * 3600.0
    with np.errstate(over="ignore", under="ignore"):
        variance = sky_mk**2 / samples / weight
    if not ((variance >= SMALLEST_SIGMA**2) & (variance <= LARGEST_SIGMA**2)).all():
        low, high = np.sqrt(variance.min()), np.sqrt(variance.max())
        raise InputError(
            f"noise: the radiometer equation gives {low:.3g} to {high:.3g} mK; check channel_width (MHz), "
            "integration_time (hours) and sky (K, MHz)"
        )
    return Noise(_number(floor), variance, "floor")


def from_file(file, n: int, kind: str, unit: str = "mK", column: int = 0, floor=0.0) -> Noise:
    """One sigma per channel, or a covariance, from a file; the data's weights scale only the floor.

    Parameters
    ----------
    file : path
        Text (commas or blanks between numbers, # starts a comment) or ``.npy``.
    n : int
        Number of channels that are fitted.
    kind : {"channels", "covariance"}
        A column of standard deviations, or an (n, n) matrix of covariances.
    unit : {"mK", "K"}
        Of the standard deviations; the covariance is in its square.
    column : int
        Which column of a table of channels.
    floor : float or "free"
        Added in quadrature, in mK.

    Raises
    ------
    InputError
        No such file, not numbers, another number of channels, or a sigma that is not positive.
    """
    array = _read_numbers(user_path(file, "noise file")) * UNITS[unit]
    if kind == "covariance":
        if array.shape != (n, n):
            raise InputError(
                f"noise: {Path(file).name} is {' x '.join(map(str, array.shape))}; {n} channels are fitted (those with "
                f"weight, inside the band), so {n} x {n} numbers are needed"
            )
        if not (np.abs(array) <= LARGEST).all():
            raise InputError(f"noise: {Path(file).name} has a covariance that is not finite; give {n} x {n} numbers")
        return Noise(_number(floor), array * UNITS[unit], "floor")
    path = Path(file)
    if array.ndim == 2:
        if not 0 <= column < array.shape[1]:
            raise InputError(f"noise: {path.name} has no column {column}; columns are 0 to {array.shape[1] - 1}")
        array = array[:, column]
    if array.shape != (n,):
        raise InputError(
            f"noise: {path.name} has {len(array)} rows; {n} channels are fitted (those with weight, inside the band)"
        )
    wrong = ~((array >= SMALLEST_SIGMA) & (array <= LARGEST_SIGMA))
    if wrong.any():
        raise InputError(
            f"noise: {path.name} has a sigma of {array[wrong][0]:g} mK in row {wrong.argmax()}; numbers from "
            f"{SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g} mK are needed"
        )
    return Noise(_number(floor), array**2, "floor")


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
