"""Simulate training, validation and test sets: parallel, and nothing lost when it is killed.

While a campaign runs, finished rows lie in shards: small files in the folder `SET.h5.parts`, each written beside
and renamed, so that a shard exists whole or not at all. At the end they become one HDF5 file, again by renaming.
A row's parameters depend on the seed and its number alone, so where and when it is computed changes nothing.
"""

import contextlib
import fcntl
import json
import logging
import multiprocessing
import os
import platform
import shutil
import threading
import time
import zipfile
from concurrent import futures
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lstmfit._version import __version__
from lstmfit.errors import InputError, did_you_mean
from lstmfit.files import replacing, write_text
from lstmfit.parameters import Parameter
from lstmfit.simulators import _mpi, load
from lstmfit.simulators.design import DESIGNS, draw
from lstmfit.simulators.protocol import SimulationError

log = logging.getLogger(__name__)

SPLITS = ("val", "test", "train")
"""In the order in which they are simulated, so that whatever is finished can already train and judge."""

_FLUSH_SECONDS = 20.0
_TASK_SECONDS = 0.5
_TASK_ROWS = 64
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class SimulatedSet:
    """What a campaign has made.

    Parameters
    ----------
    path : pathlib.Path
        The HDF5 file.
    n_train, n_val, n_test : int
        Signals in each split.
    n_failed : int
        Simulations that failed; they are in the file's group `failed`.
    complete : bool
        Whether every row that was asked for has been tried.
    """

    path: Path
    n_train: int
    n_val: int
    n_test: int
    n_failed: int
    complete: bool


