"""Simulate training, validation and test sets in parallel; an interrupted campaign can be resumed.

While a campaign runs, finished work is kept in shards: small files in the folder `SET.h5.parts`, each written under
a temporary name and renamed, so that a shard is either complete or absent. At the end they are merged into one HDF5
file, which is also renamed. The parameters of a row depend only on the seed and its number, not on where or when it
is computed. See `lstmfit.simulators.rows` for the rows and their shards, `setfile` for the HDF5 file, and `tasks` for
the simulations.
"""

import json
import logging
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lstmfit.errors import InputError, did_you_mean, one_line
from lstmfit.files import AnyPath, locked, user_path, write_text, writing_into
from lstmfit.mpi import world
from lstmfit.schema import INT64, shown
from lstmfit.simulators import load
from lstmfit.simulators.design import DESIGNS
from lstmfit.simulators.protocol import SimulationError
from lstmfit.simulators.rows import Rows, write_shard
from lstmfit.simulators.setfile import (
    SimulatedSet,
    compare_plans,
    parse_plan,
    read_finished,
    read_plan_of,
    summary,
    write_set,
)
from lstmfit.simulators.tasks import outcomes_of
from lstmfit.workers import cores, death_as, worker_pool

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 20.0
MOST_SIGNALS = 10**9
"""Maximum number of signals in a split; far more than fit on a disk."""


