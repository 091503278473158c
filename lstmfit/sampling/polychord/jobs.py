"""Serial PolyChord runs side by side, merged into one: the way to use all cores of one machine without MPI.

Why merging is exact: a nested sampling run is a set of points, each born uniformly inside the likelihood
contour of another one. The number of live points at any contour follows from births and deaths alone, and it
may vary along a run. Runs over the same prior and likelihood are independent, so their points together, with
their birth contours, are a run whose live points at each contour are the sum of the parts', which is all that
evidence and weights are computed from (Skilling 2006, Bayesian Analysis 1, 833; Higson et al. 2019,
Statistics and Computing 29, 891; Handley 2019, JOSS 4, 1414). Nor do the parts' ends matter: past the end of
one, its live points are simply missing from the sum.
"""

import dataclasses
import json
import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager, suppress
from multiprocessing import connection
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
from lstmfit.sampling.polychord.libraries import load_library
from lstmfit.sampling.polychord.merge import merge_parts
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.polychord.settings import PolyChordSettings
from lstmfit.sampling.polychord.thread import OWN_OUTPUT_VARIABLE
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.state import (
    PARTS,
    ROOT,
    check_parts,
    check_same_request,
    make_request,
    read_state,
    remove_parts,
    remove_stale,
    write_paramnames,
    write_state,
)
from lstmfit.workers import THREAD_VARIABLES, check_jobs

# What a child does when its parent asks or vanishes, and how long it is given.
STOP_GRACE_S = 10.0
POLL_S = 0.25
# The child takes its parent's import path, so that whatever make_problem was pickled from is found. Started with -P:
# otherwise a json.py in the current folder would be run in place of Python's own.
CHILD_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from lstmfit.sampling.polychord.jobs import _child; _child(int(sys.argv[1]))"
)

logger = logging.getLogger(__name__)


def run_jobs(
    make_problem: Callable,
    settings: PolyChordSettings,
    folder,
    root: str = "chain",
    jobs: int | None = None,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Result:
    """Share the live points among serial runs in child processes, and merge what they find.

    The parts lie in `<folder>/parts/<i>/`; `<folder>/<root>_dead-birth.txt`, `_phys_live-birth.txt`, `.txt`,
    `_equal_weights.txt` and `.paramnames` are the merged run, written when all parts are finished. The same
    number of jobs and the same seed give the same files.

    Parameters
    ----------
    make_problem : callable
        Called without arguments in each child; returns an object with `loglikelihood`, `prior_transform`,
        `names`, `derived_names` and `latex` (see `run_polychord`). It must be picklable: a function of a
        module, or a `functools.partial` of one.
    settings : PolyChordSettings
        Of the run as a whole: `n_live` is the total.
    folder : str or pathlib.Path
        Output folder.
    root : str
        First part of the merged files' names.
    jobs : int, optional
        Processes; all cores by default. Fewer are used where a part would have too few live points.
    resume : bool
        Continue the parts that are in the folder, `jobs` at a time. Otherwise start over.
    progress : callable, optional
        Called in this process about once a second with the parts' sums.
    stop : callable, optional
        Asked some times a second; True stops all parts, to be resumed later.

    Returns
    -------
    Result
        `logZ` and `logZ_err` are those of the merged run by anesthetic.

    Raises
    ------
    InputError
        As `run_polychord`; also one that a child raised.
    RuntimeError
        A child failed with anything else: its message, its traceback in `<folder>/parts/<i>/log.txt`.
    SystemExit
        SIGTERM came: the children are stopped first, as with Ctrl-C. Even `kill -9` leaves what can be resumed.
    """
    if os.environ.get(OWN_OUTPUT_VARIABLE):
        # The child had to import the script that make_problem is in, and that script starts the run once more.
        raise InputError(
            "the run was started again by a process of its own; put what starts it under if __name__ == '__main__':"
        )
    folder = Path(folder)
    jobs = check_jobs(jobs)
    # Here, before any process is started: a missing library is one error, not one per child.
    library = load_library()
    versions = {"version": library.version, "library": library.path}
    try:
        payload = pickle.dumps(make_problem)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"make_problem cannot be sent to another process ({error}); give a function of a module or a "
            "functools.partial of one"
        ) from error
    if b"__main__" in payload and not hasattr(sys.modules["__main__"], "__file__"):
        raise InputError(
            "make_problem is defined at a prompt or in a notebook; other processes need it in a module's file"
        )
    problem = make_problem()
    began = time.monotonic()
    plan = _plan(problem, settings, folder, root, jobs, resume)
    if plan.get("finished") and (folder / f"{root}_dead-birth.txt").is_file():
        logger.info("%s is finished; nothing is left to do", folder / root)
        return Result.of(plan)
    parts = [_Part(i, folder / PARTS / str(i), n) for i, n in enumerate(plan["shares"])]
    spent = plan["wall_s"]
    watch = _Watch(parts, settings, progress, lambda: spent + time.monotonic() - began)

    def write_plan():
        write_state(folder, root, plan | {"wall_s": watch.elapsed()})

    write_plan()
    try:
        with _terminating_is_an_exception():
            finished = _run_parts(parts, payload, settings, min(jobs, len(parts)), watch, stop)
    finally:
        write_plan()
    if not finished:
        return Result(**watch.totals(), finished=False, prior_fraction=None, **versions, ranks=len(parts))
    logZ, logZ_err, n_dead = merge_parts(
        [part.folder / ROOT for part in parts],
        folder / root,
        settings.seed,
    )
    state = plan | watch.totals() | versions
    state |= {"n_dead": n_dead, "logZ": logZ, "logZ_err": logZ_err, "wall_s": watch.elapsed(), "ranks": len(parts)}
    state |= {"finished": True, "prior_fraction": _prior_fraction(parts)}
    write_state(folder, root, state)
    if state["n_nan"]:
        logger.warning("the log-likelihood was NaN in %d of %d calls", state["n_nan"], state["n_like"])
    return Result.of(state)


