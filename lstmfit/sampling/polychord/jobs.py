"""Serial PolyChord runs in parallel processes, merged into one run: uses all cores of one machine without MPI.

Merging is exact. A nested sampling run is a set of points, each drawn uniformly from within the likelihood contour of
an earlier one. The number of live points at any contour follows from the births and deaths, and may vary during the
run. Runs with the same prior and likelihood are independent, so their combined points and birth contours form a single
run whose number of live points at each contour is the sum over the parts. Evidence and weights depend only on that
number (Skilling 2006, Bayesian Analysis 1, 833; Higson et al. 2019, Statistics and Computing 29, 891; Handley 2019,
JOSS 4, 1414). The parts may end at different likelihoods: beyond its end, a part contributes no live points to the sum.

Points of one run are correlated, because a new point starts from a live one. Independent runs are not, so their means
show the true error of a mean (`lstmfit.sampling.mean_errors`). There are therefore several runs even on one core.
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

# How long a child may take to stop before it is killed.
STOP_GRACE_S = 10.0
POLL_S = 0.25
LEAST_RUNS = 8
"""Minimum number of serial runs, if there are enough live points; their differences show the error of a mean."""
# The child uses its parent's import path, so that the module of make_problem is found. It is started with -P, because
# otherwise a json.py in the current folder would be imported instead of the standard library's.
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
    """Divide the live points among serial runs in child processes, and merge the runs.

    There are at least `LEAST_RUNS` of them, so on 1, 2, 4 or 8 cores the result is the same. The parts are in
    `<folder>/parts/<i>/`. The merged run, written when all parts have finished, is `<folder>/<root>_dead-birth.txt`,
    `_phys_live-birth.txt`, `.txt`, `_equal_weights.txt` and `.paramnames`. The same number of runs and the same seed
    give the same files.

    Parameters
    ----------
    make_problem : callable
        Called without arguments in each child; returns an object with `loglikelihood`, `prior_transform`,
        `names`, `derived_names` and `latex` (see `run_polychord`). It must be picklable: a function defined in a
        module, or a `functools.partial` of one.
    settings : PolyChordSettings
        Settings of the merged run: `n_live` is the total.
    folder : str or pathlib.Path
        Output folder.
    root : str
        Prefix of the names of the merged files.
    jobs : int, optional
        Number of processes; all cores by default. Fewer are used if a part would have too few live points. Processes
        that finish a part go on with the next one.
    resume : bool
        Resume the parts in the folder, `jobs` at a time; otherwise start over.
    progress : callable, optional
        Called in this process about once a second with the progress of all parts combined.
    stop : callable, optional
        Called several times a second; if it returns True, all parts are stopped and can be resumed later.

    Returns
    -------
    Result
        `logZ` and `logZ_err` are computed by anesthetic from the merged run.

    Raises
    ------
    InputError
        As `run_polychord`, also if raised in a child.
    RuntimeError
        A child failed with any other error. The traceback is in `<folder>/parts/<i>/log.txt`.
    SystemExit
        The process received SIGTERM; the children are stopped first, as with Ctrl-C. Even after `kill -9` the run can
        be resumed.
    """
    if os.environ.get(OWN_OUTPUT_VARIABLE):
        # The child had to import the script that defines make_problem, and that script starts the run again.
        raise InputError(
            "the run was started again by one of its own child processes; put the code that starts it under "
            "if __name__ == '__main__':"
        )
    folder = Path(folder)
    jobs = check_jobs(jobs)
    # Load it before any process starts, so that a missing library gives one error instead of one per child.
    library = load_library()
    versions = {"version": library.version, "library": library.path}
    try:
        payload = pickle.dumps(make_problem)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"make_problem cannot be sent to another process ({error}); give a function defined in a module or a "
            "functools.partial of one"
        ) from error
    if b"__main__" in payload and not hasattr(sys.modules["__main__"], "__file__"):
        raise InputError(
            "make_problem is defined in an interactive session or a notebook, where other processes cannot import it; "
            "move it to a module"
        )
    problem = make_problem()
    began = time.monotonic()
    plan = _plan(problem, settings, folder, root, jobs, resume)
    if plan.get("finished") and (folder / f"{root}_dead-birth.txt").is_file():
        logger.info("%s has already finished; there is nothing left to do", folder / root)
        return Result.of(plan)
    parts = _parts(plan, folder)
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
        return Result(**watch.totals(), finished=False, prior_fraction=None, **versions, ranks=min(jobs, len(parts)))
    if progress:
        progress(watch.combined())
    return _merge(plan | versions | {"ranks": min(jobs, len(parts))}, parts, watch, folder, root)


def run_here(problem, settings: PolyChordSettings, folder, root: str = "chain", *, resume: bool = False) -> Result:
    """Do the same runs as `run_jobs` one after the other in this process, and merge them.

    Parameters
    ----------
    problem : object
        See `run_polychord`.
    settings, folder, root, resume
        See `run_jobs`.

    Returns
    -------
    Result
        As of `run_jobs`.

    Raises
    ------
    InputError
        As `run_polychord`.
    """
    folder = Path(folder)
    if resume and (state := read_state(folder, root)) and "shares" not in state:
        # Started by lstmfit 0.1, as one run.
        return run_polychord(problem, folder, root, settings, resume=True)
    began = time.monotonic()
    plan = _plan(problem, settings, folder, root, 1, resume)
    if plan.get("finished") and (folder / f"{root}_dead-birth.txt").is_file():
        return Result.of(plan)
    parts = _parts(plan, folder)
    spent = plan["wall_s"]
    watch = _Watch(parts, settings, None, lambda: spent + time.monotonic() - began)
    library = load_library()
    try:
        write_state(folder, root, plan)
        for part, seed in zip(parts, _seeds(settings, parts)):
            own = settings.share(part.n_live, seed)
            part.finish(run_polychord(problem, part.folder, ROOT, own, posteriors=False, resume=True))
    finally:
        write_state(folder, root, plan | {"wall_s": watch.elapsed()})
    facts = {"version": library.version, "library": library.path, "ranks": 1}
    return _merge(plan | facts, parts, watch, folder, root)


def _merge(plan, parts, watch, folder, root) -> Result:
    """Merge finished parts and write the state of the finished run."""
    roots = [part.folder / ROOT for part in parts]
    merged = merge_parts(roots, folder / root, plan["settings"]["seed"], plan["names"], plan["derived_names"])
    state = plan | watch.totals() | merged | {"wall_s": watch.elapsed()}
    state |= {"finished": True, "prior_fraction": _prior_fraction(parts)}
    write_state(folder, root, state)
    if state["n_nan"]:
        logger.warning("the log-likelihood was NaN in %d of %d calls", state["n_nan"], state["n_like"])
    return Result.of(state)


def share_live_points(n_live: int, jobs: int, n_params: int) -> list[int]:
    """Divide live points among runs: at least `LEAST_RUNS`, but such that each can learn the shape of the posterior.

    Parameters
    ----------
    n_live : int
        Total number of live points.
    jobs : int
        Number of processes, of which the number of runs is a multiple.
    n_params : int
        Number of parameters; each run gets at least 2 (n_params + 1) live points.

    Returns
    -------
    list of int
        Live points of each run, summing to `n_live`; there are fewer runs if `n_live` is small.
    """
    least = 2 * (n_params + 1)
    most = max(1, n_live // least)
    runs = min(jobs * math.ceil(LEAST_RUNS / jobs), most)
    if runs > jobs:
        runs -= runs % jobs
    elif runs < jobs:
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

    def start(self):
        """Start a child."""
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

    def take_over(self, other):
        """Use the child of a part that has finished, which saves its start."""
        self.process, self.channel = other.process, other.channel
        other.process = other.channel = None

    def send(self, payload, settings, seed):
        """Send the child its task."""
        part_settings = settings.share(self.n_live, seed)
        main = getattr(sys.modules["__main__"], "__file__", None) if b"__main__" in payload else None
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(BrokenPipeError):  # the exit status will tell that the child has died
            self.channel.send((main, payload, part_settings, str(self.folder)))

    def finish(self, result: Result):
        """Keep the result, whose figures are final, also for a part that had finished earlier."""
        self.result = result
        self.latest = dataclasses.replace(
            self.latest, n_dead=result.n_dead, n_like=result.n_like, logZ=result.logZ, logZ_err=result.logZ_err
        )

    def stop(self):
        """Ask the child to stop, which it does at its next likelihood call."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def wait(self, deadline):
        """Wait for the child to end, and kill it at the deadline."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # Harmless to the files: PolyChord's resume file is renamed into place.
            self.process.kill()
            self.process.wait()

    def log_tail(self, n: int = 1) -> str:
        """Last `n` lines of the child's output."""
        try:
            lines = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return " ".join([line.strip() for line in lines if line.strip()][-n:]) or "no output"


