"""Common interface of the samplers, and their names in run files.

Every sampler writes ``chain...`` files that `anesthetic.read_chains` can read and ``chain.state.json``, from which it
resumes, and returns a `Result`.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lstmfit.errors import InputError, did_you_mean
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.settings import SamplerSettings

SAMPLERS = {
    "polychord": "lstmfit.sampling.polychord.sampler:PolyChord",
    "nautilus": "lstmfit.sampling.nautilus:Nautilus",
    "blackjax": "lstmfit.sampling.blackjax:Blackjax",
}
"""Dotted path of each sampler's class, by its name in run files; imported only when used."""


class Sampler(Protocol):
    """A sampler with its settings.

    Attributes
    ----------
    label : str
        Name to display, without the version.
    Settings : type
        Subclass of `lstmfit.sampling.settings.SamplerSettings` with ``n_live`` and ``seed``: the sampler's block of the
        run file.
    settings : SamplerSettings
        Resolved settings; the only argument of the constructor.
    """

    label: str
    Settings: type[SamplerSettings]
    settings: SamplerSettings

    def check(self, problem, comm=None) -> None:
        """Check that it can sample the problem, before anything is written (InputError)."""

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
        """Run on all cores, on `jobs` of them, or on the MPI ranks of `comm`.

        `make_problem` is a picklable function without arguments that returns a `lstmfit.problem.Problem`. Under MPI all
        ranks call this method; it returns None on all but the first.
        """

    def run_here(self, problem, folder: Path, *, resume: bool = False) -> Result:
        """Run in this process only."""

    def calls(self, n_slow: int) -> tuple[float, float] | None:
        """Expected likelihood calls, and those that change one of the first `n_slow` parameters; None if unknown."""


def sampler_class(name: str) -> type[Sampler]:
    """Class of a sampler, given its name.

    Raises
    ------
    InputError
        The name is unknown.
    """
    if name not in SAMPLERS:
        raise InputError(f"sampler: unknown {name!r}; {did_you_mean(name, SAMPLERS)}")
    module, _, attribute = SAMPLERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_sampler(config, seed: int | None = None) -> Sampler:
    """Create the sampler of a resolved run file.

    Parameters
    ----------
    config : lstmfit.config.RunConfig
        Run file as returned by `lstmfit.driver.resolve`, in which multiples of the number of parameters are resolved.
    seed : int, optional
        Seed that replaces that of the run file.
    """
    settings = config.sampler.settings
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    return sampler_class(config.sampler.name)(settings)
