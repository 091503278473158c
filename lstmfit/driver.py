"""The main job: run file in, posterior out."""

import contextlib
import functools
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import time
from pathlib import Path

from lstmfit import config as run_file
from lstmfit._version import __version__
from lstmfit.config import RunConfig
from lstmfit.datasets.spectrum import read_written_spectrum
from lstmfit.errors import InputError
from lstmfit.files import locked, writing_into
from lstmfit.problem import Problem, build
from lstmfit.sampling import mpi
from lstmfit.sampling.result import Result
from lstmfit.sampling.samplers import ROOT, Sampler, make_sampler, resolve_settings

log = logging.getLogger(__name__)

MADE = ("run.yaml", "data.csv", "summary.json", "corner.png", "signal.png", "report.html", "parts", "clusters")
"""What a fit puts into its folder besides the chain files; --force removes these and nothing else."""
PACKAGES = ("numpy", "scipy", "numba", "anesthetic", "h5py", "echo21", "mpi4py", "nautilus-sampler", "blackjax", "jax")


def fit(source, output=None, *, jobs=None, resume=False, force=False, progress=None) -> Path:
    """Fit a run file.

    Under mpirun every rank calls this; otherwise processes of this machine share the work.

    Parameters
    ----------
    source : path, str or mapping
        See `lstmfit.config.load`.
    output : path, optional
        Output folder; the run file's ``output`` by default, else ``chains/NAME``.
    jobs : int, optional
        Processes: serial PolyChord runs side by side that are merged afterwards, or nautilus' workers; all cores by
        default. Without meaning under mpirun.
    resume, force : bool
        Go on with an unfinished run of the same run file; or remove the run that is there.
    progress : callable, optional
        Called with `lstmfit.sampling.result.Progress` on the first rank.

    Returns
    -------
    pathlib.Path
        The output folder.

    Raises
    ------
    InputError
        Anything wrong with the run file, its data, or the folder; nothing is written then.
    """
    comm = mpi.world()
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}, but a whole number of at least 1 is needed")
    config = run_file.load(source)
    folder = _output(config, source, output)
    mend = "and run the same with --resume: what was finished is kept"
    lock = _locked(folder) if comm is None or comm.Get_rank() == 0 else contextlib.nullcontext()
    with lock, writing_into(folder, mend):
        finished = mpi.on_root(comm, functools.partial(_prepare, config, folder, comm, resume, force))
        if finished:
            log.info("%s is finished already", folder)
            return folder
        make_problem = functools.partial(load_problem, str(folder))
        sampler = make_sampler(run_file.load(folder / "run.yaml"))
        result = sampler.run(make_problem, folder, comm=comm, jobs=jobs, resume=resume, progress=progress)
        mpi.on_root(comm, functools.partial(_finish, folder, sampler, result))
    return folder


def load_problem(folder) -> Problem:
    """Build the problem of an output folder from its resolved run file and its data.

    Raises
    ------
    InputError
        The folder holds no run or not its data, or the emulator is no longer the one of the run.
    """
    folder = Path(folder)
    if not (folder / "run.yaml").is_file():
        raise InputError(f"{folder} holds no run (no run.yaml); give the output folder of `lstmfit fit`")
    config = run_file.load(folder / "run.yaml")
    try:
        spectrum = read_written_spectrum(folder / "data.csv")
    except (FileNotFoundError, KeyError, ValueError) as error:
        what = "has no data.csv" if isinstance(error, FileNotFoundError) else f"has a damaged data.csv ({error})"
        raise InputError(f"{folder} {what}, the spectrum that was fitted; repeat the fit with --force") from None
    problem = build(config, spectrum)
    expected = (config.resolved or {}).get("signal_checksum")
    if expected is not None and expected != problem.signal.checksum:
        raise InputError(
            f"{folder}: {problem.signal.name} is no longer the emulator of this run "
            f"({problem.signal.checksum[:12]}, then {expected[:12]}); repeat the fit with --force"
        )
    return problem


def _output(config, source, output) -> Path:
    if output is not None:
        return Path(output).expanduser()
    if config.output is not None:
        return Path(config.output).expanduser()
    name = "run" if isinstance(source, dict) else Path(source).stem
    return Path("chains") / name


