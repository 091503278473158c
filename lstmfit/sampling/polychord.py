"""PolyChord asked to run: settings, checks, what is in the folder. The run itself is in `polychord_run`."""

import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
from lstmfit.files import writing_into
from lstmfit.sampling.libraries import MAX_PATH_BYTES, load_library
from lstmfit.sampling.polychord_run import Run
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.state import (
    check_same_request,
    is_whole,
    make_request,
    read_resume_header,
    read_state,
    remove_stale,
    restore_resume_file,
    write_paramnames,
    write_state,
)

LONGEST_SUFFIX = "/clusters/_phys_live_10000.txt_temp"

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
        Repeats per speed, in place of `num_repeats`, if all are above 1; otherwise shares of the time, which PolyChord
        measures, so that the run cannot be repeated to the digit.

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

        if self.grade_dims is not None:
            if min(self.grade_dims) < 1:
                raise InputError(f"grade_dims is {list(self.grade_dims)}; give whole numbers of at least 1")
            counts = all(x > 1 and x == int(x) for x in self.grade_frac)
            if not counts and not all(0 < x <= 1 for x in self.grade_frac):
                raise InputError(
                    f"grade_frac is {list(self.grade_frac)}; give whole numbers of repeats above 1, or shares of the "
                    "time up to 1"
                )

    def check_grades(self, n: int):
        """Refuse grades of other than `n` parameters (InputError)."""
        if self.grade_dims is not None and sum(self.grade_dims) != n:
            raise InputError(f"grade_dims add up to {sum(self.grade_dims)}, but there are {n} parameters")


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
        over.
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

            state = on_root(comm, lambda: _prepare(problem, folder, root, settings, resume, True))
        else:
            state = _prepare(problem, folder, root, settings, resume, False)
        if state.get("finished"):
            logger.info("%s is finished; nothing is left to do", folder / root)
            return Result.of(state)
        run = Run(problem, folder, root, settings, state, comm if parallel else None)
        with writing_into(folder / root, "and resume: what was finished is kept"):
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
        settings.check_grades(n)
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


def _prepare(problem, folder, root, settings, resume, parallel) -> dict:
    """Make the folder ready and say from where the run starts (on the root rank only)."""
    if not root or "/" in root:
        raise InputError(f"root is {root!r}, but a plain file name is needed")
    length = len(os.fsencode(folder)) + len(os.fsencode(root)) + len(LONGEST_SUFFIX)
    if length >= MAX_PATH_BYTES:
        raise InputError(
            f"the output path {folder}/{root} has {length} bytes with what PolyChord appends, more than the "
            f"{MAX_PATH_BYTES - 1} it can hold; give a shorter or a relative one"
        )
    request = make_request(problem, settings)
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
                    "or start over with --force"
                )
        last_section = load_library(parallel).last_section
        restore_resume_file(folder, root, last_section)
        if state and not state["n_dead"] and resume_file.is_file() and not is_whole(resume_file, last_section):
            # Cut short among the first live points: there is nothing yet to lose.
            resume_file.unlink()
        if resume and resume_file.is_file() and not state.get("finished"):
            header = read_resume_header(resume_file)
            for key, there, what in (
                ("n_dims", len(problem.names), "parameters"),
                ("n_derived", len(problem.derived_names), "derived parameters"),
            ):
                if header[key] != there:
                    raise InputError(
                        f"{resume_file} holds {header[key]} {what}, now there are {there}; "
                        "resume with the run file that it was begun with, or start over with --force"
                    )
            state = fresh | {"n_like": header["n_like"]} | state | {"resumed_from": header["n_dead"]}
        elif not state:
            state = fresh
            remove_stale(folder, root)
        write_paramnames(folder, root, problem)
        write_state(folder, root, state)
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); give another output folder") from error
    return state
