"""Calibration over many mocks: whether the posterior is correct on average, and the effect of the emulator.

Parameters are drawn from the prior, the simulator computes the signal, the noise of the run file is added, and each
mock is fitted as specified in the run file. If prior, likelihood, emulator and sampler are correct, the cumulative
posterior probability at the true value is uniform (simulation-based calibration: Cook, Gelman & Rubin 2006, J. Comput.
Graph. Stat. 15, 675; Talts et al. 2018, arXiv:1804.06788). A single noise realisation cannot distinguish a bias from
chance; many can.

A folder contains one calibration: ``plan.json``, ``run.yaml``, ``channels.csv``, a file for each finished mock in
``mocks``, and run folders of unfinished mocks in ``work``, from which an interrupted calibration resumes.
"""

import contextlib
import functools
import json
import shutil
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
from lstmfit.files import locked, write_text
from lstmfit.many_fits import finish, fit_workers
from lstmfit.problem import build
from lstmfit.run_folder import data_files, load_problem
from lstmfit.sampling.polychord.libraries import check_one_fit_per_rank
from lstmfit.sampling.samplers import make_sampler
from lstmfit.signal_functions import AnalyticSignal
from lstmfit.simulators import SimulationError, load_once, recorded_simulator
from lstmfit.spectra import find_uses

BEGUN = {"lock", "mocks", "run.yaml"}
"""Files that may exist, besides those of the channels, if a calibration was killed before its plan was written."""
MOST_DRAWS = 1000
"""Maximum number of prior draws to find one whose computed parameters are in range."""


def calibrate(
    source,
    output,
    n: int = 100,
    *,
    truth: str | None = None,
    points: int = 200,
    jobs: int | None = None,
    seed: int = 0,
    progress=None,
):
    """Fit `n` mocks drawn from the prior; repeat the call to resume after an interruption, or with a larger n.

    The mocks are distributed one at a time to the ranks under mpirun, otherwise to processes on this machine.

    Parameters
    ----------
    source : path, str or mapping
        A run file. Its mock or data give the channels, its noise block the noise, its sampler block the settings of
        the fits, its other likelihoods the redshifts, bins and errors of further data.
    output : path
        Folder of the calibration.
    n : int
        Number of mocks.
    truth : str, optional
        Simulator of the mocks, or an emulator in its place; by default the one that the emulator was trained on.
    points : int
        Number of posterior points of each fit at which the emulation bias is measured; 0 to skip this.
    jobs : int, optional
        Number of processes; all cores by default. Ignored under MPI.
    seed : int
        Seed; mock i depends only on the seed and on i.
    progress : callable, optional
        Called with (finished, n).

    Returns
    -------
    dict or None
        See `lstmfit.analysis.coverage.summarise`; None on MPI ranks other than the first.

    Raises
    ------
    InputError
        A likelihood cannot draw mocks, there is no simulator, or the folder is in use or contains a different
        calibration.
    SimulationError
        A worker process died.
    """
    if isinstance(n, bool) or n < 1:
        raise InputError(f"n is {n}, but at least one mock is needed; about 100 are needed to detect 0.3 sigma shifts")
    if points and points < 25:
        raise InputError(f"points is {points}; give at least 25 to judge the weights, or 0 to skip the bias")
    folder = Path(output)
    with fit_workers(folder, jobs) as pool:
        if pool is None:
            return None
        plan, problem = _plan(source, folder, truth, seed, points)
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"another calibration is active in {folder}; wait for it or choose another folder with -o"
        with locked(folder / "lock", busy):
            _begin(folder, plan, problem)
            for work in folder.glob("work/*"):
                # Left if the calibration was killed after the result was written.
                if work.name.isdigit() and _mock_file(folder, int(work.name)).is_file():
                    shutil.rmtree(work)
            todo = [i for i in range(n) if not _mock_file(folder, i).is_file()]
            finish(pool, functools.partial(_fit_mock, str(folder), seed, points), todo, n, progress)
            return summarise(folder, n)


def _channel_files(data) -> dict[str, str]:
    """Files with the channels of the spectra, by the names of the spectra."""
    return {name: "channels.csv" if len(data) == 1 else f"channels_{name}.csv" for name in data}


def _mock_file(folder, i) -> Path:
    return Path(folder) / "mocks" / f"{i:05d}.json"