@contextlib.contextmanager
def _locked(folder):
    """Hold the folder, so that a second run in it is refused; the lock goes with the process, however it ends."""
    target = folder
    made = []
    while not target.exists():
        made.append(target)
        target = target.parent
    stack = contextlib.ExitStack()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = f"another run is at work in {folder}; wait for it or choose another with -o"
        stack.enter_context(locked(folder, held))
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}; choose another folder with -o") from None
    try:
        with stack:
            if not os.access(folder, os.W_OK):
                raise InputError(f"cannot write into {folder}: no permission; choose another folder with -o")
            yield
    finally:
        # Bad input leaves nothing behind, not even an empty folder.
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _prepare(config: RunConfig, folder: Path, comm, resume: bool, force: bool) -> bool:
    """Check everything, then write the resolved run file and the data. True where there is nothing left to do."""
    if resume and force:
        raise InputError("--resume and --force exclude each other; give one")
    there = _state(folder)
    if there == "empty" or force:
        problem = build(config)
        resolved = resolve(config, problem, folder)
        make_sampler(resolved).check(problem, comm)
        if force:
            _clear(folder)
        problem.spectrum.write(folder / "data.csv")
        run_file.dump(resolved, folder / "run.yaml")
        return False
    if there == "foreign":
        raise InputError(f"{folder} holds files that are not of a run; choose another folder with -o, or --force")
    if not resume:
        remedy = "use --force to replace it" if there == "finished" else "use --resume to go on, --force to start anew"
        raise InputError(f"{folder} holds {'a finished' if there == 'finished' else 'an unfinished'} run; {remedy}")
    old = run_file.load(folder / "run.yaml")
    new = resolve(config, build(config, read_written_spectrum(folder / "data.csv")), folder)
    keys = [key for key in RunConfig.model_fields if key not in ("resolved", "output")]
    different = [key for key in keys if getattr(old, key) != getattr(new, key)]
    if different:
        raise InputError(
            f"{folder} holds a run with other {', '.join(different)}; resume it with its own run file, or use --force"
        )
    return there == "finished"


def _state(folder) -> str:
    if not folder.is_dir() or not any(folder.iterdir()):
        return "empty"
    if not (folder / "run.yaml").is_file():
        return "foreign"
    return "finished" if (folder / "summary.json").is_file() else "unfinished"


def _clear(folder):
    for path in folder.iterdir():
        if path.name in MADE or path.name.startswith((f"{ROOT}.", f"{ROOT}_", f".{ROOT}")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def resolve(config: RunConfig, problem: Problem, folder) -> RunConfig:
    """The run file with every default in it, and what it was run with."""
    versions = {"lstmfit": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    content = config.model_dump(by_alias=True, exclude_none=True)
    content.pop("priors", None)
    content["likelihood"] = content["likelihood"] | problem.options
    content |= {
        "params": problem.space.blocks(),
        "sampler": {config.sampler.name: resolve_settings(config, len(problem.names))},
        "output": str(folder),
        "resolved": {
            "signal": problem.signal.name,
            "signal_checksum": problem.signal.checksum,
            "versions": versions,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }
    if problem.truth:
        content["resolved"]["truth"] = problem.truth
    return run_file.validate(content, "resolved run")


def _finish(folder: Path, sampler: Sampler, result: Result):
    """Read the chains back, write the summary and the pictures."""
    from lstmfit.analysis import plots
    from lstmfit.analysis.chains import read_run, summarise
    from lstmfit.files import write_text

    run = read_run(folder, load_problem(folder))
    facts = {
        "n_like": result.n_like,
        "n_live": sampler.settings.n_live,
        "wall_s": round(result.wall_s, 3),
        "ranks": result.ranks,
        "sampler": f"{sampler.label} {result.version}",
        "n_nan": result.n_nan,
        "prior_fraction": result.prior_fraction,
    }
    summary = summarise(run, facts)
    plots.corner(run, folder / "corner.png")
    plots.signal(run, folder / "signal.png")
    # Last, since a folder with a summary counts as finished.
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
