"""Settings of PolyChord: its block of the run file."""

import math
import re
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from lstmfit.errors import InputError
from lstmfit.sampling.settings import MOST_POINTS, Fraction, Points, SamplerSettings, TimesD, times_d
from lstmfit.schema import Positive, Seed, shown


def _times_n_live(value):
    if isinstance(value, str) and value.endswith("nlive"):
        if not re.fullmatch(r"[1-9][0-9]{0,5}nlive", value):
            raise ValueError(f"{shown(value)} is out of bounds; give 1nlive to 999999nlive")
        return value
    return times_d(value)


class PolyChordSettings(SamplerSettings):
    """Settings of PolyChord.

    Parameters
    ----------
    n_live : int or str
        Live points; ``25d`` is 25 times the number of sampled parameters. ``nlive`` in run files, as in Cobaya.
    num_repeats : int or str
        Slice-sampling steps per new point; ``5d`` is 5 times the number of sampled parameters.
    n_prior : int or str, optional
        Draws from the prior before the compression begins; ``10nlive`` is 10 times the number of live points. Rounded
        up to a power of two times the number of live points. By default, the largest such number that does not exceed
        the live points times `num_repeats`. ``nprior`` in run files, as in Cobaya.
    precision_criterion : float
        The run ends when the live points contain this fraction of the evidence.
    seed : int
        Seed of PolyChord's random number generator.
    do_clustering : bool
        Search for clusters. Off by default, because it biases the evidence reported by the library.
    grade_dims : tuple of int, optional
        Number of parameters of each speed, slow ones first; one speed by default.
    grade_frac : tuple of float, optional
        If all are above 1, the number of repeats of each speed, instead of `num_repeats`. Otherwise fractions of the
        time, which PolyChord measures, so that the run is not exactly reproducible.
    """

    ADDED: ClassVar = ("nprior",)
    n_live: TimesD = Field("25d", alias="nlive")
    num_repeats: TimesD = "5d"
    n_prior: Annotated[int | str, BeforeValidator(_times_n_live)] | None = Field(None, alias="nprior")
    precision_criterion: Fraction = 1e-3
    seed: Seed = 0
    do_clustering: StrictBool = False
    grade_dims: tuple[Points, ...] | None = None
    grade_frac: tuple[Annotated[Positive, Field(le=MOST_POINTS)], ...] | None = None

    @model_validator(mode="after")
    def _grades_belong_together(self):
        dims, frac = self.grade_dims, self.grade_frac
        if (dims is None) != (frac is None):
            raise ValueError("only one of grade_dims and grade_frac is given; give both or neither")
        if dims is None:
            return self
        if len(dims) != len(frac):
            raise ValueError(f"grade_dims has {len(dims)} entries, grade_frac {len(frac)}; give one per speed")
        if not all(x > 1 and x == int(x) for x in frac) and not all(x <= 1 for x in frac):
            raise ValueError(
                f"grade_frac is {list(frac)}; give integer numbers of repeats above 1, or fractions of the time up to 1"
            )
        return self

    @model_validator(mode="after")
    def _enough_points(self):
        if isinstance(self.n_live, int) and self.n_live < 2:
            raise ValueError(f"nlive is {self.n_live}, but at least 2 live points are needed")
        return self

    @model_validator(mode="after")
    def _enough_prior_draws(self):
        if isinstance(self.n_prior, int) and isinstance(self.n_live, int) and self.n_prior < self.n_live:
            raise ValueError(f"nprior is {self.n_prior}, fewer than the {self.n_live} live points; give at least nlive")
        return self

    def resolved(self, d: int) -> "PolyChordSettings":
        """See `lstmfit.sampling.settings.SamplerSettings.resolved`."""
        settings = PolyChordSettings.model_validate(super().resolved(d).model_dump())
        return PolyChordSettings.model_validate(settings.model_dump() | {"n_prior": settings.prior_draws})

    @property
    def prior_draws(self) -> int:
        """Number of draws from the prior, for resolved `n_live` and `num_repeats`.

        A draw takes one call, but a later point `num_repeats` steps of one call or more. The cheapest way is therefore
        to draw until about one in `num_repeats` is kept.
        """
        if self.n_prior is None:
            return self.n_live * 2 ** int(math.log2(self.num_repeats))
        if isinstance(self.n_prior, str):
            times = int(self.n_prior.removesuffix("nlive"))
        else:
            times = self.n_prior / self.n_live
        # PolyChord doubles the array of the live points when it is full, and takes the rest of it, which is not
        # initialised, for live points as well.
        return self.n_live * 2 ** math.ceil(math.log2(times))

    def share(self, n_live: int, seed: int) -> "PolyChordSettings":
        """Settings of one of several serial runs, which has `n_live` of the live points."""
        draws = self.prior_draws // self.n_live * n_live
        return self.model_copy(update={"n_live": n_live, "n_prior": draws, "seed": seed})

    def check_grades(self, n: int) -> None:
        """Check that the grades add up to `n` parameters.

        Raises
        ------
        InputError
            They do not.
        """
        if self.grade_dims is not None and sum(self.grade_dims) != n:
            raise InputError(f"grade_dims add up to {sum(self.grade_dims)}, but there are {n} sampled parameters")
