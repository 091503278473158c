"""One code path above PolyChord: `pypolychord` where it imports, else PolyChord 1.14 through ctypes.

PolyChord runs in a thread of its own, and the caller's thread waits. So a signal, an exception or a request
to stop is acted on at once, although nothing can be raised through Fortran: the callback that notices simply
never returns. Such a thread is left asleep until the process ends; it costs its memory and nothing else. What
lies in the folder is whole at any moment, because PolyChord renames its resume file into place.
"""

import contextlib
import ctypes
import dataclasses
import importlib.util
import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
from lstmfit.files import write_text
from lstmfit.sampling.build import MPI_LIBRARY, POLYCHORD_VERSION, SERIAL_LIBRARY, polychord_folder

# PolyChord accepts a point only ABOVE the contour, so on a plateau (likelihood flat, or saturated at its maximum) it
# would search for ever. A slope along the first axis of the unit cube, this steep relative to 1 + |lnL|, orders the
# points of a plateau, as nested sampling needs; it is too small to matter and large enough to survive 16 digits.
TIE_BREAK = 1e-8
# Draws from the prior without one acceptable likelihood before the run is called hopeless.
MAX_FRUITLESS_DRAWS = 10_000
# Fortran holds every path in 300 characters and cuts what is longer.
MAX_PATH_BYTES = 300
LONGEST_SUFFIX = "/clusters/_phys_live_10000.txt_temp"
STALE_SUFFIXES = (
    ".resume",
    ".state.json",
    ".stats",
    ".txt",
    "_equal_weights.txt",
    "_dead.txt",
    "_dead-birth.txt",
    "_phys_live.txt",
    "_phys_live-birth.txt",
    "_prior.txt",
)
TICK_S = 0.1
STATE_INTERVAL_S = 2.0
PROGRESS_INTERVAL_S = 1.0
INSTALL_LINE = "lstmfit doctor --install-polychord"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PolyChordSettings:
    """What PolyChord is asked to do.

    Parameters
    ----------
    n_live : int
        Live points.
    num_repeats : int
        Slice-sampling steps per new point.
    seed : int
        Seed of PolyChord's own generator, 0 to 2^31 - 1.
    precision_criterion : float
        The run ends when the live points hold this fraction of the evidence.
    do_clustering : bool
        Search for clusters. Off: it biases the evidence that the library itself quotes.
    n_prior : int, optional
        Prior samples before compression starts; `n_live` by default.
    max_ndead : int
        End after so many dead points; negative for no limit.
    logzero : float
        Log-likelihoods at or below this count as zero likelihood.
    boost_posterior : float
        Phantom points kept per posterior sample in `<root>.txt`.
    write_resume : bool
        Keep a resume file.
    write_posteriors : bool
        Write `<root>.txt` and `<root>_equal_weights.txt`.
    compression_factor : float
        Files are written each time the prior volume has shrunk by this factor.
    grade_dims : tuple of int, optional
        Numbers of parameters per speed, slow first; one speed by default.
    grade_frac : tuple of float, optional
        Fraction of the time per speed.

    Raises
    ------
    InputError
        A value is out of range.
    """

    n_live: int
    num_repeats: int
    seed: int
    precision_criterion: float = 1e-3
    do_clustering: bool = False
    n_prior: int | None = None
    max_ndead: int = -1
    logzero: float = -1e30
    boost_posterior: float = 0.0
    write_resume: bool = True
    write_posteriors: bool = True
    compression_factor: float = math.exp(-1)
    grade_dims: tuple[int, ...] | None = None
    grade_frac: tuple[float, ...] | None = None

    def __post_init__(self):
        for name, least in (("n_live", 2), ("num_repeats", 1), ("seed", 0), ("n_prior", 1), ("max_ndead", None)):
            value = getattr(self, name)
            if name == "n_prior" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise InputError(f"{name} is {value!r}, but a whole number is needed")
            if least is not None and value < least:
                raise InputError(f"{name} is {value}, but at least {least} is needed")
            object.__setattr__(self, name, int(value))
        if self.seed >= 2**31:
            raise InputError(f"seed is {self.seed}, but PolyChord takes seeds from 0 to {2**31 - 1}")
        if not 0 < self.precision_criterion < 1:
            raise InputError(f"precision_criterion is {self.precision_criterion:g}; give a number between 0 and 1")
        if not 0 < self.compression_factor < 1:
            raise InputError(f"compression_factor is {self.compression_factor:g}; give a number between 0 and 1")
        if self.n_prior is not None and self.n_prior < self.n_live:
            raise InputError(f"n_prior is {self.n_prior}, less than n_live {self.n_live}; give at least n_live")
        if (self.grade_dims is None) != (self.grade_frac is None):
            raise InputError("only one of grade_dims and grade_frac is given; give both or neither")
        if self.grade_dims is not None and len(self.grade_dims) != len(self.grade_frac):
            raise InputError(
                f"grade_dims has {len(self.grade_dims)} entries, grade_frac {len(self.grade_frac)}; give one per speed"
            )


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
    log_live_fraction : float
        ln(evidence in the live points / evidence in the dead ones), which falls to ln(precision_criterion).
    elapsed : float
        Seconds, interruptions not counted.
    remaining : float or None
        Seconds that are left, extrapolated from the fall of `log_live_fraction`; None until it falls.
    """

    n_dead: int
    n_like: int
    logZ: float = math.nan
    logZ_err: float = math.nan
    logL_min: float = math.nan
    logL_max: float = math.nan
    log_live_fraction: float = math.nan
    elapsed: float = 0.0
    remaining: float | None = None


@dataclass(frozen=True)
class Result:
    """What a run came to. The evidence to quote is the one that anesthetic computes from the birth contours.

    Parameters
    ----------
    n_like : int
        Likelihood calls, interruptions included.
    n_dead : int
        Dead points.
    wall_s : float
        Seconds, interruptions not counted.
    logZ, logZ_err : float
        The library's log-evidence, for information.
    n_nan : int
        Calls that gave NaN; they count as zero likelihood.
    prior_fraction : float or None
        Fraction of the prior draws with non-zero likelihood. PolyChord leaves the others out, so its evidence
        is that of the prior restricted to where the likelihood is not zero. None where it is not known (MPI,
        foreign chains).
    version : str
        PolyChord's version.
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