def simulate_set(
    path,
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
    """Simulate a set of signals, or go on with one that was interrupted, or make a finished one larger.

    Started by an MPI launcher it uses the ranks, else processes on this machine. The result does not depend on
    how many there are. In a script of your own, call it under `if __name__ == "__main__":`, because each process
    imports the script.

    Parameters
    ----------
    path : str or pathlib.Path
        The HDF5 file to make. It appears when all is done; until then `collect(path, partial=True)` gives what
        there is.
    n : int
        Training signals.
    simulator : str
        A name for `lstmfit.simulators.load`, also `package.module:attribute`.
    design : str
        "sobol" or "uniform", for the training parameters. The other two splits are always drawn from the prior.
    seed : int
        Seed of all three splits, which are independent of each other.
    n_val, n_test : int, optional
        Validation and test signals; an eighth of `n` each, at least 16 and at most 2048, if not given.
    jobs : int, optional
        Processes; as many as this process may use cores if not given. Without meaning under MPI.
    progress : bool
        Show a progress bar on stderr.
    force : bool
        Replace whatever is at `path`.

    Returns
    -------
    SimulatedSet or None
        What was made; None on MPI ranks other than the first.

    Raises
    ------
    InputError
        A setting is wrong, or what is at `path` was made with other settings.
    SimulationError
        Every training simulation failed, or a worker process died.
    """
    counts = _check_counts(n, n_val, n_test, jobs)
    if design not in DESIGNS:
        raise InputError(f"unknown design {design!r}; {did_you_mean(design, DESIGNS)}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r}; expected a whole number, 0 or above")
    path = Path(path)

    if _mpi.launched():
        from mpi4py import MPI

        if MPI.COMM_WORLD.size > 1:
            from mpi4py.futures import MPICommExecutor

            with _single_threads(), MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
                if pool is None:
                    return None
                workers = MPI.COMM_WORLD.size - 1
                return _campaign(path, counts, simulator, design, int(seed), progress, force, pool, workers)

    jobs = min(jobs or len(os.sched_getaffinity(0)), sum(counts.values()))
    if jobs == 1:
        return _campaign(path, counts, simulator, design, int(seed), progress, force, None, 1)
    context = multiprocessing.get_context("spawn")
    with (
        _single_threads(),
        futures.ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool,
    ):
        try:
            return _campaign(path, counts, simulator, design, int(seed), progress, force, pool, jobs)
        except futures.process.BrokenProcessPool as error:
            raise SimulationError(
                "a worker process died (out of memory, or killed); what was finished is kept: run the same again"
            ) from error


def collect(path, output=None, *, partial: bool = False) -> SimulatedSet:
    """Merge the finished rows of a campaign into one HDF5 file.

    Parameters
    ----------
    path : str or pathlib.Path
        The `path` that was given to `simulate_set`, which may still be running.
    output : str or pathlib.Path, optional
        Where to write; `SET.partial.h5` beside `SET.h5` if not given.
    partial : bool
        Accept a campaign that is not finished.

    Returns
    -------
    SimulatedSet
        What the new file holds.

    Raises
    ------
    InputError
        There is no campaign at `path`, or it is not finished and `partial` is False.
    """
    path = Path(path)
    parts = _parts(path)
    plan = _read_plan(parts)
    if plan is None:
        where = f"{path} is finished already" if path.exists() else f"nothing is being simulated at {path}"
        raise InputError(f"{where}: there is no {parts.name} beside it to collect from")
    rows = _Rows(plan)
    rows.read_finished(path, plan)
    rows.read_shards(parts)
    if rows.n_missing and not partial:
        raise InputError(
            f"{path}: {rows.n_missing} of {rows.n_total} rows are not simulated yet; run simulate again to go on, "
            "or ask for a partial set"
        )
    output = path.with_suffix(".partial" + path.suffix) if output is None else Path(output)
    return _write(output, plan, rows)


def _check_counts(n, n_val, n_test, jobs) -> dict[str, int]:
    """Numbers of signals by split, in the order of `SPLITS`."""
    given = {"n": n, "n_val": n_val, "n_test": n_test, "jobs": jobs}
    for name, value in given.items():
        if value is None and name != "n":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InputError(f"{name} is {value!r}; expected a whole number, 1 or above")
    default = min(max(-(-int(n) // 8), 16), 2048)
    return {"val": int(n_val or default), "test": int(n_test or default), "train": int(n)}


@contextlib.contextmanager
def _single_threads():
    """Let the processes started meanwhile use one thread each: there is one process for each core."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _parts(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _read_plan(parts: Path) -> dict | None:
    try:
        return json.loads((parts / "plan.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _read_attributes(path: Path) -> dict | None:
    """The plan that a finished set was made by; None where there is no file."""
    import h5py

    if not path.exists():
        return None
    try:
        with h5py.File(path) as file:
            return json.loads(file.attrs["plan"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} exists and is not a set made by lstmfit simulate; choose another name, or force to replace it"
        ) from error


def _compare(wanted: dict, found: dict, path: Path) -> None:
    """Raise if a campaign was begun with other settings; the numbers of signals may have grown."""
    differing = [k for k in wanted if k != "counts" and wanted[k] != found.get(k)]
    if differing:
        shown = "; ".join(
            f"{k} {found.get(k)!r} there, {wanted[k]!r} asked for" if k not in ("parameters", "redshifts") else k
            for k in differing
        )
        raise InputError(
            f"{path} was begun with other settings ({shown}); use the same ones to go on, choose another name, "
            "or force to start over"
        )
    fewer = [s for s in SPLITS if wanted["counts"][s] < found["counts"][s]]
    if fewer:
        shown = ", ".join(f"{wanted['counts'][s]} < {found['counts'][s]} for {s}" for s in fewer)
        raise InputError(
            f"{path} was begun with more signals ({shown}); a set can grow but not shrink: ask for as many or more, "
            "choose another name, or force to start over"
        )


class _Rows:
    """Finished rows in memory, by split: parameters, results, and what is still missing."""

    def __init__(self, plan):
        parameters = [Parameter(**p) for p in plan["parameters"]]
        seeds = dict(zip(("train", "val", "test"), np.random.SeedSequence(plan["seed"]).spawn(3)))
        channels = len(plan["redshifts"])
        self.theta, self.state, self.signal, self.x_HI, self.tau = {}, {}, {}, {}, {}
        self.messages = {split: {} for split in SPLITS}
        for split in SPLITS:
            n = plan["counts"][split]
            kind = plan["design"] if split == "train" else "uniform"
            self.theta[split] = draw(kind, n, parameters, np.random.default_rng(seeds[split]))
            # 0 missing, 1 done, 2 failed.
            self.state[split] = np.zeros(n, dtype=np.uint8)
            self.signal[split] = np.zeros((n, channels), dtype=np.float32)
            self.x_HI[split] = np.zeros((n, channels), dtype=np.float32)
            self.tau[split] = np.zeros(n)

    @property
    def n_total(self) -> int:
        return sum(state.size for state in self.state.values())

    @property
    def n_missing(self) -> int:
        return sum(int(np.count_nonzero(state == 0)) for state in self.state.values())

    def missing(self) -> list[tuple[str, int]]:
        """Split and number of each row to simulate, in order."""
        return [(split, int(row)) for split in SPLITS for row in np.flatnonzero(self.state[split] == 0)]

    def put(self, split, row, outcome) -> None:
        """Take one row's outcome: (signal, x_HI, tau), or the message of a failure."""
        if isinstance(outcome, str):
            self.state[split][row] = 2
            self.messages[split][row] = outcome
        else:
            self.signal[split][row], self.x_HI[split][row], self.tau[split][row] = outcome
            self.state[split][row] = 1

    def read_shards(self, parts: Path) -> None:
        """Take the rows of all shards in a folder; a shard that cannot be read is simulated again."""
        for shard in sorted(parts.glob("*.npz")):
            try:
                with np.load(shard, allow_pickle=False) as data:
                    content = {name: data[name] for name in data.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                log.warning("%s is damaged and its rows are simulated again (%s)", shard, error)
                continue
            for i, (split, row) in enumerate(zip(content["split"], content["row"])):
                if row < self.state[str(split)].size:
                    message = str(content["message"][i])
                    results = (content["signal"][i], content["x_HI"][i], content["tau"][i])
                    self.put(str(split), int(row), message or results)

    def read_finished(self, path: Path, plan: dict) -> None:
        """Take the rows of the finished set at `path`, if there is one, for a larger set."""
        import h5py

        if _read_attributes(path) is None:
            return
        with h5py.File(path) as file:
            _compare(plan, json.loads(file.attrs["plan"]), path)
            for split in SPLITS:
                rows = file[f"row_{split}"][:]
                if rows.size and not np.array_equal(file[f"par_{split}"][:], self.theta[split][rows]):
                    raise InputError(
                        f"{path}: its parameters are not the ones that seed and design give here (another version "
                        "of NumPy or SciPy?), so it cannot grow; choose another name"
                    )
                self.signal[split][rows] = file[f"signal_{split}"][:]
                self.x_HI[split][rows] = file[f"x_HI_{split}"][:]
                self.tau[split][rows] = file[f"tau_{split}"][:]
                self.state[split][rows] = 1
            failed = file["failed"]
            for split, row, message in zip(failed["split"].asstr(), failed["row"], failed["message"].asstr()):
                self.put(split, int(row), message)


def _campaign(path, counts, simulator, design, seed, progress, force, pool, workers) -> SimulatedSet:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = _parts(path)
    parts.mkdir(exist_ok=True)
    with (parts / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path} is being simulated by another process; wait for it, or end it") from None
        try:
            return _locked_campaign(path, parts, plan, progress, force, pool, workers)
        finally:
            # Nothing has been simulated yet where there is no plan: leave no trace of a refusal.
            if parts.exists() and not (parts / "plan.json").exists():
                shutil.rmtree(parts)


def _locked_campaign(path, parts, plan, progress, force, pool, workers) -> SimulatedSet:
    for leftover in path.parent.glob(f".{path.name}.*.part"):
        leftover.unlink()
    if force:
        for old in [parts / "plan.json", *parts.glob("*.npz"), path]:
            old.unlink(missing_ok=True)
    begun = _read_plan(parts)
    if begun is not None:
        _compare(plan, begun, path)
    finished = _read_attributes(path)
    if finished is not None:
        _compare(plan, finished, path)
        if finished["counts"] == plan["counts"]:
            log.info("%s is finished already", path)
            shutil.rmtree(parts)
            return _summary(path)
    write_text(parts / "plan.json", json.dumps(plan))

    rows = _Rows(plan)
    rows.read_finished(path, plan)
    rows.read_shards(parts)
    if rows.n_missing < rows.n_total:
        log.info("%s: %d of %d rows are there already", path, rows.n_total - rows.n_missing, rows.n_total)
    _simulate(rows, parts, plan["simulator"], progress, pool, workers)

    n_failed = sum(len(messages) for messages in rows.messages.values())
    if n_failed:
        first = next(text for messages in rows.messages.values() for text in messages.values())
        if not np.any(rows.state["train"] == 1):
            raise SimulationError(f"every training simulation failed; the first failure of all: {first}")
        log.warning(
            "%d of %d simulations failed and are in the group 'failed' of %s; the first: %s",
            n_failed,
            rows.n_total,
            path,
            first,
        )
    made = _write(path, plan, rows)
    shutil.rmtree(parts)
    return made


def _simulate(rows: _Rows, parts: Path, simulator: str, progress: bool, pool, workers: int) -> None:
    """Simulate what is missing, and keep it in shards on the way."""
    from tqdm import tqdm

    todo = rows.missing()
    shard = max((int(p.stem) for p in parts.glob("*.npz")), default=-1) + 1
    pending = []
    last = time.monotonic()

    def flush():
        nonlocal shard, last
        if pending:
            _write_shard(parts / f"{shard:06d}.npz", pending, rows)
            shard += 1
            pending.clear()
        last = time.monotonic()

    bar = tqdm(total=rows.n_total, initial=rows.n_total - len(todo), unit="signal", disable=not progress)
    try:
        with bar:
            for task, outcomes in _outcomes(todo, rows, simulator, pool, workers):
                for (split, row), outcome in zip(task, outcomes):
                    rows.put(split, row, outcome)
                pending.extend(task)
                bar.update(len(task))
                if time.monotonic() - last > _FLUSH_SECONDS:
                    flush()
    finally:
        flush()


def _outcomes(todo, rows, simulator, pool, workers):
    """Yield (rows of a task, their outcomes) as they are finished; tasks take about half a second each."""
    start = 0
    size = 1

    def next_task():
        nonlocal start
        task = todo[start : start + size]
        start += len(task)
        return task, np.array([rows.theta[split][row] for split, row in task])

    if pool is None:
        while start < len(todo):
            task, theta = next_task()
            outcomes, seconds = _run(simulator, theta)
            size = _better_size(size, seconds / len(task))
            yield task, outcomes
        return

    running = {}
    try:
        while start < len(todo) or running:
            while start < len(todo) and len(running) < 2 * workers:
                task, theta = next_task()
                running[pool.submit(_run, simulator, theta)] = task
            done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                outcomes, seconds = future.result()
                size = _better_size(size, seconds / len(task))
                yield task, outcomes
    finally:
        for future in running:
            future.cancel()


def _better_size(size: int, seconds_per_row: float) -> int:
    """Rows of the next task: no more than double, since the first rows of a process include compilation."""
    return int(np.clip(_TASK_SECONDS / max(seconds_per_row, 1e-9), 1, min(2 * size, _TASK_ROWS)))


def _end_with_parent() -> None:
    """Watch for the parent's end: after kill -9 a worker would otherwise wait for tasks for ever."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_loaded = {}


def _run(simulator: str, thetas: np.ndarray):
    """Simulate a few rows, in whatever process; a failure is an outcome too."""
    started = time.perf_counter()
    if simulator not in _loaded:
        _loaded[simulator] = load(simulator)
    model = _loaded[simulator]
    outcomes = []
    for theta in thetas:
        try:
            history = model(theta.copy())
            signal = np.asarray(history.signal, dtype=np.float32)
            x_HI = np.asarray(history.x_HI, dtype=np.float32)
            tau = float(history.tau)
            shape = np.shape(model.redshifts)
            if signal.shape != shape or x_HI.shape != shape:
                raise SimulationError(f"shapes {signal.shape} and {x_HI.shape} where the redshifts have {shape}")
            if not (np.isfinite(signal).all() and np.isfinite(x_HI).all() and np.isfinite(tau)):
                raise SimulationError("the result is not finite")
            outcomes.append((signal, x_HI, tau))
        except Exception as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    return outcomes, time.perf_counter() - started


def _write_shard(path: Path, which: list[tuple[str, int]], rows: _Rows) -> None:
    content = {
        "split": np.array([split for split, _ in which]),
        "row": np.array([row for _, row in which]),
        "signal": np.array([rows.signal[split][row] for split, row in which]),
        "x_HI": np.array([rows.x_HI[split][row] for split, row in which]),
        "tau": np.array([rows.tau[split][row] for split, row in which]),
        "message": np.array([rows.messages[split].get(row, "") for split, row in which]),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, plan: dict, rows: _Rows) -> SimulatedSet:
    """Write what is finished as one HDF5 file in the layout of the public 21cmVAE and 21cmLSTM sets."""
    import h5py

    parameters = plan["parameters"]
    text = h5py.string_dtype()
    packed = {"compression": "gzip", "shuffle": True}
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["plan"] = json.dumps(plan)
        file.attrs["parameters"] = np.array([p["name"] for p in parameters], dtype=text)
        file.attrs["units"] = np.array([p["unit"] for p in parameters], dtype=text)
        file.attrs["latex"] = np.array([p["latex"] for p in parameters], dtype=text)
        file.attrs["log"] = np.array([p["log"] for p in parameters])
        file.attrs["min"] = np.array([p["min"] for p in parameters])
        file.attrs["max"] = np.array([p["max"] for p in parameters])
        for name in ("seed", "design", "simulator", "simulator_name", "simulator_version"):
            file.attrs[name] = plan[name]
        file.attrs["lstmfit_version"] = __version__
        file.attrs["numpy_version"] = np.__version__
        file.attrs["python_version"] = platform.python_version()
        file.attrs["complete"] = rows.n_missing == 0
        file.attrs["signal_unit"] = "mK"
        file["redshifts"] = np.array(plan["redshifts"])
        for split in ("train", "val", "test"):
            good = np.flatnonzero(rows.state[split] == 1)
            file[f"par_{split}"] = rows.theta[split][good]
            file.create_dataset(f"signal_{split}", data=rows.signal[split][good], **packed)
            file.create_dataset(f"x_HI_{split}", data=rows.x_HI[split][good], **packed)
            file[f"tau_{split}"] = rows.tau[split][good]
            file[f"row_{split}"] = good
        failed = [(split, row) for split in SPLITS for row in sorted(rows.messages[split])]
        group = file.create_group("failed")
        group.create_dataset("split", data=[split for split, _ in failed], shape=(len(failed),), dtype=text)
        group["row"] = np.array([row for _, row in failed], dtype=np.int64)
        theta = [rows.theta[split][row] for split, row in failed]
        group["theta"] = np.reshape(np.array(theta, dtype=float), (len(failed), len(parameters)))
        messages = [rows.messages[split][row] for split, row in failed]
        group.create_dataset("message", data=messages, shape=(len(failed),), dtype=text)
    return _summary(path)


def _summary(path: Path) -> SimulatedSet:
    import h5py

    with h5py.File(path) as file:
        counts = {f"n_{split}": len(file[f"par_{split}"]) for split in SPLITS}
        return SimulatedSet(path, n_failed=len(file["failed/row"]), complete=bool(file.attrs["complete"]), **counts)
