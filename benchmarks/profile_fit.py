"""Time spent in each part of a fit: the table of docs/results/scaling.md.

    python benchmarks/profile_fit.py WORK [--run runs/mock_25mK.yaml]
    mpirun -n 3 python benchmarks/profile_fit.py WORK

One process (or each worker) fits with a clock around each part of a call; the clocks' own cost is measured and taken
off. What is neither in a call nor in the prior is PolyChord itself, ctypes and, over MPI, waiting for work.
"""

import argparse
import json
import os
import time
from pathlib import Path

from pages import TOP, replace_in_page

from lstmfit import config
from lstmfit.driver import resolve
from lstmfit.mpi import world
from lstmfit.problem import build
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.polychord.thread import PolyChordThread
from lstmfit.sampling.samplers import make_sampler
from lstmfit.sampling.state import ROOT

PARTS = {
    "signal": "emulator",
    "likelihood": "likelihood",
    "call": "rest of the likelihood call",
    "prior": "prior transform",
    "adapter": "adapter between PolyChord and Python",
    "outside": "PolyChord, ctypes, files",
}


class Clock:
    """Total time in nanoseconds and number of calls of a function."""

    def __init__(self):
        self.ns = self.calls = 0

    def around(self, function):
        """Wrap a function to be timed by this clock."""
        now = time.perf_counter_ns

        def timed(*arguments):
            began = now()
            answer = function(*arguments)
            self.ns += now() - began
            self.calls += 1
            return answer

        return timed


def overhead() -> tuple[float, float]:
    """Overhead per call in nanoseconds of a clock, on its own measurement and on the enclosing one."""
    clock, n = Clock(), 200_000
    nothing = clock.around(lambda theta: None)
    began = time.perf_counter_ns()
    for _ in range(n):
        nothing(1)
    return clock.ns / n, (time.perf_counter_ns() - began) / n


def profile(work: Path, run: Path) -> dict:
    """Total time in seconds of each part over all workers, and numbers of calls."""
    comm = world()
    rank = 0 if comm is None else comm.Get_rank()
    content = config.load(run)
    problem = build(content)
    settings = make_sampler(resolve(content, problem)).settings
    clocks = {name: Clock() for name in ("signal", "likelihood", "total", "prior", "callback")}
    problem.signal.outputs = clocks["signal"].around(problem.signal.outputs)
    part = problem._calls[0]
    part.likelihood = clocks["likelihood"].around(part.likelihood)
    problem.loglikelihood = clocks["total"].around(problem.loglikelihood)
    problem.prior_transform = clocks["prior"].around(problem.prior_transform)
    callbacks = PolyChordThread.callbacks
    PolyChordThread.callbacks = lambda self: tuple(clocks["callback"].around(f) for f in callbacks(self))
    inside, outside = overhead()
    if comm is not None:
        comm.Barrier()
    began = time.perf_counter()
    run_polychord(problem, work / "profile", ROOT, settings, comm=comm)
    wall = time.perf_counter() - began
    if comm is not None and rank == 0:
        return comm.reduce(None, op=_add)

    def seconds(name, *within):
        """Time of a clock without the overhead of the clocks."""
        clock = clocks[name]
        return 1e-9 * (clock.ns - clock.calls * inside - sum(clocks[w].calls * outside for w in within))

    raw = {
        "signal": seconds("signal"),
        "likelihood": seconds("likelihood"),
        "total": seconds("total", "signal", "likelihood"),
        "prior": seconds("prior"),
        "callback": seconds("callback", "signal", "likelihood", "total", "prior"),
    }
    every = 1e-9 * sum(clock.calls for clock in clocks.values()) * outside
    found = {
        "signal": raw["signal"],
        "likelihood": raw["likelihood"],
        "call": raw["total"] - raw["signal"] - raw["likelihood"],
        "prior": raw["prior"],
        "adapter": raw["callback"] - raw["total"] - raw["prior"],
        "outside": wall - every - raw["callback"],
        "calls": clocks["total"].calls,
    }
    return found if comm is None else comm.reduce(found, op=_add)


def _add(a, b):
    """Sum of the results of two workers; rank 0 has none."""
    if a is None or b is None:
        return a or b
    return {key: a[key] + b[key] for key in a}


def main():
    """Profile a fit and write the table to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--run", type=Path, default=TOP / "runs" / "mock_25mK.yaml")
    wanted = parser.parse_args()
    comm = world()
    load = os.getloadavg()[0]
    found = profile(wanted.work, wanted.run)
    if comm is not None and comm.Get_rank():
        return
    calls, workers = found.pop("calls"), 1 if comm is None else comm.Get_size() - 1
    whole = sum(found.values())
    names = PARTS | ({"outside": "PolyChord, ctypes, waiting for work"} if comm is not None else {})
    lines = ["| part | µs per call | share |", "|---|---|---|"]
    lines += [f"| {names[k]} | {1e6 * s / calls:.2f} | {100 * s / whole:.1f} % |" for k, s in found.items()]
    lines.append(f"| total | {1e6 * whole / calls:.1f} | {calls:,} calls, {whole / workers:.1f} s |")
    text = f"{wanted.run.stem}, {workers} worker{'s' * (workers > 1)}, load average {load:.1f} before the start.\n\n"
    text += "\n".join(lines)
    replace_in_page("scaling.md", f"profile {'one process' if comm is None else 'ranks'}", text)
    (wanted.work / "profile.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
