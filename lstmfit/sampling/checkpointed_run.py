"""Life cycle of the samplers that run in one process: start or resume, report progress, write checkpoints, finish."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.state import prepare_folder, write_state

PROGRESS_S = 1.0
CHECKPOINT_S = 10.0
CHECKPOINT_SHARE = 0.05
"""Largest fraction of the run time spent on checkpoints, which grow during the run."""

logger = logging.getLogger(__name__)


class CheckpointedRun(ABC):
    """One run, from a new folder or a checkpoint to its result.

    A subclass does the sampling; this class prepares the folder, keeps the time and writes the state file.

    Parameters
    ----------
    problem : lstmfit.problem.Problem
        The problem to sample.
    folder : str or pathlib.Path
        Output folder; created if missing.
    root : str
        Prefix of the file names.
    settings : lstmfit.sampling.settings.SamplerSettings
        Resolved settings of the sampler.
    """

    CHECKPOINT: str
    """Suffix of the checkpoint file; it must also be in `lstmfit.sampling.state.STALE_SUFFIXES`."""
    CHAIN: str
    """Suffix of a chain file that only a finished run has."""

    def __init__(self, problem, folder, root: str, settings):
        self.problem, self.folder, self.root, self.settings = problem, Path(folder), root, settings
        self.checkpoint = self.folder / f"{root}{self.CHECKPOINT}"

    @abstractmethod
    def sample(self) -> dict:
        """Sample to the end and write the chain files, calling `tick` between steps.

        Returns
        -------
        dict
            The fields of `Result`, except ``wall_s`` and ``finished``; further ones are kept in the state file.
        """

    @abstractmethod
    def progress(self) -> Progress:
        """How far the run is."""

    @abstractmethod
    def save(self) -> dict:
        """Replace the checkpoint atomically; return the figures for the state file."""

    def run(self, *, resume: bool = False, progress: Callable[[Progress], None] | None = None) -> Result:
        """Run to the end; a finished run returns its result immediately.

        Parameters
        ----------
        resume : bool
            Resume from the checkpoint if there is one; otherwise start over.
        progress : callable, optional
            Called about once a second.

        Raises
        ------
        InputError
            The folder is not writable or contains a different run.
        """
        fresh = {"n_like": 0, "n_nan": 0, "wall_s": 0.0}
        chain = f"{self.root}{self.CHAIN}"
        self.state = prepare_folder(
            self.problem, self.folder, self.root, self.settings, resume=resume, made=chain, fresh=fresh
        )
        if self.state.get("finished"):
            logger.info("%s has already finished; there is nothing left to do", self.folder / self.root)
            return Result.of(self.state)
        self._report = progress
        self._began = self._reported = self._saved = time.monotonic()
        self._cost = 0.0
        figures = self.sample()
        state = self.state | figures | {"wall_s": self.wall(), "finished": True}
        write_state(self.folder, self.root, state)
        with suppress(OSError):
            self.checkpoint.unlink(missing_ok=True)
        if state["n_nan"]:
            logger.warning("the log-likelihood was NaN in %d of %d calls", state["n_nan"], state["n_like"])
        return Result.of(state)

    def tick(self) -> None:
        """Report progress and write a checkpoint, each when due."""
        now = time.monotonic()
        if self._report and now - self._reported >= PROGRESS_S:
            self._report(self.progress())
            self._reported = now
        now = time.monotonic()
        if now - self._saved > max(CHECKPOINT_S, self._cost / CHECKPOINT_SHARE):
            write_state(self.folder, self.root, self.state | self.save() | {"wall_s": self.wall()})
            self._saved = time.monotonic()
            self._cost = self._saved - now

    def wall(self) -> float:
        """Wall time of the run in seconds, excluding interruptions."""
        return self.state["wall_s"] + time.monotonic() - self._began
