"""Neutral hydrogen fraction: measurements and one-sided limits."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ValidationError

from lstmfit.errors import InputError, did_you_mean, listed, one_line
from lstmfit.likelihoods import asymmetric
from lstmfit.likelihoods.base import read_options
from lstmfit.schema import Block, NotNegative, Number, Positive, first_mistake, shown


@dataclass(frozen=True)
class Point:
    """One constraint on x_HI.

    Parameters
    ----------
    z, value : float
        Redshift, and neutral fraction or a limit on it.
    err_up, err_down : float
        Errors; for a limit, err_up is its width.
    kind : {"measurement", "upper", "lower"}
        Measurement, upper limit or lower limit.
    source : str
        Object that the constraint comes from, such as a quasar; two points from one object are not independent.
    name : str
        Name for messages.
    """

    z: float
    value: float
    err_up: float
    err_down: float
    kind: str = "measurement"
    source: str = ""
    name: str = ""


class PointBlock(Block):
    """A `Point` in a run file.

    Parameters
    ----------
    z : float
        Redshift.
    value : float
        Neutral fraction, or a limit on it.
    err_up, err_down : float
        Upper and lower error; for a limit, err_up is its width.
    kind : {"measurement", "upper", "lower"}
        Measurement, upper limit or lower limit.
    source : str
        Object that the constraint comes from, such as a quasar. Two points from one object are refused.
    name : str
        Name for messages.
    """

    z: NotNegative
    value: Number
    err_up: Positive
    err_down: Positive
    kind: Literal["measurement", "upper", "lower"] = "measurement"
    source: str = ""
    name: str = ""


def _name_or_block(value):
    """A point of a run file; validated here, so that a mistake is reported once instead of once per allowed type."""
    if isinstance(value, (str, PointBlock)):
        return value
    try:
        return PointBlock.model_validate(value)
    except ValidationError as error:
        raise ValueError(
            f"{first_mistake(error)}; a point is a name or {{z, value, err_up, err_down, kind, source}}"
        ) from None


class Options(Block):
    """Options of `NeutralFraction`, see ``x_HI.yaml``.

    Parameters
    ----------
    points : list of (str or PointBlock)
        Constraints, by their names in `known` or as mappings.
    limit_form : {"erf", "half_gaussian"}
        Density of limits: error functions, or flat with a Gaussian tail as in 21CMMC.
    emulator_error : float
        Error of the emulated x_HI, added in quadrature.
    known : dict of str to PointBlock
        Known constraints by name.
    """

    points: list[Annotated[Any, BeforeValidator(_name_or_block)]]
    limit_form: Literal["erf", "half_gaussian"]
    emulator_error: NotNegative
    known: dict[str, PointBlock]


class NeutralFraction:
    """Likelihood of independent constraints on the neutral fraction x_HI(z).

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) redshift grid of the model, ascending.
    **options
        Options of ``x_HI.yaml``: points, by name or as mappings; the form of limits; the emulator error.

    Raises
    ------
    InputError
        A point or an option is unknown, a redshift is outside the grid, a value or an error is invalid, or two points
        come from the same object.
    """

    outputs = ("x_HI",)
    names = ()

    def __init__(self, redshifts: np.ndarray, /, **options):
        given = read_options("x_HI", Options, options)
        self.points = [_read_point(point, given.known) for point in given.points]
        if not self.points:
            raise InputError("likelihood.x_HI: no points; list at least one, or remove the likelihood")
        sources = [p.source for p in self.points if p.source]
        twice = {s for s in sources if sources.count(s) > 1}
        if twice:
            names = listed(p.name for p in self.points if p.source in twice)
            raise InputError(f"likelihood.x_HI: {names} are from the same object {shown(min(twice))}; keep one of them")
        self._limit = asymmetric.upper_limit if given.limit_form == "erf" else asymmetric.half_gaussian
        z = np.array([p.z for p in self.points])
        if z.min() < redshifts[0] or z.max() > redshifts[-1]:
            raise InputError(
                f"likelihood.x_HI: points at z {z.min():g} to {z.max():g}, but the model spans "
                f"{redshifts[0]:g} to {redshifts[-1]:g}; remove the points outside"
            )
        self._low = np.clip(np.searchsorted(redshifts, z, side="right") - 1, 0, len(redshifts) - 2)
        self._fraction = (z - redshifts[self._low]) / (redshifts[self._low + 1] - redshifts[self._low])
        extra = given.emulator_error
        self._terms = [
            (p.kind, p.value, float(np.hypot(p.err_up, extra)), float(np.hypot(p.err_down, extra))) for p in self.points
        ]

    def predict(self, x_hi: np.ndarray) -> np.ndarray:
        """Neutral fraction (n_points,) at the redshifts of the points, interpolated linearly from (n_channels,)."""
        low = x_hi[self._low]
        return low + self._fraction * (x_hi[self._low + 1] - low)

    def __call__(self, x_hi: np.ndarray, values) -> float:
        """Log likelihood of a history of the neutral fraction (n_channels,)."""
        total = 0.0
        for model, (kind, value, up, down) in zip(self.predict(x_hi).tolist(), self._terms):
            if kind == "measurement":
                total += asymmetric.two_piece(model, value, up, down)
            elif kind == "upper":
                total += self._limit(model, value, up)
            else:
                # A lower limit on the neutral fraction is an upper limit on the ionised fraction.
                total += self._limit(1.0 - model, 1.0 - value, up)
        return total

    def mocked(self, arguments, rng: np.random.Generator | None) -> dict:
        """Options of a mock: the values of the model instead of the measured values and limits.

        Parameters
        ----------
        arguments : sequence
            Arguments of a call at the true parameters.
        rng : numpy.random.Generator or None
            Random generator for the noise of measurements; None for a mock without noise.
        """
        points = []
        for point, truth in zip(self.points, self.predict(np.asarray(arguments[0], dtype=float)).tolist()):
            z = 0.0 if rng is None or point.kind != "measurement" else rng.standard_normal()
            value = truth - z * (point.err_up if z > 0 else point.err_down)
            value = value if point.kind == "measurement" else min(max(value, 0.0), 1.0)
            points.append(
                {
                    "z": point.z,
                    "value": value,
                    "err_up": point.err_up,
                    "err_down": point.err_down,
                    "kind": point.kind,
                    "source": point.source,
                    "name": f"mock of {point.name}",
                }
            )
        return {"points": points}


def _read_point(point, known) -> Point:
    if isinstance(point, str):
        if point not in known:
            raise InputError(f"likelihood.x_HI: unknown point {shown(point)}; {did_you_mean(point, known)}")
        point = known[point].model_copy(update={"name": point})
    read = Point(**point.model_dump())
    where = f"likelihood.x_HI: {one_line(read.name, 60) or 'point'} at z {read.z}"
    if read.kind != "measurement" and not 0 <= read.value <= 1:
        raise InputError(f"{where}: value is {read.value}, but a limit on a fraction must be between 0 and 1")
    return read