def share_live_points(n_live: int, jobs: int, n_params: int) -> list[int]:
    """Divide live points among runs, none of which gets too few to learn the shape of the posterior from.

    Parameters
    ----------
    n_live : int
        Live points in all.
    jobs : int
        Runs wanted.
    n_params : int
        Parameters; a part gets at least 2 (n_params + 1) points.

    Returns
    -------
    list of int
        Live points of each run, summing to `n_live`; possibly of fewer runs than wanted.
    """
    least = 2 * (n_params + 1)
    runs = max(1, min(jobs, n_live // least))
    if runs < jobs:
        logger.info(
            "%d live points are enough for %d run%s of at least %d, so %d of %d jobs are used; mpirun can use more",
            n_live, runs, "s" * (runs > 1), least, runs, jobs,
        )  # fmt: skip
    return [n_live // runs + (i < n_live % runs) for i in range(runs)]


# ---------------------------------------------------------------- parts


@dataclasses.dataclass
class _Part:
    index: int
    folder: Path
    n_live: int
    process: subprocess.Popen | None = None
    channel: connection.Connection | None = None
    latest: Progress = dataclasses.field(default_factory=lambda: Progress(n_dead=0, n_like=0))
    result: Result | None = None

    def start(self, payload, settings, seed, resume):
        """Start the child and send it what to do."""
        ours, theirs = connection.Pipe()
        environment = os.environ | {name: "1" for name in THREAD_VARIABLES} | {OWN_OUTPUT_VARIABLE: "1"}
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-c", CHILD_CODE, str(theirs.fileno()), json.dumps(sys.path)]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        theirs.close()
        self.channel = ours
        part_settings = settings.model_copy(update={"n_live": self.n_live, "seed": seed})
        main = getattr(sys.modules["__main__"], "__file__", None) if b"__main__" in payload else None
        with suppress(BrokenPipeError):  # a child that is dead already is noticed by its exit status
            ours.send((main, payload, part_settings, str(self.folder), resume))

    def stop(self):
        """Ask the child to end; it does so at its next likelihood call."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def wait(self, deadline):
        """Wait for the child's end, and make it end."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # Harmless to the files: PolyChord's resume file is renamed into place.
            self.process.kill()
            self.process.wait()

    def log_tail(self, n: int = 1) -> str:
        """Last `n` lines of what the child printed."""
        try:
            lines = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return " ".join([line.strip() for line in lines if line.strip()][-n:]) or "no output"


def _plan(problem, settings, folder, root, jobs, resume) -> dict:
    """State of the run as a whole: the one in the folder, or a new one."""
    check_parts(folder)
    request = make_request(problem, settings)
    plan = read_state(folder, root) if resume else {}
    if plan and "shares" not in plan:
        raise InputError(f"{folder / root} was begun under mpirun; resume it there, or start over with --force")
    if plan:
        check_same_request(plan, request, folder / root)
        return plan
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)
        remove_stale(folder, root)
        write_paramnames(folder, root, problem)
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); give another output folder") from error
    shares = share_live_points(settings.n_live, jobs, len(request["names"]))
    return request | {"shares": shares, "wall_s": 0.0}


def _run_parts(parts, payload, settings, at_once, watch, stop) -> bool:
    """Run all parts, `at_once` at a time; False where `stop` ended them early."""
    seeds = [int(s) % 2**31 for s in np.random.SeedSequence(settings.seed).generate_state(len(parts))]
    waiting, running = list(reversed(parts)), []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                part = waiting.pop()
                # A child that finds its part finished says so at once; one that has nothing starts from
                # nothing.
                part.start(payload, settings, seeds[part.index], resume=True)
                running.append(part)
            for channel in connection.wait([part.channel for part in running], POLL_S):
                part = next(p for p in running if p.channel is channel)
                _receive(part)
                if part.result is not None:
                    part.stop()
                    running.remove(part)
            watch.tell()
            if stop and stop():
                return False
        return True
    finally:
        for part in parts:
            part.stop()
        deadline = time.monotonic() + STOP_GRACE_S
        for part in parts:
            part.wait(deadline)


def _receive(part):
    """Take one message of a child, or account for its death."""
    try:
        kind, content = part.channel.recv()
    except (EOFError, ConnectionResetError):
        status = part.process.wait()
        if "Fortran runtime error" in part.log_tail(20) and (part.folder / f"{ROOT}.resume").is_file():
            raise InputError(
                f"{part.folder / ROOT}.resume is damaged: PolyChord cannot read it (its output is in "
                f"{part.folder / 'log.txt'}); start over with --force"
            ) from None
        raise RuntimeError(
            f"part {part.index} of the run ended with status {status} ({part.log_tail()}); its output is in "
            f"{part.folder / 'log.txt'}"
        ) from None
    if kind == "progress":
        part.latest = content
    elif kind == "result":
        part.result = content
        # The last word on its figures, also for a part that was finished before.
        part.latest = dataclasses.replace(
            part.latest, n_dead=content.n_dead, n_like=content.n_like, logZ=content.logZ, logZ_err=content.logZ_err
        )
    elif kind == "input error":
        raise InputError(content)
    else:
        raise RuntimeError(f"{content} (traceback in {part.folder / 'log.txt'})")


class _Watch:
    """The parts' progress as one."""

    def __init__(self, parts, settings, progress, elapsed):
        self.parts, self.progress, self.elapsed = parts, progress, elapsed
        self.total = settings.n_live
        self.said = 0.0

    def tell(self):
        if self.progress and time.monotonic() - self.said > 1.0:
            self.said = time.monotonic()
            self.progress(self.combined())

    def combined(self) -> Progress:
        latest = [part.latest for part in self.parts]
        shares = np.array([part.n_live for part in self.parts]) / self.total
        remaining = [part.latest.remaining for part in self.parts if part.result is None]
        known = all(p.logZ == p.logZ for p in latest)
        return Progress(
            n_dead=sum(p.n_dead for p in latest),
            n_like=sum(p.n_like for p in latest),
            # Each part estimates the same ln Z, with a variance in proportion to 1 / live points.
            logZ=float(shares @ [p.logZ for p in latest]) if known else math.nan,
            logZ_err=float(np.sqrt(np.sum((shares * [p.logZ_err for p in latest]) ** 2))) if known else math.nan,
            logL_min=min(p.logL_min for p in latest),
            logL_max=max(p.logL_max for p in latest),
            elapsed=self.elapsed(),
            remaining=None if None in remaining else max(remaining, default=0.0),
            climbing=any(p.climbing for p in latest),
        )

    def totals(self) -> dict:
        combined = self.combined()
        n_nan = sum(part.result.n_nan for part in self.parts if part.result)
        return {
            "n_like": combined.n_like,
            "n_dead": combined.n_dead,
            "n_nan": n_nan,
            "wall_s": combined.elapsed,
            "logZ": combined.logZ,
            "logZ_err": combined.logZ_err,
        }


def _prior_fraction(parts) -> float | None:
    fractions = [part.result.prior_fraction for part in parts]
    if None in fractions:
        return None
    n_live = np.array([part.n_live for part in parts])
    return float(n_live.sum() / (n_live / fractions).sum())


@contextmanager
def _terminating_is_an_exception():
    """Let SIGTERM end the children before this process, as Ctrl-C does."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def terminate(_signal, _frame):
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ---------------------------------------------------------------- the child


def _child(descriptor):
    """Run one part; the process ends here."""
    channel = connection.Connection(descriptor)
    # Ctrl-C reaches every process of the terminal; the parent decides what comes of it, and says so by
    # hanging up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    try:
        main, payload, settings, folder, resume = channel.recv()
        if main is not None:
            _import_main(main)
        problem = pickle.loads(payload)()
        result = run_polychord(
            problem,
            folder,
            ROOT,
            settings,
            posteriors=False,
            resume=resume,
            progress=lambda progress: channel.send(("progress", progress)),
            # The parent sends nothing more: something to read means that it hung up or died.
            stop=channel.poll,
        )
        if result.finished:
            channel.send(("result", result))
    except (BrokenPipeError, ConnectionResetError, EOFError):
        pass
    except BaseException as error:
        status = 1
        message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):
            channel.send(("input error" if isinstance(error, InputError) else "error", message))
        # Last: the log may lie on a disk that is full.
        with suppress(OSError):
            traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Past the interpreter's clean-up, which a thread asleep inside Fortran might not survive.
    os._exit(status)


def _import_main(path):
    """Make the parent's script importable as `__main__`, without running what is under its `if __name__`
    line.
    """
    import runpy
    import types

    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
