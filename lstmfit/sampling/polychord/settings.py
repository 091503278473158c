"""Settings of PolyChord: its block of the run file."""

from typing import Annotated

from pydantic import Field, StrictBool, model_validator

from lstmfit.errors import InputError
from lstmfit.sampling.settings import MOST_POINTS, Fraction, Points, SamplerSettings, TimesD
from lstmfit.schema import Positive, Seed


class PolyChordSettings(SamplerSettings):
    """Settings of PolyChord.

    Parameters
    ----------
    n_live : int or str
        Live points; ``25d`` is 25 times the number of sampled parameters. ``nlive`` in run files, as in Cobaya.
    num_repeats : int or str
        Slice-sampling steps per new point; ``5d`` is 5 times the number of sampled parameters.
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

    n_live: TimesD = Field("25d", alias="nlive")
    num_repeats: TimesD = "5d"
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

    def check_grades(self, n: int) -> None:
        """Check that the grades add up to `n` parameters.

        Raises
        ------
        InputError
            They do not.
        """
        if self.grade_dims is not None and sum(self.grade_dims) != n:
            raise InputError(f"grade_dims add up to {sum(self.grade_dims)}, but there are {n} sampled parameters")