def simulate_set(
    path: AnyPath,
    n: int,
    *,
    simulator: str = "echo21",
    design: str = "sobol",
    seed: int = 0,
    n_val: int | None = None,
    n_test: int | None = None,
    jobs: int | None = None,
    progress: bool = True,
    force: bool = False,
) -> SimulatedSet | None:
    """Simulate a set of signals, resume an interrupted campaign, or enlarge a finished set.

    The simulations run on the MPI ranks under an MPI launcher, otherwise in processes on this machine. The result does
    not depend on their number. In your own script, call this function under `if __name__ == "__main__":`, because each
    process imports the script.

    Parameters
    ----------
    path : str or pathlib.Path
        HDF5 file to write at the end. Until then, `collect(path, partial=True)` merges the finished rows.
    n : int
        Number of training signals.
    simulator : str
        A name for `lstmfit.simulators.load`, including `package.module:attribute`.
    design : str
        "sobol" or "uniform", for the training parameters. The other splits are always drawn from the prior.
    seed : int
        Seed of the three splits, which are independent of each other.
    n_val, n_test : int, optional
        Numbers of validation and test signals; by default an eighth of `n` each, at least 16 and at most 2048.
    jobs : int, optional
        Number of processes; by default the number of available cores. Ignored under MPI.
    progress : bool
        Show a progress bar on stderr.
    force : bool
        Overwrite an existing set or campaign.

    Returns
    -------
    SimulatedSet or None
        Summary of the set; None on MPI ranks other than the first.

    Raises
    ------
    InputError
        A setting is invalid, or the existing set or campaign at `path` has different settings.
    SimulationError
        Every training simulation failed, or a worker process died.
    """
    counts = _check_counts(n, n_val, n_test, jobs)
    if design not in DESIGNS:
        raise InputError(f"unknown design {design!r}; {did_you_mean(design, DESIGNS)}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= INT64:
        raise InputError(f"seed is {shown(seed)}; expected a whole number, 0 or above")
    path = user_path(path, "output")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file")

    jobs = min(jobs or cores(), sum(counts.values()))
    settings = (path, counts, simulator, design, int(seed), progress, force)
    with writing_into(path, "and repeat the command; finished work is kept"):
        if jobs == 1 and world() is None:
            return _campaign(*settings, None, 1)
        with death_as(SimulationError, "a worker process"), worker_pool(jobs) as (pool, workers):
            return None if pool is None else _campaign(*settings, pool, workers)


def collect(path: AnyPath, output: AnyPath | None = None, *, partial: bool = False) -> SimulatedSet:
    """Merge the finished rows of a campaign into one HDF5 file.

    Parameters
    ----------
    path : str or pathlib.Path
        The `path` passed to `simulate_set`, which may still be running.
    output : str or pathlib.Path, optional
        File to write; by default `SET.partial.h5` beside `SET.h5`.
    partial : bool
        Accept an unfinished campaign.

    Returns
    -------
    SimulatedSet
        Summary of the new file.

    Raises
    ------
    InputError
        There is no campaign at `path`, or it is not finished and `partial` is False.
    """
    path = Path(path)
    parts = _parts(path)
    plan = _read_plan(parts)
    if plan is None:
        where = f"{path} is already complete" if path.exists() else f"there is no campaign at {path}"
        raise InputError(f"{where}: the folder {parts.name} with finished rows does not exist")
    rows = Rows(plan)
    read_finished(rows, path, plan)
    rows.read_shards(parts)
    if rows.n_missing and not partial:
        raise InputError(
            f"{path}: {rows.n_missing} of {rows.n_total} rows are not simulated yet; repeat simulate to resume, or "
            "collect a partial set"
        )
    output = path.with_suffix(".partial" + path.suffix) if output is None else Path(output)
    return write_set(output, plan, rows)


def _check_counts(n: int, n_val: int | None, n_test: int | None, jobs: int | None) -> dict[str, int]:
    """Number of signals of each split, in the order of `SPLITS`."""
    given = {"n": n, "n_val": n_val, "n_test": n_test, "jobs": jobs}
    for name, value in given.items():
        if value is None and name != "n":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InputError(f"{name} is {shown(value)}; expected a whole number, 1 or above")
        if value > MOST_SIGNALS:
            raise InputError(f"{name} is {shown(value)}, but at most {MOST_SIGNALS} is allowed")
    default = min(max(-(-int(n) // 8), 16), 2048)
    return {"val": int(n_val or default), "test": int(n_test or default), "train": int(n)}


def _parts(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _read_plan(parts: Path) -> dict | None:
    try:
        text = (parts / "plan.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {parts / 'plan.json'} ({one_line(error)}); use --force to start over") from None
    try:
        return parse_plan(text, parts / "plan.json")
    except InputError as error:
        raise InputError(f"{error}; use --force to start over") from None


def _campaign(
    path: Path,
    counts: dict[str, int],
    simulator: str,
    design: str,
    seed: int,
    progress: bool,
    force: bool,
    pool: Any,
    workers: int,
) -> SimulatedSet:
    model = load(simulator)
    plan = {
        "simulator": simulator,
        "simulator_name": model.name,
        "simulator_version": str(model.version),
        "design": design,
        "seed": seed,
        "parameters": [asdict(p) for p in model.parameters],
        "redshifts": [float(z) for z in model.redshifts],
        "counts": counts,
    }
    axes = getattr(model, "axes", None) or {}
    if axes:
        plan["axes"] = {n: {a: [float(v) for v in values] for a, values in g.items()} for n, g in axes.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = _parts(path)
    parts.mkdir(exist_ok=True)
    with locked(parts / "lock", f"{path} is being simulated by another process; wait for it or stop it"):
        try:
            return _locked_campaign(path, parts, plan, progress, force, pool, workers)
        finally:
            # Without a plan nothing has been simulated, so leave no empty folder behind after an error.
            if parts.exists() and not (parts / "plan.json").exists():
                shutil.rmtree(parts)


def _locked_campaign(
    path: Path, parts: Path, plan: dict, progress: bool, force: bool, pool: Any, workers: int
) -> SimulatedSet:
    for leftover in path.parent.glob(f".{path.name}.*.part"):
        leftover.unlink()
    if force:
        for old in [parts / "plan.json", *parts.glob("*.npz"), path]:
            old.unlink(missing_ok=True)
    begun = _read_plan(parts)
    if begun is not None:
        compare_plans(plan, begun, path)
    finished = read_plan_of(path)
    if finished is not None:
        compare_plans(plan, finished, path)
        if finished["counts"] == plan["counts"]:
            log.info("%s has already finished", path)
            shutil.rmtree(parts)
            return summary(path)
    write_text(parts / "plan.json", json.dumps(plan))

    rows = Rows(plan)
    read_finished(rows, path, plan)
    rows.read_shards(parts)
    if rows.n_missing < rows.n_total:
        log.info("%s: %d of %d rows already exist", path, rows.n_total - rows.n_missing, rows.n_total)
    _simulate(rows, parts, plan["simulator"], progress, pool, workers)

    n_failed = sum(len(messages) for messages in rows.messages.values())
    if n_failed:
        first = next(text for messages in rows.messages.values() for text in messages.values())
        if not np.any(rows.state["train"] == 1):
            raise SimulationError(
                f"every training simulation failed; first failure: {one_line(first)}; correct the simulator and repeat "
                "with --force"
            )
        log.warning(
            "%d of %d simulations failed (see the group 'failed' in %s); first failure: %s",
            n_failed,
            rows.n_total,
            path,
            one_line(first),
        )
    made = write_set(path, plan, rows)
    shutil.rmtree(parts)
    return made


def _simulate(rows: Rows, parts: Path, simulator: str, progress: bool, pool: Any, workers: int) -> None:
    """Simulate the missing rows, saving finished ones in shards."""
    from tqdm import tqdm

    todo = rows.missing()
    shard = max((int(p.stem) for p in parts.glob("*.npz")), default=-1) + 1
    pending = []
    last = time.monotonic()

    def flush() -> None:
        nonlocal shard, last
        if pending:
            write_shard(parts / f"{shard:06d}.npz", pending, rows)
            shard += 1
            pending.clear()
        last = time.monotonic()

    bar = tqdm(total=rows.n_total, initial=rows.n_total - len(todo), unit="signal", disable=not progress)
    try:
        with bar:
            for task, outcomes in outcomes_of(todo, rows, simulator, pool, workers):
                for (split, row), outcome in zip(task, outcomes):
                    rows.put(split, row, outcome)
                pending.extend(task)
                bar.update(len(task))
                if time.monotonic() - last > _FLUSH_SECONDS:
                    flush()
    finally:
        flush()
