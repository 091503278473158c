"""The samplers behind one interface: what a run file names, what the driver calls.

Each leaves the same folder: ``chain...`` files that `anesthetic.read_chains` reads, ``chain.state.json`` from which it
resumes, and returns a `Result`.
"""

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lstmfit.config import RunConfig
from lstmfit.errors import InputError
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.state import ROOT


class Sampler(Protocol):
    """A sampler with its settings.

    Attributes
    ----------
    label : str
        What to call it, without its version.
    settings : object
        A dataclass with ``n_live`` and ``seed``.
    """

    label: str
    settings: object

    def check(self, problem, comm=None) -> None:
        """Refuse what it cannot do, before anything is written (InputError)."""

    def run(
        self,
        make_problem: Callable,
        folder: Path,
        *,
        comm=None,
        jobs: int | None = None,
        resume: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Result | None:
        """Run on all cores, `jobs` of them, or the ranks of `comm`, all of which call this; None on all but the first.

        `make_problem` is a picklable function without arguments that returns a `lstmfit.problem.Problem`.
        """

    def run_here(self, problem, folder: Path, *, resume: bool = False) -> Result:
        """Run in this process alone."""

    def calls(self, n_slow: int) -> tuple[float, float] | None:
        """Likelihood calls to expect, and those that move one of the first `n_slow` parameters; None: not known."""


class PolyChord:
    """PolyChord: serial runs side by side, or over MPI."""

    label = "PolyChord"
    CALLS_PER_LIVE_REPEAT = 55.0
    """Calls over n_live * num_repeats: 42 at 50 mK to 92 at 5 mK in 7 parameters."""

    def __init__(self, block):
        from lstmfit.sampling.polychord import PolyChordSettings

        values = block.model_dump()
        grades = {key: tuple(value) for key in ("grade_dims", "grade_frac") if (value := values.pop(key)) is not None}
        self.settings = PolyChordSettings(n_live=values.pop("nlive"), **values, **grades)

    def check(self, problem, comm=None) -> None:
        """See `Sampler`."""
        from lstmfit.sampling.libraries import load_library

        library = load_library(mpi=comm is not None)
        self.settings.check_grades(len(problem.names))
        if len(self.settings.grade_dims or ()) > 1 and not library.counts_repeats:
            raise InputError(
                f"{library.path} sets the repeats of fast parameters by the clock, so that no run can be repeated; "
                "build it again: lstmfit doctor --install-polychord"
            )

    def run(self, make_problem, folder, *, comm=None, jobs=None, resume=False, progress=None) -> Result:
        """See `Sampler`."""
        if comm is None:
            from lstmfit.sampling.jobs import run_jobs

            return run_jobs(make_problem, self.settings, folder, ROOT, jobs, resume=resume, progress=progress)
        from lstmfit.sampling.mpi import run_mpi

        return run_mpi(make_problem, self.settings, folder, ROOT, resume=resume, progress=progress)

    def run_here(self, problem, folder, *, resume=False) -> Result:
        """See `Sampler`."""
        from lstmfit.sampling.polychord import run_polychord

        return run_polychord(
            problem.loglikelihood,
            problem.prior_transform,
            problem.names,
            problem.derived_names,
            problem.latex,
            folder,
            ROOT,
            self.settings,
            resume=resume,
        )

    def calls(self, n_slow: int) -> tuple[float, float]:
        """See `Sampler`."""
        dims, frac = self.settings.grade_dims or (1,), self.settings.grade_frac or (1.0,)
        repeats = frac if min(frac) > 1 else (self.settings.num_repeats,)
        first = [sum(dims[:i]) for i in range(len(dims))]
        slow = sum(number for i, number in zip(first, repeats) if i < n_slow)
        per_repeat = self.CALLS_PER_LIVE_REPEAT * self.settings.n_live
        return per_repeat * sum(repeats), per_repeat * slow


class Nautilus:
    """nautilus: one process that samples, others that train its networks and, where it is slow, the likelihood."""

    label = "nautilus"

    def __init__(self, block):
        from lstmfit.sampling.nautilus import NautilusSettings

        self.settings = NautilusSettings(**block.model_dump())

    def check(self, problem, comm=None) -> None:
        """See `Sampler`."""
        from lstmfit.sampling.nautilus import check_problem

        check_problem(problem)

    def run(self, make_problem, folder, *, comm=None, jobs=None, resume=False, progress=None) -> Result | None:
        """See `Sampler`."""
        from lstmfit.sampling.nautilus import Workers, run_nautilus
        from lstmfit.workers import cores, death_as, worker_pool

        options = {"resume": resume, "progress": progress}
        jobs = cores() if jobs is None else jobs
        if jobs < 1:
            raise InputError(f"jobs is {jobs}, but a whole number of at least 1 is needed")
        if comm is None and jobs == 1:
            return run_nautilus(make_problem(), folder, ROOT, self.settings, **options)
        with death_as(RuntimeError, "a worker process"), worker_pool(jobs) as (pool, n_workers):
            if pool is None:
                return None
            problem = make_problem()
            workers = Workers(pool, n_workers, pickle.dumps(make_problem) if problem.signal.costly else None)
            return run_nautilus(problem, folder, ROOT, self.settings, workers=workers, **options)

    def run_here(self, problem, folder, *, resume=False) -> Result:
        """See `Sampler`."""
        from lstmfit.sampling.nautilus import run_nautilus

        return run_nautilus(problem, folder, ROOT, self.settings, resume=resume)

    def calls(self, n_slow: int) -> None:
        """See `Sampler`."""
        return None


class Blackjax:
    """BlackJAX's nested slice sampler: one process, whose threads or GPU JAX looks after."""

    label = "BlackJAX"

    def __init__(self, block):
        from lstmfit.sampling.blackjax import BlackjaxSettings

        self.settings = BlackjaxSettings(**block.model_dump())

    def check(self, problem, comm=None) -> None:
        """See `Sampler`."""
        from lstmfit.sampling.blackjax import check_problem

        if comm is not None:
            raise InputError(
                f"blackjax runs in one process, here are {comm.Get_size()} MPI ranks; start it without mpirun, "
                "or use sampler: {polychord: {}} or {nautilus: {}}"
            )
        check_problem(problem, self.settings)

    def run(self, make_problem, folder, *, comm=None, jobs=None, resume=False, progress=None) -> Result:
        """See `Sampler`; `jobs` has no meaning."""
        from lstmfit.sampling.blackjax import run_blackjax

        return run_blackjax(make_problem(), folder, ROOT, self.settings, resume=resume, progress=progress)

    def run_here(self, problem, folder, *, resume=False) -> Result:
        """See `Sampler`."""
        from lstmfit.sampling.blackjax import run_blackjax

        return run_blackjax(problem, folder, ROOT, self.settings, resume=resume)

    def calls(self, n_slow: int) -> None:
        """See `Sampler`."""
        return None


SAMPLERS = {"polychord": PolyChord, "nautilus": Nautilus, "blackjax": Blackjax}
"""By the name that run files use."""


def resolve_settings(config: RunConfig, d: int) -> dict:
    """Settings of a run's sampler, multiples of the number of parameters worked out.

    Parameters
    ----------
    config : RunConfig
        The run.
    d : int
        Sampled parameters.
    """
    return {
        key: int(value[:-1]) * d if isinstance(value, str) else value
        for key, value in config.sampler.block.model_dump(exclude_none=True).items()
    }


def make_sampler(config: RunConfig, seed: int | None = None) -> Sampler:
    """The sampler of a resolved run file.

    Parameters
    ----------
    config : RunConfig
        As `lstmfit.driver.resolve` returns it: no multiples of the number of parameters are left.
    seed : int, optional
        In place of the run file's.
    """
    sampler = SAMPLERS[config.sampler.name](config.sampler.block)
    if seed is not None:
        sampler.settings = dataclasses.replace(sampler.settings, seed=seed)
    return sampler
