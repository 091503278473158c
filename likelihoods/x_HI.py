"""Neutral fraction of hydrogen: measurements and one-sided limits."""

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
        Redshift; neutral fraction or limit on it.
    err_up, err_down : float
        Errors; of a limit the first is its width.
    kind : {"measurement", "upper", "lower"}
        What it is.
    source : str
        The object it comes from, such as a quasar: two points of one object are not independent.
    name : str
        For messages.
    """

    z: float
    value: float
    err_up: float
    err_down: float
    kind: str = "measurement"
    source: str = ""
    name: str = ""


class PointBlock(Block):
    """A `Point` in a run file."""

    z: NotNegative
    value: Number
    err_up: Positive
    err_down: Positive
    kind: Literal["measurement", "upper", "lower"] = "measurement"
    source: str = ""
    name: str = ""


def _name_or_block(value):
    """One of the points of a run file; validated at once, so that a mistake is reported once and not for each kind."""
    if isinstance(value, (str, PointBlock)):
        return value
    try:
        return PointBlock.model_validate(value)
    except ValidationError as error:
        raise ValueError(
            f"{first_mistake(error)}; a point is a name or {{z, value, err_up, err_down, kind, source}}"
        ) from None


class Options(Block):
    """Options of `NeutralFraction`, see ``x_HI.yaml``."""

    points: list[Annotated[Any, BeforeValidator(_name_or_block)]]
    limit_form: Literal["erf", "half_gaussian"]
    emulator_error: NotNegative
    known: dict[str, PointBlock]


class NeutralFraction:
    """Likelihood of points of the neutral fraction x_HI(z), independent of each other.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) the model's grid, ascending.
    **options
        Those of ``x_HI.yaml``: which points, by name or as mappings; the form of limits; the emulator's error.

    Raises
    ------
    InputError
        Unknown point or option, a redshift outside the grid, an impossible value or error, or two points of one
        quasar.
    """

    outputs = ("x_HI",)
    names = ()

    def __init__(self, redshifts: np.ndarray, /, **options):
        given = read_options("x_HI", Options, options)
        self.points = [_read_point(point, given.known) for point in given.points]
        if not self.points:
            raise InputError("likelihood.x_HI: no points; list at least one, or take the likelihood out")
        sources = [p.source for p in self.points if p.source]
        twice = {s for s in sources if sources.count(s) > 1}
        if twice:
            names = listed(p.name for p in self.points if p.source in twice)
            raise InputError(f"likelihood.x_HI: {names} are of the same object {shown(min(twice))}; keep one of them")
        self._limit = asymmetric.upper_limit if given.limit_form == "erf" else asymmetric.half_gaussian
        z = np.array([p.z for p in self.points])
        if z.min() < redshifts[0] or z.max() > redshifts[-1]:
            raise InputError(
                f"likelihood.x_HI: points at z {z.min():g} to {z.max():g}, but the model spans "
                f"{redshifts[0]:g} to {redshifts[-1]:g}; leave out those beyond"
            )
        self._low = np.clip(np.searchsorted(redshifts, z, side="right") - 1, 0, len(redshifts) - 2)
        self._fraction = (z - redshifts[self._low]) / (redshifts[self._low + 1] - redshifts[self._low])
        extra = given.emulator_error
        self._terms = [
            (p.kind, p.value, float(np.hypot(p.err_up, extra)), float(np.hypot(p.err_down, extra))) for p in self.points
        ]

    def predict(self, x_hi: np.ndarray) -> np.ndarray:
        """Neutral fraction (n_channels,) at the points' redshifts, (n_points,): linear between the model's channels."""
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
                # A lower limit on the neutral fraction is an upper one on the ionised fraction.
                total += self._limit(1.0 - model, 1.0 - value, up)
        return total

    def mocked(self, arguments, rng: np.random.Generator | None) -> dict:
        """Options of a mock: the model's own values in place of the measured ones, limits at the model's value.

        Parameters
        ----------
        arguments : sequence
            What a call would get at the truth.
        rng : numpy.random.Generator or None
            Draws the noise of measurements; without it the mock lies at the truth.
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
        raise InputError(f"{where}: value is {read.value}; a limit on a fraction lies between 0 and 1")
    return read
