"""PolyChord behind the common interface of the samplers."""

from lstmfit.errors import InputError
from lstmfit.sampling.polychord.settings import PolyChordSettings
from lstmfit.sampling.result import Result
from lstmfit.sampling.state import ROOT


class PolyChord:
    """PolyChord: parallel serial runs, or one run over MPI."""

    label = "PolyChord"
    Settings = PolyChordSettings
    CALLS_PER_LIVE_REPEAT = 55.0
    """Likelihood calls divided by n_live * num_repeats: 51 for 25 mK noise, 83 for 5 mK, in 7 parameters."""

    def __init__(self, settings: PolyChordSettings):
        self.settings = settings

    def check(self, problem, comm=None) -> None:
        """See `lstmfit.sampling.samplers.Sampler`."""
        from lstmfit.sampling.polychord.libraries import load_library

        library = load_library(mpi=comm is not None)
        self.settings.check_grades(len(problem.names))
        if len(self.settings.grade_dims or ()) > 1 and not library.counts_repeats:
            raise InputError(
                f"{library.path} sets the repeats of fast parameters by timing, so runs are not reproducible; "
                "rebuild it: lstmfit doctor --install-polychord"
            )

    def run(self, make_problem, folder, *, comm=None, jobs=None, resume=False, progress=None) -> Result:
        """See `lstmfit.sampling.samplers.Sampler`."""
        if comm is None:
            from lstmfit.sampling.polychord.jobs import run_jobs

            return run_jobs(make_problem, self.settings, folder, ROOT, jobs, resume=resume, progress=progress)
        from lstmfit.sampling.polychord.ranks import run_mpi

        return run_mpi(make_problem, self.settings, folder, ROOT, resume=resume, progress=progress)

    def run_here(self, problem, folder, *, resume=False) -> Result:
        """See `lstmfit.sampling.samplers.Sampler`."""
        from lstmfit.sampling.polychord.jobs import run_here

        return run_here(problem, self.settings, folder, ROOT, resume=resume)

    def calls(self, n_slow: int) -> tuple[float, float]:
        """See `lstmfit.sampling.samplers.Sampler`."""
        dims, frac = self.settings.grade_dims or (1,), self.settings.grade_frac or (1.0,)
        repeats = frac if min(frac) > 1 else (self.settings.num_repeats,)
        first = [sum(dims[:i]) for i in range(len(dims))]
        slow = sum(number for i, number in zip(first, repeats) if i < n_slow)
        per_repeat = self.CALLS_PER_LIVE_REPEAT * self.settings.n_live
        return per_repeat * sum(repeats), per_repeat * slow
