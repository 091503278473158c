"""One PolyChord run: the callbacks, the thread that PolyChord runs in, and the bookkeeping.

PolyChord runs in a separate thread while the caller's thread waits. Exceptions cannot be raised through Fortran; but a
signal, an exception or a request to stop takes effect immediately, because the callback then never returns. The thread
sleeps until the process ends and costs only its memory. The files are complete at any moment, because PolyChord renames
its resume file into place.
"""

import contextlib
import dataclasses
import errno
import logging
import math
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
from lstmfit.sampling.countdown import Countdown
from lstmfit.sampling.input_checks import MAX_FRUITLESS_DRAWS, raise_infinite_likelihood, raise_no_finite_likelihood
from lstmfit.sampling.polychord.libraries import LOGZERO, load_library
from lstmfit.sampling.polychord.resume_file import (
    is_whole,
    keep_resume_file,
    read_resume_header,
    restore_resume_file,
)
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.state import KEPT, write_state

# PolyChord only accepts points strictly above the contour, so on a plateau (a flat or saturated likelihood) it would
# search forever. A slope along the first axis of the unit cube, of this size relative to 1 + |lnL|, orders the points
# of a plateau, as nested sampling requires. It is small enough not to matter and large enough for 16 digits.
TIE_BREAK = 1e-8
TICK_S = 0.1
STATE_INTERVAL_S = 2.0
PROGRESS_INTERVAL_S = 1.0
# Set in child processes whose standard output is redirected to a file.
OWN_OUTPUT_VARIABLE = "LSTMFIT_POLYCHORD_OUTPUT_IS_FILE"

logger = logging.getLogger(__name__)


