"""Calibration over many mocks: whether the posterior is right on average, and what the emulator adds.

Parameters are drawn from the prior, the simulator makes the signal, the run file's noise is added, and each mock is
fitted as the run file says. If prior, likelihood, emulator and sampler are right, the posterior's cumulative
probability at the true value is uniform (simulation-based calibration: Cook, Gelman & Rubin 2006, J. Comput. Graph.
Stat. 15, 675; Talts et al. 2018, arXiv:1804.06788). One noise draw cannot tell bias from luck; many can.

A folder holds one campaign: ``plan.json``, ``run.yaml``, ``channels.csv``, a file for each finished mock in ``mocks``,
and the unfinished ones, in the shape of a fit's folder, in ``work``. A campaign that is killed resumes from there.
"""

import contextlib
import functools
import json
import shutil
from concurrent import futures
from pathlib import Path

import numpy as np

from lstmfit import config as run_file
from lstmfit.analysis.bias import measure_bias
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.coverage import judge, summarise
from lstmfit.data import draw_mock
from lstmfit.datasets.spectrum import read_written_spectrum
from lstmfit.driver import resolve
from lstmfit.errors import InputError, one_line
from lstmfit.files import locked, write_text, writing_into
from lstmfit.mpi import under_mpirun
from lstmfit.problem import build
from lstmfit.run_folder import load_problem
from lstmfit.sampling.polychord.libraries import load_library
from lstmfit.sampling.samplers import make_sampler
from lstmfit.signal_functions import FlattenedGaussianSignal
from lstmfit.simulators import SimulationError, load_once, recorded_simulator
from lstmfit.workers import cores, death_as, worker_pool

BEGUN = {"lock", "mocks", "run.yaml", "channels.csv"}
"""What a campaign that was killed before its plan was written may have left."""
MOST_DRAWS = 1000
"""Draws from the prior among which one must be where the prior does not vanish."""


def calibrate(
    source, output, n: int = 100, *, points: int = 200, jobs: int | None = None, seed: int = 0, progress=None
):
    """Fit `n` mocks drawn from the prior; repeat the call to resume after an interruption or to use a larger n.

    Under mpirun the ranks share the mocks, one at a time; otherwise processes of this machine do.

    Parameters
    ----------
    source : path, str or mapping
        A run file; its mock or data give the channels, its noise block the noise, its sampler block the fits, its
        other likelihoods the redshifts, bins and errors of further data.
    output : path
        Folder of the campaign.
    n : int
        Mocks.
    points : int
        Posterior points of each fit at which the emulation bias is measured; 0 leaves it out.
    jobs : int, optional
        Processes; all cores by default. Without meaning under MPI.
    seed : int
        Mock i depends on it and on i alone.
    progress : callable, optional
        Called with (finished, n).

    Returns
    -------
    dict or None
        See `lstmfit.analysis.coverage.summarise`; None on MPI ranks other than the first.

    Raises
    ------
    InputError
        A likelihood that mocks cannot be drawn from, no simulator, or a folder of another campaign or in use.
    SimulationError
        A worker process died.
    """
    if isinstance(n, bool) or n < 1:
        raise InputError(f"n is {n}; at least one mock is needed, and about 100 to see a shift of 0.3 sigma")
    if points and points < 25:
        raise InputError(f"points is {points}; at least 25 are needed to judge the weights, or 0 for no bias")
    folder = Path(output)
    with (
        writing_into(folder, "and run the same again: what was finished is kept"),
        death_as(SimulationError, "a worker process"),
        # Also for one job: PolyChord keeps state in its process.
        worker_pool(jobs or cores()) as (pool, _),
    ):
        if pool is None:
            return None
        plan, problem = _plan(source, folder, seed, points)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock", f"another calibration is at work in {folder}; wait for it or choose another -o"):
            _begin(folder, plan, problem)
            for work in folder.glob("work/*"):
                # Killed after the result was written and before this was removed.
                if work.name.isdigit() and _mock_file(folder, int(work.name)).is_file():
                    shutil.rmtree(work)
            todo = [i for i in range(n) if not _mock_file(folder, i).is_file()]
            done = n - len(todo)
            if done and progress is not None:
                progress(done, n)
            for _ in _results(pool, functools.partial(_fit_mock, str(folder), seed, points), todo):
                done += 1
                if progress is not None:
                    progress(done, n)
            return summarise(folder, n)


def _results(pool, function, todo):
    running = [pool.submit(function, i) for i in todo]
    try:
        for future in futures.as_completed(running):
            yield future.result()
    finally:
        for future in running:
            future.cancel()


def _mock_file(folder, i) -> Path:
    return Path(folder) / "mocks" / f"{i:05d}.json"


def _plan(source, folder: Path, seed: int, points: int):
    """What the campaign is, and its problem; everything wrong with it is found here, before anything is written."""
    config = run_file.load(source)
    problem = build(config)
    _check_drawable(problem)
    pypolychord = config.sampler.name == "polychord" and Path(load_library().path).name == "pypolychord"
    if under_mpirun() and pypolychord:
        # It runs over all ranks of MPI, while here each has a fit of its own: they would wait for each other.
        raise InputError("calibrate over MPI cannot use pypolychord; start it without mpirun (--jobs N)")
    resolved = resolve(config, problem)
    make_sampler(resolved).check(problem)
    content = resolved.model_dump(by_alias=True, exclude_none=True)
    content["resolved"].pop("created")
    plan = json.loads(json.dumps({"run": content, "seed": seed, "points": points, "simulator": _simulator(problem)}))
    load_once(plan["simulator"])
    there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if "plan.json" not in there and there - BEGUN:
        raise InputError(f"{folder} has files that are not of a calibration; choose another folder with -o")
    return plan, problem