def run_polychord(
    loglikelihood: Callable,
    prior_transform: Callable,
    names: Sequence[str],
    derived_names: Sequence[str],
    latex: Sequence[str],
    folder,
    root: str,
    settings: PolyChordSettings,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    comm=None,
) -> Result:
    """Run PolyChord in this process (or, with `comm`, in all processes of an MPI world).

    Parameters
    ----------
    loglikelihood : callable
        theta (n_params,) physical -> float, or a tuple (float, sequence of n_derived floats) if there are derived
        parameters, which may be left out where the likelihood is zero. NaN counts as zero likelihood.
    prior_transform : callable
        Unit cube (n_params,) -> theta (n_params,).
    names, derived_names : sequence of str
        Parameters and derived parameters, in the order of theta and of the derived values.
    latex : sequence of str
        Labels without dollar signs, of the parameters and then of the derived ones.
    folder : str or pathlib.Path
        Where the files go; made if missing.
    root : str
        First part of the files' names.
    settings : PolyChordSettings
        What to do.
    resume : bool
        Go on from the resume file if there is one; a finished run returns its result at once. Otherwise start
        anew.
    progress : callable, optional
        Called in the caller's thread about once a second.
    stop : callable, optional
        Asked ten times a second; True ends the run where it is, to be resumed later.
    comm : mpi4py.MPI.Comm, optional
        COMM_WORLD, for a run over several ranks; see `lstmfit.sampling.mpi.run_mpi`, which also deals with
        errors there.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        The settings do not fit the problem or the folder, the library is missing, the log-likelihood is +inf
        or is zero all over the prior.
    Exception
        Whatever `loglikelihood` or `prior_transform` raised.
    """
    parallel = comm is not None and comm.Get_size() > 1
    if not _running.acquire(blocking=False):
        raise InputError("PolyChord already runs in this process, and only one run fits in; start another process")
    try:
        folder = Path(folder)
        problem = _Problem(loglikelihood, prior_transform, tuple(names), tuple(derived_names), tuple(latex))
        problem.check(settings)
        if parallel:
            from lstmfit.sampling.mpi import on_root

            state = on_root(comm, lambda: _prepare(problem, folder, root, settings, resume))
        else:
            state = _prepare(problem, folder, root, settings, resume)
        if state.get("finished"):
            logger.info("%s is finished; nothing is left to do", folder / root)
            return _result(state)
        run = _Run(problem, folder, root, settings, state, comm if parallel else None)
        return run.execute(progress, stop)
    finally:
        _running.release()