class PolyChordThread:
    """One run: the callbacks, the thread that PolyChord runs in, and the bookkeeping."""

    def __init__(self, problem, folder, root, settings, state, comm, posteriors):
        self.problem, self.folder, self.root, self.settings = problem, folder, root, settings
        self.state, self.comm, self.posteriors = state, comm, posteriors
        self.rank = comm.Get_rank() if comm is not None else 0
        self.counts = [0, 0, 0, 0]  # calls, zero likelihoods, NaN, zero likelihoods among the draws from the prior
        self.error = None
        self.wake, self.done, self.parked = threading.Event(), threading.Event(), threading.Event()
        # A list, because testing a list in a closure is the fastest way to check a flag.
        self.stopping = []
        self.latest = Progress(n_dead=0, n_like=0)
        self.countdown = Countdown(settings.precision_criterion)
        self.updated = False
        self.library_logZ = (math.nan, math.nan)

    # -------------------------------------------------------- inside PolyChord

    def _park(self):
        """Never return: the only way to stop Fortran from a callback."""
        self.parked.set()
        self.wake.set()
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def fail(self, error):
        """Record the first exception, which the caller's thread raises, and never return."""
        if self.error is None:
            self.error = error
        self.stopping.append(True)
        self._park()

    def _zero(self, value, theta):
        """Count a log-likelihood that is NaN or at most logzero; return the value to pass to PolyChord."""
        counts = self.counts
        if value == math.inf:
            raise_infinite_likelihood(self.problem.names, theta)
        counts[1] += 1
        if value != value:
            counts[2] += 1
        if counts[0] - counts[1] < self.settings.prior_draws and "resumed_from" not in self.state:
            counts[3] += 1
        if counts[0] == counts[1] >= MAX_FRUITLESS_DRAWS:
            raise_no_finite_likelihood(counts[0], counts[2])
        return LOGZERO

    def callbacks(self):
        """Likelihood and prior with the bookkeeping; each fills an array. The caller must catch their exceptions.

        Returns
        -------
        likelihood : callable
            theta (n_params,), output array for the derived values (n_derived,) -> lnL.
        prior : callable
            cube (n_params,), output array for theta (n_params,).
        """
        loglikelihood, prior_transform = self.problem.loglikelihood, self.problem.prior_transform
        n_derived = len(self.problem.derived_names)
        counts, stopping, logzero, inf = self.counts, self.stopping, LOGZERO, math.inf
        tie = [0.0]

        def likelihood(theta, out):
            if stopping:
                self._park()
            counts[0] += 1
            answer = loglikelihood(theta)
            if type(answer) is tuple:
                value, derived = answer
            else:
                value, derived = answer, None
            value = float(value)
            if logzero < value < inf:
                if n_derived:
                    if derived is None:
                        raise InputError(f"the likelihood returned {answer!r} without its {n_derived} derived values")
                    out[:] = derived
                return value + tie[0] * (1.0 + abs(value))
            return self._zero(value, theta)

        def prior(cube, out):
            if stopping:
                self._park()
            tie[0] = TIE_BREAK * cube.item(0)
            out[:] = prior_transform(cube)

        return likelihood, prior

    def dumper(self, live, dead, logweights, logZ, logZ_err):
        """Record the figures of an update of the files; live (n_live, n_columns), with lnL in the last column."""
        try:
            if self.stopping:
                self._park()
            n_dead, n_live = len(dead), len(live)
            self._check_files(n_dead)
            self.library_logZ = (logZ, logZ_err)
            figures = {"n_dead": n_dead, "logZ": logZ, "logZ_err": logZ_err}
            if n_live:
                logL = live[:, -1]
                peak = logL.max()
                log_volume = self._log_volume(n_dead, n_live)
                live_logZ = peak + math.log(np.exp(logL - peak).mean()) + log_volume
                figures |= {"logZ": float(np.logaddexp(logZ, live_logZ))}
                figures |= {"logL_min": float(logL.min()), "logL_max": float(peak)}
                self.countdown.update(-log_volume, logL, live_logZ - logZ)
            self.latest = dataclasses.replace(self.latest, **figures)
            self.updated = True
            self.wake.set()
        except BaseException as error:
            self.fail(error)

    def _log_volume(self, n_dead, n_live) -> float:
        """Expected ln of the prior volume of the live points; draws in excess of `n_live` are not replaced."""
        draws = self.settings.prior_draws
        first = min(n_dead, draws - self.settings.n_live)
        return math.log((draws - first + 1) / (draws + 1)) + (n_dead - first) * math.log(n_live / (n_live + 1))

    def _check_files(self, n_dead):
        """Check that the new files are complete, as Fortran does not report a full disk, and keep the resume file."""
        with (self.folder / f"{self.root}_dead-birth.txt").open("rb") as file:
            rows = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        if rows < n_dead or not is_whole(self.folder / f"{self.root}.resume", self.last_section):
            restore_resume_file(self.folder, self.root, self.last_section)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder / self.root))
        keep_resume_file(self.folder, self.root)

    # -------------------------------------------------------- outside PolyChord

    def execute(self, progress, stop) -> Result:
        """Run to the end, or until `stop` returns True; see `lstmfit.sampling.polychord.run.run_polychord`."""
        library = load_library(self.comm is not None)
        self.last_section = library.last_section
        settings, state = self.settings, self.state
        if "resumed_from" in state:
            # The original seed would repeat the first steps of the interrupted run.
            seed = np.random.SeedSequence([settings.seed, state["resumed_from"]]).generate_state(1)[0] % 2**31
        else:
            seed = settings.seed
        seed = int(seed)
        self.began = time.monotonic()
        log = self.folder / f"{self.root}.polychord.log" if self.rank == 0 else Path(os.devnull)
        thread = threading.Thread(target=self._thread, args=(library, seed), name="PolyChord", daemon=True)
        with _fortran_output_to(log, library):
            # Fortran needs little stack, but a likelihood may need more.
            old = threading.stack_size(64 << 20)
            try:
                thread.start()
            finally:
                threading.stack_size(old)
            interrupted = self._watch(progress, stop)
        if self.error is not None:
            raise self.error
        if not interrupted:
            thread.join()
        return self._finish(library, not interrupted, progress)

    def _thread(self, library, seed):
        try:
            library.run(self, seed)
        except BaseException as error:
            self.error = self.error or error
        self.done.set()
        self.wake.set()

    def _watch(self, progress, stop) -> bool:
        """Wait for the end of the run; True if `stop` ended it early."""
        said = saved = time.monotonic()
        try:
            while not self.done.is_set() and self.error is None:
                self.wake.wait(TICK_S)
                self.wake.clear()
                now = time.monotonic()
                updated, self.updated = self.updated, False
                if self.rank == 0 and (updated or now - saved > STATE_INTERVAL_S):
                    self._save()
                    saved = now
                if progress and self.rank == 0 and (updated or now - said > PROGRESS_INTERVAL_S):
                    progress(self._progress())
                    said = now
                if stop and not self.done.is_set() and stop():
                    self._stop()
                    return not self.done.is_set()
        except BaseException:
            self._stop()
            raise
        return False

    def _stop(self):
        """Make the callback sleep and wait until it does, so that the files do not change afterwards."""
        self.stopping.append(True)
        # Under MPI a rank may be waiting for another one inside Fortran; MPI_Abort ends it then.
        while self.comm is None and not (self.parked.is_set() or self.done.is_set()):
            self.wake.wait(TICK_S)
            self.wake.clear()
        if self.rank == 0:
            with contextlib.suppress(OSError):
                self._save()

    def _figures(self) -> dict:
        """Totals so far, including those from before an interruption."""
        n_like, _, n_nan, n_outside = self.counts
        figures = {
            "n_like": self.state["n_like"] + n_like,
            "n_nan": self.state["n_nan"] + n_nan,
            "n_dead": self.latest.n_dead or self.state["n_dead"],
            "wall_s": self.state["wall_s"] + time.monotonic() - self.began,
        }
        if self.comm is not None:
            # The calls are made on the other ranks, so rank 0 reads PolyChord's own count.
            with contextlib.suppress(InputError):
                figures["n_like"] = read_resume_header(self.folder / f"{self.root}.resume")["n_like"]
        elif "resumed_from" not in self.state:
            draws = self.settings.prior_draws
            if n_like - self.counts[1] >= draws:
                figures["prior_fraction"] = draws / (draws + n_outside)
        return figures

    def _save(self, **more):
        """Write the state; its totals include calls that were lost in an interruption."""
        state = {key: value for key, value in self.state.items() if key != "resumed_from"}
        write_state(self.folder, self.root, state | self._figures() | more)

    def _progress(self) -> Progress:
        figures = self._figures()
        return dataclasses.replace(
            self.latest,
            n_dead=figures["n_dead"],
            n_like=figures["n_like"],
            elapsed=figures["wall_s"],
            remaining=self.countdown.seconds(),
            climbing=self.countdown.climbing,
        )

    def _finish(self, library, finished, progress) -> Result:
        figures = self._figures()
        if self.comm is not None:
            mine = np.array([self.counts[0], self.counts[2]])
            n_like, n_nan = (int(x) for x in self.comm.allreduce(mine))
            figures |= {"n_like": self.state["n_like"] + n_like, "n_nan": self.state["n_nan"] + n_nan}
            figures |= self.comm.bcast(
                {"n_dead": figures["n_dead"], "library_logZ": self.library_logZ} if self.rank == 0 else None
            )
            self.library_logZ = figures.pop("library_logZ")
        logZ, logZ_err = self.library_logZ
        figures |= {
            "logZ": logZ,
            "logZ_err": logZ_err,
            "version": library.version,
            "library": library.path,
            "finished": finished,
            "ranks": self.comm.Get_size() if self.comm is not None else 1,
        }
        figures.setdefault("prior_fraction", self.state.get("prior_fraction"))
        if self.rank == 0:
            self._save(**figures)
            if finished:
                (self.folder / f"{self.root}{KEPT}").unlink(missing_ok=True)
            if progress and finished:
                progress(dataclasses.replace(self._progress(), n_like=figures["n_like"], remaining=0.0))
        if figures["n_nan"] and self.rank == 0:
            logger.warning("the log-likelihood was NaN in %d of %d calls", figures["n_nan"], figures["n_like"])
        return Result.of(figures)


@contextlib.contextmanager
def _fortran_output_to(path, library):
    """Redirect Fortran's output (a line for each resume file) to a file, but not Python's."""
    if os.environ.get(OWN_OUTPUT_VARIABLE):
        yield
        return
    sys.stdout.flush()
    terminal = os.dup(1)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.close(file)
    python_output = sys.stdout
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if sys.stdout.fileno() == 1:
            sys.stdout = os.fdopen(os.dup(terminal), "w", buffering=1, encoding=sys.stdout.encoding)
    try:
        yield
    finally:
        library.flush()
        if sys.stdout is not python_output:
            sys.stdout.close()
            sys.stdout = python_output
        os.dup2(terminal, 1)
        os.close(terminal)
