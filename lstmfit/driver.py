"""Fit a run file: from the run file to the posterior."""

import contextlib
import functools
import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmfit import config as run_file
from lstmfit import mpi, resolved_run, run_folder
from lstmfit._version import __version__
from lstmfit.config import RunConfig
from lstmfit.data import read_data
from lstmfit.errors import InputError, one_line
from lstmfit.files import AnyPath, user_path, write_text, writing_into
from lstmfit.likelihoods.base import with_defaults
from lstmfit.problem import Problem, build
from lstmfit.run_folder import load_problem
from lstmfit.sampling.chainfiles import write_weighted
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.samplers import Sampler, make_sampler
from lstmfit.sampling.state import ROOT, make_request, read_state, write_paramnames, write_state
from lstmfit.workers import check_jobs

if TYPE_CHECKING:
    from lstmfit.analysis.chains import Run

log = logging.getLogger(__name__)

PICTURES = ("corner", "signal")
PACKAGES = ("numpy", "scipy", "numba", "anesthetic", "h5py", "echo21", "mpi4py", "nautilus-sampler", "blackjax", "jax")


def fit(
    source: AnyPath | dict,
    output: AnyPath | None = None,
    *,
    jobs: int | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Fit a run file.

    Under mpirun every rank calls this function; otherwise the work is shared by processes on this machine.

    Parameters
    ----------
    source : path, str or mapping
        See `lstmfit.config.load`.
    output : path, optional
        Output folder; see `output_folder`.
    jobs : int, optional
        Number of processes: parallel serial PolyChord runs that are merged, or nautilus' workers; all cores by
        default. Ignored under mpirun.
    resume, force : bool
        Resume an unfinished run of the same run file; or remove the run in the folder and start over.
    progress : callable, optional
        Called with `lstmfit.sampling.result.Progress` on the first rank.

    Returns
    -------
    pathlib.Path
        The output folder.

    Raises
    ------
    InputError
        The run file, its data or the folder is invalid; nothing is written then.
    """
    comm = mpi.world()
    check_jobs(jobs)
    config = run_file.load(source)
    folder = output_folder(config, source, output)
    remedy = "and repeat the command with --resume; finished work is kept"
    lock = run_folder.locked_folder(folder) if comm is None or comm.Get_rank() == 0 else contextlib.nullcontext()
    with lock, writing_into(folder, remedy):
        prepare = functools.partial(_prepare, config, source, folder, comm, resume, force)
        begun = mpi.on_root(comm, prepare)
        if begun == "finished":
            log.info("%s has already finished", folder)
            mpi.on_root(comm, functools.partial(_draw_missing, folder))
            return folder
        # The run file was given by the user, so the code that it names is trusted.
        make_problem = functools.partial(load_problem, str(folder), trust=True)
        if begun == "nothing sampled":
            mpi.on_root(comm, functools.partial(_finish_without_sampling, folder, make_problem))
            return folder
        sampler = make_sampler(run_folder.read_config(folder))
        try:
            result = sampler.run(make_problem, folder, comm=comm, jobs=jobs, resume=resume, progress=progress)
        except InputError:
            # Nothing was sampled yet, so restore the folder for the corrected run file.
            if begun == "new" and not run_folder.has_progress(folder):
                run_folder.clear(folder)
            raise
        mpi.on_root(comm, functools.partial(_finish, folder, sampler, result))
    return folder


def fit_here(config: RunConfig, folder: Path) -> None:
    """Fit a run file in this process only, for programs that run many fits at a time; resumes, or skips a finished fit.

    Parameters
    ----------
    config : RunConfig
        A run file with absolute paths.
    folder : pathlib.Path
        Output folder.

    Raises
    ------
    InputError
        As `fit`.
    """
    with run_folder.locked_folder(folder), writing_into(folder, "and repeat the command; finished work is kept"):
        begun = _prepare(config, {}, folder, None, resume=True, force=False)
        make_problem = functools.partial(load_problem, str(folder), trust=True)
        if begun == "nothing sampled":
            _finish_without_sampling(folder, make_problem)
        elif begun != "finished":
            sampler = make_sampler(run_folder.read_config(folder))
            _finish(folder, sampler, sampler.run_here(make_problem(), folder, resume=True))


def output_folder(config: RunConfig, source: AnyPath | dict, output: AnyPath | None = None) -> Path:
    """Output folder of a fit: `output`, the run file's ``output``, or ``chains/NAME``.

    If the run file is the ``run.yaml`` of a run folder, it is that folder.
    """
    if output is not None:
        return user_path(output, "output folder")
    if config.output is not None:
        return user_path(config.output, "output folder")
    if isinstance(source, dict):
        return Path("chains") / "run"
    path = run_file.find_run(source)
    return path.parent if config.resolved is not None else Path("chains") / path.stem


def _prepare(config: RunConfig, source: AnyPath | dict, folder: Path, comm: Any, resume: bool, force: bool) -> str:
    """Check everything, then write the resolved run file and the data.

    Returns
    -------
    str
        ``new``, ``resumed``, ``finished``, or ``nothing sampled`` if no parameter is sampled.
    """
    if resume and force:
        raise InputError("--resume and --force are mutually exclusive; give one of them")
    found = run_folder.state(folder)
    if found in ("unfinished", "finished") and not force:
        return _resume(config, folder, found, resume)
    if found == "foreign" and not force:
        raise InputError(
            f"{folder} contains files that do not belong to a run; choose another folder with -o, or use --force to "
            "keep them and write the run there"
        )
    run_folder.check_untouched(folder, config, source)
    problem = build(config)
    resolved = resolve(config, problem)
    if problem.names:
        make_sampler(resolved).check(problem, comm)
    # Evaluate once, so that a likelihood that fails does so here and not inside a sampler.
    problem.loglikelihood(problem.prior_transform(np.full(len(problem.names), 0.5)))
    if found != "empty" and run_folder.is_run(folder):
        run_folder.clear(folder)
    # First, because its record identifies the folder as a run; the data can be created again.
    resolved_run.write_config(resolved, folder)
    run_folder.write_data(problem.data, config, folder)
    return "new" if problem.names else "nothing sampled"


def _resume(config: RunConfig, folder: Path, found: str, resume: bool) -> str:
    """Compare the run file with that of the run in the folder."""
    if not resume:
        if found == "finished":
            raise InputError(
                f"{folder} already contains a finished run; use --force to replace it, or choose another folder with -o"
            )
        raise InputError(
            f"{folder} already contains an unfinished run; use --resume to continue it, or --force to start over"
        )
    old = run_folder.read_config(folder)
    if set(config.data) != set(old.data):
        raise _another_run(folder, ["data"])
    if not run_folder.has_progress(folder) and not _has_data(folder, old):
        # The fit was killed between writing the run file and the data, so nothing has been sampled.
        run_folder.write_data(build(config).data, config, folder)
    problem = build(config, run_folder.read_data(folder, config))
    new = resolve(config, problem)
    different = resolved_run.differences(old, new)
    if not different:
        different = _changed_data(config, resolved_run.record(old).inputs, problem.data)
    if different:
        raise _another_run(folder, different)
    if old.emulator != new.emulator or not _same_place(resolved_run.record(old), resolved_run.record(new)):
        resolved_run.write_config(old.model_copy(update={"emulator": new.emulator, "resolved": new.resolved}), folder)
        if found == "finished":
            run_folder.seal(folder)
    if found == "finished":
        return "finished"
    return "resumed" if problem.names else "nothing sampled"


def _same_place(old: Any, new: Any) -> bool:
    """Whether the emulator file is still in the same place."""
    return "emulator" not in new.inputs or old.inputs.get("emulator") == new.inputs["emulator"]


def _has_data(folder: Path, config: RunConfig) -> bool:
    """Whether all spectra have been written into the folder."""
    return all((folder / file).is_file() for file in run_folder.data_files(config).values())


def _another_run(folder: AnyPath, different: Any) -> InputError:
    return InputError(
        f"{folder} contains a different run (differs in {', '.join(different)}); resume it with the original run "
        "file, choose another folder with -o, or use --force to start over"
    )


def _changed_data(config: RunConfig, inputs: Any, written: Any) -> list[str]:
    """Compare data files with the fitted data, for run folders of version 0.1 without a checksum."""
    changed = []
    for (name, data), keys in zip(config.data.items(), config.data_places.values()):
        place = ".".join((*keys, "file"))
        if data.mock is not None or place in inputs:
            continue
        spectrum, fitted = read_data(data), written[name]
        same = len(spectrum.frequency) == len(fitted.frequency) and all(
            np.array_equal(getattr(spectrum, what), getattr(fitted, what))
            for what in ("frequency", "temperature", "weight")
        )
        if not same:
            changed.append(f"content of {place} ({data.file or data.public})")
    return changed


def resolve(config: RunConfig, problem: Problem) -> RunConfig:
    """Run file with all defaults, and a record of the signal, versions and inputs."""
    versions = {"lstmfit": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    content = config.model_dump(by_alias=True, exclude_none=True)
    content.pop("priors", None)
    # A run folder may be moved, so the output folder is not recorded.
    content.pop("output", None)
    written_out = {name: with_defaults(name, options) for name, options in problem.options.items()}
    content["likelihood"] = content["likelihood"] | written_out
    content |= {
        "params": problem.space.blocks(),
        "sampler": {config.sampler.name: config.sampler.settings.resolved(len(problem.names))},
        "resolved": {
            "signal": problem.signal.name,
            "signal_checksum": problem.signal.checksum,
            "versions": versions,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "inputs": resolved_run.record_inputs(config),
        },
    }
    if problem.truth:
        content["resolved"]["truth"] = problem.truth
    return run_file.validate(content, "resolved run")


def _finish(folder: Path, sampler: Sampler, result: Result) -> None:
    """Read the chains, write the summary, then the plots."""
    from lstmfit.analysis.chains import read_run
    from lstmfit.analysis.getdist import write_getdist
    from lstmfit.analysis.summary import summarise

    run = read_run(folder, trust=True)
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
    write_getdist(run)
    run_folder.seal(folder)
    # A folder with a summary counts as finished, because plots can be drawn again at any time.
    write_text(folder / run_folder.SUMMARY, json.dumps(summary, indent=2) + "\n")
    _draw_pictures(run, folder)


def _finish_without_sampling(folder: Path, make_problem: Callable) -> None:
    """Write the result of a run without free parameters: its evidence is the likelihood itself."""
    from lstmfit.analysis.chains import read_run
    from lstmfit.analysis.goodness import goodness

    problem = make_problem()
    logL, derived = problem.loglikelihood(np.empty(0))
    if not np.isfinite(logL):
        raise InputError(
            f"no parameter is sampled, and the log-likelihood is {logL}; check the fixed values and the data"
        )
    write_paramnames(folder, ROOT, problem)
    write_weighted(folder, ROOT, np.array([[1.0, -logL, *derived]] * 2), 0)
    facts = {"n_like": 1, "wall_s": 0.0, "ranks": 1, "n_nan": 0, "prior_fraction": None}
    evidence = {"logZ": logL, "logZ_err": 0.0}
    write_state(folder, ROOT, make_request(problem) | facts | evidence | {"finished": True})
    run_folder.seal(folder)
    summary = evidence | {"D_KL": 0.0, "D_KL_err": 0.0, "d_G": 0.0, "insertion_p": None, **facts}
    summary |= {"n_live": 0, "sampler": "none, as no parameter is free"}
    summary |= goodness(read_run(folder, problem=problem)) | {"parameters": {}}
    write_text(folder / run_folder.SUMMARY, json.dumps(summary, indent=2) + "\n")


def _draw_missing(folder: Path) -> None:
    """Draw plots that could not be drawn when the run finished, for example because the disk was full."""
    from lstmfit.analysis.chains import read_run

    missing = [name for name in PICTURES if not (folder / f"{name}.png").is_file()]
    if missing and read_state(folder, ROOT).get("names"):
        _draw_pictures(read_run(folder, trust=True), folder, missing)


def _draw_pictures(run: "Run", folder: Path, names: Sequence[str] = PICTURES) -> None:
    """Draw corner.png and signal.png; a failure is only a warning, because the result is complete without them."""
    from lstmfit.analysis import plots

    for name in names:
        try:
            getattr(plots, name)(run, folder / f"{name}.png")
        except Exception as error:
            log.warning(
                "%s.png could not be drawn (%s: %s), but the result is complete; to draw it again: lstmfit plot %s",
                name, type(error).__name__, one_line(error), folder,
            )  # fmt: skip