_running = threading.Lock()


@dataclass(frozen=True)
class _Problem:
    loglikelihood: Callable
    prior_transform: Callable
    names: tuple[str, ...]
    derived_names: tuple[str, ...]
    latex: tuple[str, ...]

    def check(self, settings):
        """Compare lengths, and call both functions once, here, where an exception is an ordinary one."""
        n, n_derived = len(self.names), len(self.derived_names)
        if not n:
            raise InputError("no parameter varies; PolyChord needs at least one")
        everything = self.names + self.derived_names
        if len(set(everything)) != len(everything):
            twice = sorted({name for name in everything if everything.count(name) > 1})
            raise InputError(f"parameter names must differ, but {', '.join(twice)} comes twice")
        if len(self.latex) != len(everything):
            raise InputError(
                f"latex has {len(self.latex)} labels, but {len(everything)} are needed: "
                f"{n} parameters and {n_derived} derived ones"
            )
        if settings.grade_dims is not None and sum(settings.grade_dims) != n:
            raise InputError(f"grade_dims add up to {sum(settings.grade_dims)}, but there are {n} parameters")
        theta = np.asarray(self.prior_transform(np.full(n, 0.5)), dtype=float)
        if theta.shape != (n,):
            raise InputError(f"the prior transform returned shape {theta.shape}, but ({n},) is needed")
        answer = self.loglikelihood(theta.copy())
        value, derived = answer if type(answer) is tuple else (answer, None)
        try:
            value = float(value)
        except TypeError:
            raise InputError(f"the likelihood returned {answer!r}, but a number is needed") from None
        if value > settings.logzero and n_derived:
            if derived is None:
                raise InputError(f"the likelihood returned {answer!r}, but (lnL, {n_derived} derived values) is needed")
            if len(derived) != n_derived:
                raise InputError(
                    f"the likelihood returned {len(derived)} derived values, but {n_derived} names are given"
                )

    def paramnames(self) -> str:
        names = self.names + tuple(f"{name}*" for name in self.derived_names)
        return "".join(f"{name}\t{label}\n" for name, label in zip(names, self.latex))


# ---------------------------------------------------------------- files beside PolyChord's own


def state_file(folder, root) -> Path:
    """File that says what a run was asked for and how far it came."""
    return Path(folder) / f"{root}.state.json"