def _begin(folder: Path, plan: dict, problem):
    """Write the plan, or compare it with the existing one."""
    file = folder / "plan.json"
    if file.is_file():
        try:
            old = dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{file} is damaged ({one_line(error)}); choose another folder with -o") from None
        different = [key for key in plan if plan[key] != old.get(key)]
        if different:
            raise InputError(
                f"{folder} has a calibration with another {', '.join(different)}; choose another folder with -o"
            )
    else:
        (folder / "mocks").mkdir(exist_ok=True)
        run_file.dump(run_file.validate(plan["run"], "resolved run"), folder / "run.yaml")
        problem.spectrum.write(folder / "channels.csv")
        # Last, since a folder with a plan is taken to hold the others.
        write_text(file, json.dumps(plan))


def _check_drawable(problem):
    """Refuse likelihoods of data that cannot be drawn."""
    for name, likelihood in problem.likelihoods.items():
        if not hasattr(likelihood, "mocked"):
            raise InputError(
                f"likelihood.{name} cannot draw data (it has no method mocked), so there are no mocks of it; take it "
                "out of the run file, or write that method (docs/likelihoods.md)"
            )
        points = getattr(likelihood, "points", ())
        limits = [p for p in points if p.kind != "measurement"]
        if limits:
            rest = ", ".join(p.name for p in points if p.kind == "measurement")
            remedy = f"keep the measurements: points: [{rest}]" if rest else "take the likelihood out"
            raise InputError(
                f"likelihood.{name}: {', '.join(p.name for p in limits)} are limits, and how a limit comes about is "
                f"not known, so no mocks can be drawn; {remedy}"
            )


def _simulator(problem) -> str:
    emulator = problem.signal.emulator
    if isinstance(problem.signal, FlattenedGaussianSignal):
        raise InputError(f"calibrate has no truth for signal: {problem.signal.name}; give an emulator or a simulator")
    if emulator is None:
        return problem.signal.name
    return recorded_simulator(emulator, "calibrate draws its mocks by it: fit an emulator that lstmfit train made")


def _fit_mock(folder: str, seed: int, points: int, i: int) -> int:
    """Make, fit and judge one mock, in whatever process."""
    folder = Path(folder)
    plan = json.loads((folder / "plan.json").read_text())
    config = run_file.load(folder / "run.yaml")
    rng = np.random.default_rng([seed, i])
    template = build(config, read_written_spectrum(folder / "channels.csv"))
    theta = _draw_theta(template, rng)
    try:
        spectrum, options = draw_mock(template, load_once(plan["simulator"]), theta, rng)
    except SimulationError as error:
        write_text(_mock_file(folder, i), json.dumps({"failed": str(error), "theta": theta.tolist()}))
        return i
    # A folder of its own, in the shape that `lstmfit fit` leaves.
    work = folder / "work" / f"{i:05d}"
    work.mkdir(parents=True, exist_ok=True)
    spectrum.write(work / "data.csv")
    likelihood = {"global_signal": config.likelihood.global_signal} | options
    changes = {
        "data": run_file.Data(file=str((work / "data.csv").resolve())),
        "likelihood": run_file.Likelihoods.model_validate(likelihood),
    }
    run_file.dump(config.model_copy(update=changes), work / "run.yaml")
    problem = load_problem(work, trust=True)
    fitted = make_sampler(config, seed=int(rng.integers(2**31))).run_here(problem, work, resume=True)
    run = read_run(work, problem=problem)
    result = judge(run, theta) | {"logZ": fitted.logZ, "logZ_err": fitted.logZ_err, "n_like": fitted.n_like}
    if points and problem.signal.emulator is not None:
        result["emulation"] = _emulation(run, plan["simulator"], points)
    write_text(_mock_file(folder, i), json.dumps(result))
    shutil.rmtree(work)
    with contextlib.suppress(OSError):
        work.parent.rmdir()
    return i


def _draw_theta(problem, rng) -> np.ndarray:
    """Sampled parameters (n,) from the prior, where the computed ones stay within their range."""
    for _ in range(MOST_DRAWS):
        theta = problem.prior.sample(1, rng)[0]
        if problem.space.fill(theta) is not None:
            return theta
    raise InputError(
        f"in none of {MOST_DRAWS} draws from the prior are the computed parameters within the emulator's range; "
        "narrow the priors"
    )


def _emulation(run, simulator, points):
    """Emulation bias of this mock."""
    try:
        result = measure_bias(run, simulator, points, jobs=1)
    except InputError as error:
        return {"failed": str(error)}
    shifts = {name: p["shift"] for name, p in result["parameters"].items()}
    kept = {key: result[key] for key in ("D_KL", "D_KL_err", "dlogZ", "khat", "khat_limit", "ess", "n")}
    return kept | {"shift": shifts, "trusted": result["verdict"]["trusted"]}
