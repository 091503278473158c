"""Progress and result of a run, the same for all samplers."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Parameters
    ----------
    n_dead : int
        Number of dead points at the last update of the files.
    n_like : int
        Number of likelihood calls so far.
    logZ, logZ_err : float
        Running estimate of the log-evidence, including the live points, and its error; NaN before the first update.
    logL_min, logL_max : float
        Range of the log-likelihood of the live points; NaN before the first update.
    elapsed : float
        Elapsed time in seconds, excluding interruptions.
    remaining : float or None
        Remaining time in seconds, see `lstmfit.sampling.countdown.Countdown`; None if unknown.
    climbing : bool
        Whether the live points still climb, so that `remaining` is a lower bound.
    stage : str
        Description of the current stage, for samplers without dead points; empty for the others.
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
    """Result of a run. If the samples have birth contours, quote the evidence that anesthetic computes from them.

    Parameters
    ----------
    n_like : int
        Number of likelihood calls, including those before an interruption.
    n_dead : int
        Number of dead points, or of points in the chain for samplers without dead points.
    wall_s : float
        Wall time in seconds, excluding interruptions.
    logZ, logZ_err : float
        Log-evidence reported by the library and its error, for information.
    n_nan : int
        Number of calls that returned NaN, which counts as zero likelihood.
    prior_fraction : float or None
        Fraction of the prior draws with non-zero likelihood. PolyChord discards the other draws, so its evidence
        refers to the prior restricted to the region of non-zero likelihood. None if unknown (MPI) or if no draws are
        discarded.
    version : str
        Version of the sampler.
    library : str
        Path that it was loaded from.
    finished : bool
        False if the run was stopped on request.
    ranks : int
        Number of processes that took part.
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
        """The result stored in the state file of a finished run."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})