def _parts(plan, folder) -> list[_Part]:
    return [_Part(i, folder / PARTS / str(i), n) for i, n in enumerate(plan["shares"])]


def _seeds(settings, parts) -> list[int]:
    return [int(s) % 2**31 for s in np.random.SeedSequence(settings.seed).generate_state(len(parts))]


def _plan(problem, settings, folder, root, jobs, resume) -> dict:
    """State of the merged run: that in the folder, or a new one."""
    check_parts(folder)
    request = make_request(problem, settings)
    plan = read_state(folder, root) if resume else {}
    if plan and "shares" not in plan:
        raise InputError(
            f"{folder / root} was started under mpirun; resume it under mpirun, or start over with --force"
        )
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
    """Run all parts, `at_once` at a time; False if `stop` ended them early."""
    seeds = _seeds(settings, parts)
    waiting, running = list(reversed(parts)), []

    def begin(part):
        part.send(payload, settings, seeds[part.index])
        running.append(part)

    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                part = waiting.pop()
                part.start()
                begin(part)
            for channel in connection.wait([part.channel for part in running], POLL_S):
                part = next(p for p in running if p.channel is channel)
                _receive(part)
                if part.result is None:
                    continue
                running.remove(part)
                if waiting:
                    following = waiting.pop()
                    following.take_over(part)
                    begin(following)
                else:
                    part.stop()
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
    """Handle one message from a child, or its death."""
    try:
        kind, content = part.channel.recv()
    except (EOFError, ConnectionResetError):
        status = part.process.wait()
        if "Fortran runtime error" in part.log_tail(20) and (part.folder / f"{ROOT}.resume").is_file():
            raise InputError(
                f"{part.folder / ROOT}.resume is damaged, PolyChord cannot read it (see {part.folder / 'log.txt'}); "
                "start over with --force"
            ) from None
        raise RuntimeError(
            f"part {part.index} of the run ended with exit status {status} ({part.log_tail()}); for its output, see "
            f"{part.folder / 'log.txt'}"
        ) from None
    if kind == "progress":
        part.latest = content
    elif kind == "result":
        part.finish(content)
    elif kind == "input error":
        raise InputError(content)
    else:
        raise RuntimeError(f"{content} (traceback in {part.folder / 'log.txt'})")


