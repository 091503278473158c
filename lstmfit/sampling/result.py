"""What samplers report, whichever they are: how far a run is, and what it came to."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Parameters
    ----------
    n_dead : int
        Dead points so far, at the last update of the files.
    n_like : int
        Likelihood calls so far.
    logZ, logZ_err : float
        Running estimate of the log-evidence with the live points' share, and its error; NaN before the first
        update.
    logL_min, logL_max : float
        Range of the live points' log-likelihood; NaN before the first update.
    elapsed : float
        Seconds, interruptions not counted.
    remaining : float or None
        Seconds that are left, see `lstmfit.sampling.countdown.Countdown`; None where it is not known.
    climbing : bool
        The live points still climb: `remaining` is a lower bound.
    stage : str
        What a sampler without dead points is at, in words; empty for the others.
    """

    n_dead: int
    n_like: int
    logZ: float = math.nan
    logZ_err: float = math.nan
    logL_min: float = math.nan
    logL_max: float = math.nan
    elapsed: float = 0.0
    remaining: float | None = None
    climbing: bool = False
    stage: str = ""


@dataclass(frozen=True)
class Result:
    """What a run came to. Where there are birth contours, the evidence to quote is the one that anesthetic computes.

    Parameters
    ----------
    n_like : int
        Likelihood calls, interruptions included.
    n_dead : int
        Dead points; points of the chain where there are no dead ones.
    wall_s : float
        Seconds, interruptions not counted.
    logZ, logZ_err : float
        The library's log-evidence, for information.
    n_nan : int
        Calls that gave NaN; they count as zero likelihood.
    prior_fraction : float or None
        Fraction of the prior draws with non-zero likelihood. PolyChord leaves the others out, so its evidence
        is that of the prior restricted to where the likelihood is not zero. None where it is not known (MPI) or where
        nothing is left out.
    version : str
        The sampler's version.
    library : str
        Where it was loaded from.
    finished : bool
        False where the run was stopped on request.
    ranks : int
        Processes that took part.
    """

    n_like: int
    n_dead: int
    wall_s: float
    logZ: float
    logZ_err: float
    n_nan: int
    prior_fraction: float | None
    version: str
    library: str
    finished: bool
    ranks: int = 1

    @classmethod
    def of(cls, state: dict) -> "Result":
        """The result that a finished run's state file holds."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})