def _plan(source, folder: Path, truth: str | None, seed: int, points: int):
    """Plan of the calibration and its problem; all checks are made here, before anything is written."""
    config = run_file.load(source)
    problem = build(config)
    _check_drawable(problem)
    check_one_fit_per_rank(config.sampler.name, "calibrate")
    resolved = resolve(config, problem)
    make_sampler(resolved).check(problem)
    content = resolved.model_dump(by_alias=True, exclude_none=True)
    content["resolved"].pop("created")
    simulator = truth or _simulator(problem)
    plan = json.loads(json.dumps({"run": content, "seed": seed, "points": points, "simulator": simulator}))
    load_once(plan["simulator"])
    there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if "plan.json" not in there and there - BEGUN - set(_channel_files(config.data).values()):
        raise InputError(
            f"{folder} contains files that do not belong to a calibration; choose another folder with -o"
        )
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
                f"{folder} contains a different calibration (differs in {', '.join(different)}); choose another folder "
                "with -o"
            )
    else:
        (folder / "mocks").mkdir(exist_ok=True)
        run_file.dump(run_file.validate(plan["run"], "resolved run"), folder / "run.yaml")
        for name, channels in _channel_files(problem.data).items():
            problem.data[name].write(folder / channels)
        # Last, because a folder with a plan is assumed to be complete.
        write_text(file, json.dumps(plan))


def _check_drawable(problem):
    """Check that mock data can be drawn for all likelihoods."""
    spectra = [likelihood.spectrum for likelihood in problem.spectra.values()]
    for name, likelihood in problem.spectra.items():
        if sum(likelihood.spectrum is other for other in spectra) > 1:
            raise InputError(
                f"likelihood.{name}: mock data cannot be drawn for a spectrum that several likelihoods use; keep one "
                "of them"
            )
    for name, likelihood in problem.likelihoods.items():
        if not hasattr(likelihood, "mocked"):
            raise InputError(
                f"likelihood.{name} cannot draw mock data, because it has no method mocked; remove it from the run "
                "file, or add the method (docs/likelihoods.md)"
            )
        points = getattr(likelihood, "points", ())
        limits = [p for p in points if p.kind != "measurement"]
        if limits:
            rest = ", ".join(p.name for p in points if p.kind == "measurement")
            remedy = f"keep only the measurements: points: [{rest}]" if rest else "remove the likelihood"
            raise InputError(
                f"likelihood.{name}: mock data cannot be drawn for limits ({', '.join(p.name for p in limits)}); "
                f"{remedy}"
            )


def _simulator(problem) -> str:
    emulator = problem.signal.emulator
    if isinstance(problem.signal, AnalyticSignal):
        name = problem.signal.name.removeprefix("signal: ")
        raise InputError(f"calibrate does not support signal: {name}; give an emulator or a simulator")
    if emulator is None:
        return problem.signal.name
    return recorded_simulator(emulator, "name the simulator of the mocks with --truth")


def _fit_mock(folder: str, seed: int, points: int, i: int) -> int:
    """Create, fit and judge one mock; runs in any process."""
    folder = Path(folder)
    plan = json.loads((folder / "plan.json").read_text())
    config = run_file.load(folder / "run.yaml")
    rng = np.random.default_rng([seed, i])
    files = _channel_files(config.data)
    template = build(config, {name: read_written_spectrum(folder / file) for name, file in files.items()})
    theta = _draw_theta(template, rng)
    try:
        spectra, options = draw_mock(template, load_once(plan["simulator"]), theta, rng)
    except SimulationError as error:
        write_text(_mock_file(folder, i), json.dumps({"failed": str(error), "theta": theta.tolist()}))
        return i
    # A separate run folder, as written by `lstmfit fit`.
    work = folder / "work" / f"{i:05d}"
    work.mkdir(parents=True, exist_ok=True)
    uses, files = find_uses(config), data_files(config)
    for name, spectrum in spectra.items():
        spectrum.write(work / files[uses[name].data])
    changes = {
        "data": {name: run_file.Data(file=str((work / file).resolve())) for name, file in files.items()},
        "likelihood": config.likelihood | options,
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
    """Draw sampled parameters (n,) from the prior, such that the computed ones are in range."""
    for _ in range(MOST_DRAWS):
        theta = problem.prior.sample(1, rng)[0]
        if problem.space.fill(theta) is not None:
            return theta
    raise InputError(
        f"none of {MOST_DRAWS} prior draws has its computed parameters within the range of the emulator; narrow the "
        "priors"
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