class _Watch:
    """Combined progress of the parts."""

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
            # Each part estimates the same ln Z with a variance proportional to 1 / n_live.
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
    """Stop the children before this process ends on SIGTERM, as with Ctrl-C."""
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
    """Run one part after the other; the process ends here."""
    channel = connection.Connection(descriptor)
    # Ctrl-C reaches every process of the terminal. The parent decides whether to stop, and closes the channel if so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    try:
        problem = None
        while True:
            main, payload, settings, folder = channel.recv()
            _write_to(Path(folder) / "log.txt")
            if problem is None:
                if main is not None:
                    _import_main(main)
                problem = pickle.loads(payload)()
            result = run_polychord(
                problem,
                folder,
                ROOT,
                settings,
                posteriors=False,
                # A part that has finished returns its result immediately; one without files starts over.
                resume=True,
                progress=lambda progress: channel.send(("progress", progress)),
                # The parent sends nothing during a run, so the channel only becomes readable when it closes it or dies.
                stop=channel.poll,
            )
            if not result.finished:
                break
            channel.send(("result", result))
    except (BrokenPipeError, ConnectionResetError, EOFError):
        pass
    except BaseException as error:
        status = 1
        message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):
            channel.send(("input error" if isinstance(error, InputError) else "error", message))
        # Last, because the disk with the log may be full.
        with suppress(OSError):
            traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Skip the interpreter's clean-up, which might crash with a thread asleep inside Fortran.
    os._exit(status)


def _write_to(path):
    """Append the output of this process, also that of Fortran, to a file."""
    with path.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


def _import_main(path):
    """Import the parent's script as `__main__`, without running the code under its `if __name__` line."""
    import runpy
    import types

    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
