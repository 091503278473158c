"""The serial runs as the parent sees them: a child process for each, what it says, and their combined progress."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from multiprocessing import connection
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
from lstmfit.sampling.polychord.thread import OWN_OUTPUT_VARIABLE
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.state import ROOT
from lstmfit.workers import THREAD_VARIABLES

# How long a child may take to stop before it is killed.
STOP_GRACE_S = 10.0
POLL_S = 0.25
# The child uses its parent's import path, so that the module of make_problem is found. It is started with -P, because
# otherwise a json.py in the current folder would be imported instead of the standard library's.
CHILD_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from lstmfit.sampling.polychord.child import run_child; run_child(int(sys.argv[1]))"
)


@dataclasses.dataclass
class Part:
    """One serial run.

    Attributes
    ----------
    index : int
        Number of the part.
    folder : pathlib.Path
        Folder of its files.
    n_live : int
        Its live points.
    process : subprocess.Popen or None
        Its child process, while it has one.
    channel : multiprocessing.connection.Connection or None
        Connection to the child.
    latest : Progress
        What the child last said.
    result : Result or None
        Result of the finished part.
    """

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


def seeds_of(settings, parts) -> list[int]:
    """Seed of each part, from that of the merged run."""
    return [int(s) % 2**31 for s in np.random.SeedSequence(settings.seed).generate_state(len(parts))]


def run_parts(parts, payload, settings, at_once, watch, stop) -> bool:
    """Run all parts in child processes.

    Parameters
    ----------
    parts : list of Part
        The parts.
    payload : bytes
        Pickled `make_problem`, see `lstmfit.sampling.polychord.jobs.run_jobs`.
    settings : PolyChordSettings
        Settings of the merged run.
    at_once : int
        Number of processes.
    watch : Watch
        Told about once a second.
    stop : callable or None
        Called several times a second; if it returns True, all parts are stopped.

    Returns
    -------
    bool
        False if `stop` ended them early.

    Raises
    ------
    InputError, RuntimeError
        As `lstmfit.sampling.polychord.jobs.run_jobs`.
    """
    seeds = seeds_of(settings, parts)
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


class Watch:
    """Combined progress of the parts.

    Parameters
    ----------
    parts : list of Part
        The parts.
    settings : PolyChordSettings
        Settings of the merged run.
    progress : callable or None
        Called with the combined progress.
    elapsed : callable
        Returns the wall time of the run in seconds, with that before it was resumed.
    """

    def __init__(self, parts, settings, progress, elapsed):
        self.parts, self.progress, self.elapsed = parts, progress, elapsed
        self.total = settings.n_live
        self.said = 0.0

    def tell(self):
        """Call `progress`, if the last call was more than a second ago."""
        if self.progress and time.monotonic() - self.said > 1.0:
            self.said = time.monotonic()
            self.progress(self.combined())

    def combined(self) -> Progress:
        """Progress of all parts together."""
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
        """Figures of all parts together, as in `Result`."""
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


@contextmanager
def terminating_is_an_exception():
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
