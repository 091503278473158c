"""Base class and types of the samplers' settings; imports no sampler."""

import re
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, ValidationError

from lstmfit.errors import InputError
from lstmfit.schema import Block, Count, Positive, Seed, first_mistake, shown

MOST_POINTS = 1_000_000
"""Upper limit for numbers of live points, repeats etc.: arrays fit in memory, and sums in a Fortran integer."""


def times_d(value):
    """Check an integer or a multiple of d (ValueError)."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not (isinstance(value, str) and re.fullmatch(r"[1-9][0-9]*d", value)):
        raise ValueError(f"{shown(value)} is neither an integer nor a multiple of d such as 25d")
    if not 1 <= int(str(value)[:20].rstrip("d")) <= MOST_POINTS:
        raise ValueError(f"{shown(value)} is out of bounds; give 1 to {MOST_POINTS}, or 1d to {MOST_POINTS}d")
    return value


TimesD = Annotated[int | str, BeforeValidator(times_d)]
"""An integer, or a multiple of the number of sampled parameters such as 25d."""
Points = Annotated[Count, Field(le=MOST_POINTS)]
Fraction = Annotated[Positive, Field(lt=1)]


class SamplerSettings(Block):
    """Settings of a sampler: its block of the run file.

    Parameters
    ----------
    n_live : int or str
        Number of live points; ``25d`` is 25 times the number of sampled parameters.
    seed : int
        Seed of the random number generator.
    """

    n_live: TimesD
    seed: Seed
    ADDED: ClassVar[tuple[str, ...]] = ()
    """Keys of settings with a default that run folders of earlier versions do not have."""

    def resolved(self, d: int) -> "SamplerSettings":
        """Copy in which multiples of `d`, the number of sampled parameters, are replaced by integers.

        Raises
        ------
        InputError
            The integers do not fit together.
        """
        given = self.model_dump()
        worked_out = {k: int(v[:-1]) * d for k, v in given.items() if isinstance(v, str) and re.fullmatch(r"\d+d", v)}
        try:
            return type(self).model_validate(given | worked_out)
        except ValidationError as error:
            raise InputError(f"sampler: {first_mistake(error)}") from None