def read_state(folder, root) -> dict:
    """Content of `state_file`, empty if there is none."""
    try:
        return json.loads(state_file(folder, root).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{state_file(folder, root)} cannot be read ({error}); start anew with --force") from error


def _request(problem, settings) -> dict:
    """What must be the same for a run to be resumed."""
    return {
        "names": list(problem.names),
        "derived_names": list(problem.derived_names),
        "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
    }


def check_same_request(old: dict, new: dict, where) -> None:
    """Refuse to resume a run that was asked for something else.

    Raises
    ------
    InputError
        Names or settings differ.
    """
    mend = "resume with what the run began with, or start anew with --force"
    for key, what in (("names", "parameters"), ("derived_names", "derived parameters")):
        if old[key] != new[key]:
            raise InputError(
                f"{where} was begun with {len(old[key])} {what} ({', '.join(old[key])}), "
                f"now there are {len(new[key])} ({', '.join(new[key])}); {mend}"
            )
    before, now = old["settings"], new["settings"]
    differing = [key for key in now if before.get(key) != now[key]]
    if differing:
        what = ", ".join(f"{key} {before.get(key)} (now {now[key]})" for key in differing)
        raise InputError(f"{where} was begun with {what}; {mend}")


def read_resume_header(path) -> dict:
    """Counts at the head of a PolyChord resume file.

    Parameters
    ----------
    path : str or pathlib.Path
        A `.resume` file.

    Returns
    -------
    dict
        n_dims, n_derived, n_dead, n_like.

    Raises
    ------
    InputError
        It is not a resume file.
    """
    wanted = {
        "=== Number of dimensions ===": "n_dims",
        "=== Number of derived parameters ===": "n_derived",
        "=== Number of dead points/iterations ===": "n_dead",
        "=== Number of likelihood calls ===": "n_like",
    }
    found = {}
    try:
        with Path(path).open(encoding="ascii") as file:
            key = None
            for line in file:
                if key:
                    # One number per parameter speed for the calls.
                    found[key] = sum(int(word) for word in line.split())
                if len(found) == len(wanted):
                    return found
                key = wanted.get(line.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); start anew with --force") from error
    raise InputError(f"{path} is not a whole PolyChord resume file; start anew with --force")


def _prepare(problem, folder, root, settings, resume) -> dict:
    """Make the folder ready and say from where the run starts (on the root rank only)."""
    if not root or "/" in root:
        raise InputError(f"root is {root!r}, but a plain file name is needed")
    length = len(os.fsencode(folder)) + len(os.fsencode(root)) + len(LONGEST_SUFFIX)
    if length >= MAX_PATH_BYTES:
        raise InputError(
            f"the output path {folder}/{root} has {length} bytes with what PolyChord appends, more than the "
            f"{MAX_PATH_BYTES - 1} it can hold; give a shorter or a relative one"
        )
    request = _request(problem, settings)
    fresh = request | {"n_like": 0, "n_nan": 0, "n_dead": 0, "wall_s": 0.0, "prior_fraction": None}
    try:
        (folder / "clusters").mkdir(parents=True, exist_ok=True)
        resume_file = folder / f"{root}.resume"
        state = read_state(folder, root) if resume else {}
        if state:
            check_same_request(state, request, folder / root)
            if not (folder / f"{root}_dead-birth.txt").is_file():
                state["finished"] = False
            if "shares" in state and not state.get("finished"):
                raise InputError(
                    f"{folder / root} was begun as {len(state['shares'])} runs side by side; resume it without mpirun, "
                    "or start anew with --force"
                )
        if resume and resume_file.is_file() and not state.get("finished"):
            header = read_resume_header(resume_file)
            for key, there, what in (
                ("n_dims", len(problem.names), "parameters"),
                ("n_derived", len(problem.derived_names), "derived parameters"),
            ):
                if header[key] != there:
                    raise InputError(
                        f"{resume_file} holds {header[key]} {what}, now there are {there}; "
                        "resume with the run file that it was begun with, or start anew with --force"
                    )
            state = fresh | {"n_like": header["n_like"]} | state | {"resumed_from": header["n_dead"]}
        elif not state:
            state = fresh
            # A chain of before must not pass for this run's.
            for suffix in STALE_SUFFIXES:
                (folder / f"{root}{suffix}").unlink(missing_ok=True)
        write_text(folder / f"{root}.paramnames", problem.paramnames())
        write_text(state_file(folder, root), json.dumps(state, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); give another output folder") from error
    return state


def _result(state) -> Result:
    return Result(**{field.name: state[field.name] for field in dataclasses.fields(Result)})


# ---------------------------------------------------------------- the run


class _Views(dict):
    """Arrays over Fortran's buffers, kept by address: building one takes longer than everything else in a
    callback.
    """

    def __init__(self, n):
        self._type = ctypes.c_double * n

    def __missing__(self, address):
        if len(self) > 4096:
            self.clear()
        view = self[address] = np.frombuffer(self._type.from_address(address))
        return view


class _Run:
    """One run: the callbacks, the thread that PolyChord runs in, and the bookkeeping."""

    def __init__(self, problem, folder, root, settings, state, comm):
        self.problem, self.folder, self.root, self.settings = problem, folder, root, settings
        self.state, self.comm = state, comm
        self.rank = comm.Get_rank() if comm is not None else 0
        self.counts = [0, 0, 0, 0]  # calls, zero likelihoods, NaN, zero likelihoods among the draws from the prior
        self.error = None
        self.wake, self.done, self.parked = threading.Event(), threading.Event(), threading.Event()
        # A list, because the truth of a list in a closure is the cheapest flag there is.
        self.stopping = []
        self.latest = Progress(n_dead=0, n_like=0)
        self.history = []
        self.updated = False
        self.library_logZ = (math.nan, math.nan)

    # -------------------------------------------------------- what happens inside PolyChord

    def _park(self):
        """Never return: the only way to stop Fortran from inside."""
        self.parked.set()
        self.wake.set()
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def fail(self, error):
        """Record the first exception, for the caller's thread to raise, and never return."""
        if self.error is None:
            self.error = error
        self.stopping.append(True)
        self._park()

    def _zero(self, value, theta):
        """Account for a log-likelihood that is no number above logzero; return what PolyChord is told."""
        counts = self.counts
        if value == math.inf:
            named = ", ".join(f"{name} {x:g}" for name, x in zip(self.problem.names, theta))
            raise InputError(f"the log-likelihood is +inf at {named}; it must be finite, or -inf for impossible")
        counts[1] += 1
        if value != value:
            counts[2] += 1
        n_prior = self.settings.n_prior or self.settings.n_live
        if counts[0] - counts[1] < n_prior and "resumed_from" not in self.state:
            counts[3] += 1
        if counts[0] == counts[1] >= MAX_FRUITLESS_DRAWS:
            raise InputError(
                f"the likelihood is zero or NaN at all of the first {counts[0]} points drawn from the prior "
                f"({counts[2]} NaN); check data and prior ranges"
            )
        return self.settings.logzero

    def callbacks(self):
        """Likelihood and prior with the bookkeeping; each fills an array. Who calls them must catch what they raise.

        Returns
        -------
        likelihood : callable
            theta (n_params,), array for the derived values (n_derived,) -> lnL.
        prior : callable
            cube (n_params,), array for theta (n_params,).
        """
        loglikelihood, prior_transform = self.problem.loglikelihood, self.problem.prior_transform
        n_derived = len(self.problem.derived_names)
        counts, stopping, logzero, inf = self.counts, self.stopping, self.settings.logzero, math.inf
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
        """Take the figures of an update of the files; live (n_live, n_columns), the last column lnL."""
        try:
            if self.stopping:
                self._park()
            n_dead, n_live = len(dead), len(live)
            self.library_logZ = (logZ, logZ_err)
            figures = {"n_dead": n_dead, "logZ": logZ, "logZ_err": logZ_err}
            if n_live:
                logL = live[:, -1]
                peak = logL.max()
                log_volume = n_dead * math.log(n_live / (n_live + 1))
                live_logZ = peak + math.log(np.exp(logL - peak).mean()) + log_volume
                figures |= {"logZ": float(np.logaddexp(logZ, live_logZ)), "log_live_fraction": float(live_logZ - logZ)}
                figures |= {"logL_min": float(logL.min()), "logL_max": float(peak)}
            self.latest = dataclasses.replace(self.latest, **figures)
            self.history.append((time.monotonic(), figures.get("log_live_fraction", -math.inf)))
            self.updated = True
            self.wake.set()
        except BaseException as error:
            self.fail(error)

    # -------------------------------------------------------- what happens outside

    def execute(self, progress, stop) -> Result:
        library = load_library(self.comm is not None)
        settings, state = self.settings, self.state
        if "resumed_from" in state:
            # The same stream again would repeat the first steps of the run before.
            seed = np.random.SeedSequence([settings.seed, state["resumed_from"]]).generate_state(1)[0] % 2**31
        else:
            seed = settings.seed
        seed = int(seed)
        self.began = time.monotonic()
        log = self.folder / f"{self.root}.polychord.log" if self.rank == 0 else Path(os.devnull)
        thread = threading.Thread(target=self._thread, args=(library, seed), name="PolyChord", daemon=True)
        with _fortran_output_to(log, library):
            # Fortran's own stack use is modest, but a likelihood's may not be.
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
        """Wait for the end; True if `stop` asked for an early one."""
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
        """Have the callback fall asleep, and wait until it does, so that nothing moves in the folder
        afterwards.
        """
        self.stopping.append(True)
        # Over MPI a rank may be waiting for another one inside Fortran: there, MPI_Abort does the rest.
        while self.comm is None and not (self.parked.is_set() or self.done.is_set()):
            self.wake.wait(TICK_S)
            self.wake.clear()
        if self.rank == 0:
            with contextlib.suppress(OSError):
                self._save()

    def _figures(self) -> dict:
        """Totals so far, with what was there before this process."""
        n_like, _, n_nan, n_outside = self.counts
        figures = {
            "n_like": self.state["n_like"] + n_like,
            "n_nan": self.state["n_nan"] + n_nan,
            "n_dead": self.latest.n_dead or self.state["n_dead"],
            "wall_s": self.state["wall_s"] + time.monotonic() - self.began,
        }
        if self.comm is not None:
            # The calls are made on the other ranks; PolyChord's own count is what this one knows.
            with contextlib.suppress(InputError):
                figures["n_like"] = read_resume_header(self.folder / f"{self.root}.resume")["n_like"]
        elif "resumed_from" not in self.state:
            n_prior = self.settings.n_prior or self.settings.n_live
            if n_like - self.counts[1] >= n_prior:
                figures["prior_fraction"] = n_prior / (n_prior + n_outside)
        return figures

    def _save(self, **more):
        """Write the state; a resumed run keeps the total of what was spent, lost calls included."""
        state = {key: value for key, value in self.state.items() if key != "resumed_from"}
        write_text(state_file(self.folder, self.root), json.dumps(state | self._figures() | more, indent=1) + "\n")

    def _progress(self) -> Progress:
        figures = self._figures()
        return dataclasses.replace(
            self.latest,
            n_dead=figures["n_dead"],
            n_like=figures["n_like"],
            elapsed=figures["wall_s"],
            remaining=self._remaining(),
        )

    def _remaining(self) -> float | None:
        """Extrapolate the fall of the live points' share over the last few updates."""
        if len(self.history) < 2:
            return None
        (t0, r0), (t1, r1) = self.history[max(-5, -len(self.history))], self.history[-1]
        if not r1 < r0:
            return None
        ahead = r1 - math.log(self.settings.precision_criterion)
        if not ahead > 0:
            return 0.0
        return max(0.0, ahead * (t1 - t0) / (r0 - r1) - (time.monotonic() - t1))

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
            if progress and finished:
                progress(dataclasses.replace(self._progress(), n_like=figures["n_like"], remaining=0.0))
        if figures["n_nan"] and self.rank == 0:
            logger.warning("the log-likelihood was NaN in %d of %d calls", figures["n_nan"], figures["n_like"])
        return _result(figures)


@contextlib.contextmanager
def _fortran_output_to(path, library):
    """Send what Fortran prints (a line for each resume file) to a file; Python's own printing stays where it
    is.
    """
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


# Set for a child process whose standard output goes to a file already.
OWN_OUTPUT_VARIABLE = "LSTMFIT_POLYCHORD_OUTPUT_IS_FILE"


# ---------------------------------------------------------------- the two libraries


def load_library(mpi=False):
    """Load `pypolychord` if it is installed, else the built library.

    Parameters
    ----------
    mpi : bool
        The library for a run over several ranks.

    Returns
    -------
    object
        With the attributes `version` and `path`.

    Raises
    ------
    InputError
        There is none, or it cannot be loaded.
    """
    if importlib.util.find_spec("pypolychord") is not None:
        return _PyPolyChord()
    return _CtypesLibrary(mpi)


class _PyPolyChord:
    """`pypolychord`, whose own extension calls 1.22's 38 arguments."""

    def __init__(self):
        import importlib.metadata

        import pypolychord

        try:
            self.version = importlib.metadata.version("pypolychord")
        except importlib.metadata.PackageNotFoundError:
            self.version = getattr(pypolychord, "__version__", "unknown")
        self.path = str(Path(pypolychord.__file__).parent)

    def run(self, run, seed):
        import pypolychord
        from pypolychord.settings import PolyChordSettings as TheirSettings

        s, problem = run.settings, run.problem
        n, n_derived = len(problem.names), len(problem.derived_names)
        likelihood, prior = run.callbacks()
        theirs = TheirSettings(
            n,
            n_derived,
            nlive=s.n_live,
            num_repeats=s.num_repeats,
            nprior=s.n_prior or s.n_live,
            do_clustering=s.do_clustering,
            feedback=0,
            precision_criterion=s.precision_criterion,
            logzero=s.logzero,
            max_ndead=s.max_ndead,
            boost_posterior=s.boost_posterior,
            posteriors=s.write_posteriors,
            equals=s.write_posteriors,
            cluster_posteriors=False,
            write_resume=s.write_resume,
            write_paramnames=False,
            read_resume="resumed_from" in run.state,
            write_stats=True,
            write_live=True,
            write_dead=True,
            write_prior=True,
            compression_factor=s.compression_factor,
            base_dir=str(run.folder),
            file_root=run.root,
            grade_frac=list(s.grade_frac or [1.0]),
            grade_dims=list(s.grade_dims or [n]),
            seed=seed,
        )
        out_theta, out_derived = np.empty(n), np.zeros(n_derived)

        # Its arrays are views of Fortran's memory; a likelihood may keep what it is given.
        def their_likelihood(theta):
            try:
                return likelihood(theta.copy(), out_derived), out_derived
            except BaseException as error:
                run.fail(error)

        def their_prior(cube):
            try:
                prior(cube.copy(), out_theta)
                return out_theta
            except BaseException as error:
                run.fail(error)

        pypolychord.run_polychord(their_likelihood, n, n_derived, theirs, their_prior, run.dumper)

    def flush(self):
        """Nothing is buffered: the extension flushes its own output."""


_LIKELIHOOD = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_PRIOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_DUMPER = ctypes.CFUNCTYPE(None, *[ctypes.c_int] * 3, *[ctypes.c_void_p] * 3, ctypes.c_double, ctypes.c_double)


class _CtypesLibrary:
    """PolyChord 1.14 as `lstmfit.sampling.build` makes it: one C call of 34 arguments."""

    def __init__(self, mpi):
        path = polychord_folder() / (MPI_LIBRARY if mpi else SERIAL_LIBRARY)
        if not path.is_file():
            if mpi and path.with_name(SERIAL_LIBRARY).is_file():
                raise InputError(
                    f"this runs under mpirun, but {path} is missing; to mend it: apt-get install libopenmpi-dev "
                    f"openmpi-bin, then {INSTALL_LINE}"
                )
            raise InputError(
                f"PolyChord is not installed (neither pypolychord nor {path} is there); to mend it: {INSTALL_LINE}"
            )
        # Lines reach the log as they are written, not when the process ends.
        os.environ.setdefault("GFORTRAN_UNBUFFERED_PRECONNECTED", "y")
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            if "executable stack" in str(error):
                raise InputError(
                    f"this system's C library refuses PolyChord {POLYCHORD_VERSION} (it needs an executable stack); "
                    "install 1.22.2: pip install git+https://github.com/PolyChord/PolyChordLite"
                ) from error
            raise InputError(f"{path} cannot be loaded ({error}); build it again: {INSTALL_LINE}") from error
        self.version, self.path = POLYCHORD_VERSION, str(path)

    def run(self, run, seed):
        s, problem = run.settings, run.problem
        n, n_derived = len(problem.names), len(problem.derived_names)
        likelihood, prior = run.callbacks()
        views, derived_views = _Views(n), _Views(n_derived)

        # ctypes prints what a callback raises and has Fortran go on with rubbish, so nothing may leave one.

        if n_derived:

            def c_likelihood(theta, _n, phi, _n_derived):
                try:
                    return likelihood(views[theta].copy(), derived_views[phi])
                except BaseException as error:
                    run.fail(error)
        else:

            def c_likelihood(theta, _n, _phi, _n_derived):
                try:
                    return likelihood(views[theta].copy(), None)
                except BaseException as error:
                    run.fail(error)

        def c_prior(cube, theta, _n):
            try:
                prior(views[cube].copy(), views[theta])
            except BaseException as error:
                run.fail(error)

        def c_dumper(n_dead, n_live, n_columns, live, dead, logweights, logZ, logZ_err):
            run.dumper(
                _matrix(live, n_live, n_columns),
                _matrix(dead, n_dead, n_columns),
                _matrix(logweights, n_dead, 1)[:, 0],
                logZ,
                logZ_err,
            )

        grade_dims, grade_frac = s.grade_dims or (n,), s.grade_frac or (1.0,)
        # The three objects must live as long as the call.
        c_functions = _LIKELIHOOD(c_likelihood), _PRIOR(c_prior), _DUMPER(c_dumper)
        arguments = [
            *c_functions,
            ctypes.c_int(s.n_live),
            ctypes.c_int(s.num_repeats),
            ctypes.c_int(s.n_prior or s.n_live),
            ctypes.c_bool(s.do_clustering),
            ctypes.c_int(0),  # feedback
            ctypes.c_double(s.precision_criterion),
            ctypes.c_double(s.logzero),
            ctypes.c_int(s.max_ndead),
            ctypes.c_double(s.boost_posterior),
            ctypes.c_bool(s.write_posteriors),
            ctypes.c_bool(s.write_posteriors),  # equally weighted
            ctypes.c_bool(False),  # posteriors of clusters
            ctypes.c_bool(s.write_resume),
            ctypes.c_bool(False),  # .paramnames: ours is written before the run
            ctypes.c_bool("resumed_from" in run.state),
            ctypes.c_bool(True),  # stats
            ctypes.c_bool(True),  # live points
            ctypes.c_bool(True),  # dead points
            ctypes.c_bool(True),  # prior points
            ctypes.c_double(s.compression_factor),
            ctypes.c_int(n),
            ctypes.c_int(n_derived),
            ctypes.create_string_buffer(os.fsencode(run.folder), MAX_PATH_BYTES),
            ctypes.create_string_buffer(os.fsencode(run.root), MAX_PATH_BYTES),
            ctypes.c_int(len(grade_dims)),
            (ctypes.c_double * len(grade_frac))(*grade_frac),
            (ctypes.c_int * len(grade_dims))(*grade_dims),
            ctypes.c_int(0),  # no variable number of live points
            (ctypes.c_double * 1)(),
            (ctypes.c_int * 1)(),
            ctypes.c_int(seed),
        ]
        call = self._library.polychord_c_interface
        call.restype = None
        call(*arguments)

    def flush(self):
        """Empty Fortran's output buffers."""
        with contextlib.suppress(AttributeError):
            self._library._gfortran_flush_i4(None)


def _matrix(address, rows, columns):
    """Array over Fortran's (columns, rows), without a copy."""
    if not rows:
        return np.empty((0, columns))
    return np.frombuffer((ctypes.c_double * (rows * columns)).from_address(address)).reshape(rows, columns)
