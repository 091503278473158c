"""The samplers behind one interface: what a run file names, what the driver calls.

Each leaves the same folder: ``chain...`` files that `anesthetic.read_chains` reads, ``chain.state.json`` from which it
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
"""Where the class of each sampler is, by the name that run files use. It is imported when a run names it."""


class Sampler(Protocol):
    """A sampler with its settings.

    Attributes
    ----------
    label : str
        What to call it, without its version.
    Settings : type
        A `lstmfit.sampling.settings.SamplerSettings` with ``n_live`` and ``seed``: its block of the run file.
    settings : SamplerSettings
        The settings, resolved; what it is built from.
    """

    label: str
    Settings: type[SamplerSettings]
    settings: SamplerSettings

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


def sampler_class(name: str) -> type[Sampler]:
    """The class of a sampler.

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
    """The sampler of a resolved run file.

    Parameters
    ----------
    config : lstmfit.config.RunConfig
        As `lstmfit.driver.resolve` returns it: no multiples of the number of parameters are left.
    seed : int, optional
        In place of the run file's.
    """
    settings = config.sampler.settings
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    return sampler_class(config.sampler.name)(settings)
