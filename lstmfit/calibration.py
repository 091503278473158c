"""Calibration over many mocks: whether the posterior is right on average, and what the emulator adds.

Parameters are drawn from the prior, the simulator makes the signal, the run file's noise is added, and each mock is
fitted as the run file says. If prior, likelihood, emulator and sampler are right, the posterior's cumulative
probability at the true value is uniform (simulation-based calibration: Cook, Gelman & Rubin 2006, J. Comput. Graph.
Stat. 15, 675; Talts et al. 2018, arXiv:1804.06788). One noise draw cannot tell bias from luck; many can.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import shutil
from concurrent import futures
from pathlib import Path

import numpy as np

from lstmfit import config as run_file
from lstmfit.analysis.bias import measure_bias, to_natural
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.truth import _load
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.driver import ROOT, load_problem, polychord_settings, resolve
from lstmfit.errors import InputError
from lstmfit.files import replacing, write_text
from lstmfit.likelihoods import foregrounds
from lstmfit.likelihoods.global_signal import interpolation_matrix
from lstmfit.mock import make_noise
from lstmfit.problem import build
from lstmfit.simulators.protocol import SimulationError
from lstmfit.workers import cores, death_as, worker_pool

log = logging.getLogger(__name__)

LEVELS = (0.68, 0.95)
BINS = 10


def calibrate(
    source, output, n: int = 100, *, points: int = 200, jobs: int | None = None, seed: int = 0, progress=None
):
    """Fit `n` mocks drawn from the prior; repeat the call to go on after an interruption or with a larger n.

    Under mpirun the ranks share the mocks, one at a time; otherwise processes of this machine do.

    Parameters
    ----------
    source : path, str or mapping
        A run file; its mock or data give the channels, its noise block the noise, its sampler block the fits.
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
        See `summarise`; None on MPI ranks other than the first.

    Raises
    ------
    InputError
        Further likelihoods than the spectrum's, no simulator, or a folder of another campaign.
    SimulationError
        A worker process died.
    """
    if isinstance(n, bool) or n < 1:
        raise InputError(f"n is {n}; at least one mock is needed, and about 100 to see a shift of 0.3 sigma")
    if points and points < 25:
        raise InputError(f"points is {points}; at least 25 are needed to judge the weights, or 0 for no bias")
    folder = Path(output)
    with death_as(SimulationError, "a worker process"), worker_pool(jobs or cores()) as (pool, _):
        if pool is None:
            return None
        _prepare(source, folder, seed, points)
        todo = [i for i in range(n) if not _mock_file(folder, i).is_file()]
        done = n - len(todo)
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


def _prepare(source, folder: Path, seed: int, points: int):
    """Check the run file, write it resolved, or compare with the campaign that is in the folder."""
    config = run_file.load(source)
    if config.likelihood.others:
        others = ", ".join(config.likelihood.others)
        raise InputError(f"calibrate draws mocks of the spectrum only; take {others} out of the run file")
    problem = build(config)
    content = resolve(config, problem, folder).model_dump(by_alias=True, exclude_none=True)
    content["resolved"].pop("created")
    plan = json.loads(json.dumps({"run": content, "seed": seed, "points": points, "simulator": _simulator(problem)}))
    plan["run"].pop("output", None)
    file = folder / "plan.json"
    if file.is_file():
        old = json.loads(file.read_text())
        different = [key for key in plan if plan[key] != old.get(key)]
        if different:
            raise InputError(
                f"{folder} holds a campaign with another {', '.join(different)}; choose another folder with -o"
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} holds files that are not of a calibration; choose another folder with -o")
    _load(plan["simulator"])
    (folder / "mocks").mkdir(parents=True, exist_ok=True)
    run_file.dump(run_file.validate(content, "resolved run"), folder / "run.yaml")
    problem.spectrum.write(folder / "channels.csv")
    write_text(file, json.dumps(plan))


def _simulator(problem) -> str:
    emulator = problem.signal.emulator
    name = problem.signal.name if emulator is None else emulator.record.get("simulator")
    if not name:
        raise InputError(f"{problem.signal.name} does not say which simulator it emulates, so there is no truth")
    return str(name)


def _fit_mock(folder: str, seed: int, points: int, i: int) -> int:
    """Make, fit and judge one mock, in whatever process."""
    from lstmfit.datasets.spectrum import read_written_spectrum
    from lstmfit.sampling.polychord import run_polychord

    folder = Path(folder)
    plan = json.loads((folder / "plan.json").read_text())
    config = run_file.load(folder / "run.yaml")
    rng = np.random.default_rng([seed, i])
    template = build(config, read_written_spectrum(folder / "channels.csv"))
    theta = template.prior.sample(1, rng)[0]
    try:
        spectrum = draw_mock(config, template, plan["simulator"], theta, rng)
    except SimulationError as error:
        write_text(_mock_file(folder, i), json.dumps({"failed": str(error), "theta": theta.tolist()}))
        return i
    # A folder of its own, in the shape that `lstmfit fit` leaves.
    work = folder / "work" / f"{i:05d}"
    work.mkdir(parents=True, exist_ok=True)
    spectrum.write(work / "data.csv")
    data = {"data": run_file.Data(file=str((work / "data.csv").resolve())), "output": str(work)}
    run_file.dump(config.model_copy(update=data), work / "run.yaml")
    problem = load_problem(work)
    settings = dataclasses.replace(polychord_settings(config), seed=int(rng.integers(2**31)))
    fitted = run_polychord(
        problem.loglikelihood,
        problem.prior_transform,
        problem.names,
        problem.derived_names,
        problem.latex,
        work,
        ROOT,
        settings,
        resume=True,
    )
    run = read_run(work, problem)
    result = judge(run, theta) | {"logZ": fitted.logZ, "logZ_err": fitted.logZ_err, "n_like": fitted.n_like}
    if points and problem.signal.emulator is not None:
        result["emulation"] = _emulation(run, plan["simulator"], points, theta)
    write_text(_mock_file(folder, i), json.dumps(result))
    shutil.rmtree(work)
    with contextlib.suppress(OSError):
        work.parent.rmdir()
    return i


def draw_mock(config, template, simulator: str, theta: np.ndarray, rng: np.random.Generator) -> Spectrum:
    """Data drawn from the model of a run file at sampled parameters, the simulator in place of the emulator.

    Parameters
    ----------
    config : RunConfig
        The run.
    template : Problem
        Built from it; its spectrum gives the channels and their weights.
    simulator : str
        The truth.
    theta : numpy.ndarray
        (n,) sampled parameters: those of the foreground and of the noise are used too.
    rng : numpy.random.Generator
        For the noise and for a marginalised foreground, which is drawn from its prior.

    Raises
    ------
    SimulationError
        The simulator fails there.
    """
    model, channels = _load(simulator), template.spectrum
    signal = model(template.signal_parameters(theta).copy()).signal
    matrix = interpolation_matrix(model.redshifts, channels.frequency)
    true = np.array(signal if matrix is None else matrix @ signal, dtype=float)
    own = np.array(template.values(theta))
    # What the likelihood adds to any signal, such as a sampled foreground: the same whichever signal it is.
    zero = np.zeros(len(template.signal.redshifts))
    sky = true + template.likelihood.model(zero, own)
    block = config.likelihood.global_signal
    wanted = block.foreground
    if wanted is not None and wanted.marginalise is not False:
        component = foregrounds.foreground(
            wanted.model, channels.frequency, wanted.terms, wanted.reference, wanted.mean, wanted.scale
        )
        if component.basis is not None:
            size = component.basis.shape[1]
            sky = sky + component.basis @ (wanted.mean + np.multiply(wanted.scale, rng.standard_normal(size)))
    noise = make_noise(block.noise, channels.frequency, channels.temperature, channels.weight)
    values = dict(zip(template.likelihood.names, own))
    if noise.sigma is None:
        noise = dataclasses.replace(noise, sigma=float(values[noise.name]))
    if noise.student and noise.dof is None:
        noise = dataclasses.replace(noise, dof=float(values["dof"]))
    temperature = sky + noise.draw(channels.weight, rng)
    return Spectrum(channels.frequency, temperature, channels.weight, true)


def judge(run, theta: np.ndarray) -> dict:
    """Cumulative posterior probability at the true values, and their distance from the posterior mean in sigma."""
    x = to_natural(run, run.samples[list(run.problem.names)].to_numpy())
    weights = run.samples.get_weights()
    weights = weights / weights.sum()
    truth = to_natural(run, theta[None])[0]
    mean = weights @ x
    std = np.sqrt(weights @ (x - mean) ** 2)
    rank = [
        float(weights[x[:, j] < truth[j]].sum() + 0.5 * weights[x[:, j] == truth[j]].sum()) for j in range(len(std))
    ]
    return {
        "theta": theta.tolist(),
        "rank": dict(zip(run.problem.names, rank)),
        "z": dict(zip(run.problem.names, ((mean - truth) / std).tolist())),
    }


def _emulation(run, simulator, points, theta):
    """Emulation bias of this mock and the rank that the reweighted posterior gives."""
    try:
        result = measure_bias(run, simulator, points, jobs=1)
    except InputError as error:
        return {"failed": str(error)}
    shifts = {name: p["shift"] for name, p in result["parameters"].items()}
    kept = {key: result[key] for key in ("D_KL", "D_KL_err", "dlogZ", "khat", "khat_limit", "ess", "n")}
    return kept | {"shift": shifts, "trusted": result["verdict"]["trusted"]}


def summarise(folder, n: int | None = None) -> dict:
    """Ranks, coverage and emulation bias over the finished mocks; writes ``calibration.json`` and ``calibration.png``.

    Parameters
    ----------
    folder : path
        Of the campaign.
    n : int, optional
        Take mocks 0 to n - 1; all by default.

    Returns
    -------
    dict
        ``n``, ``n_failed``; ``parameters``: by name, ``rank_ks_p`` (chance of ranks as far from uniform),
        ``coverage_68``, ``coverage_95`` of the central intervals with ``*_low`` and ``*_high``, the 95 % binomial band
        that a calibrated fit falls into, ``z_mean`` and its error, ``z_std``; ``emulation``: mean and 95 % over mocks
        of the largest shift in sigma and of D_KL, mean shift by parameter with its error, fraction of trusted weights.
    """
    from scipy.stats import binom, kstest

    folder = Path(folder)
    files = sorted((folder / "mocks").glob("*.json"))
    mocks = [json.loads(f.read_text()) for f in files if n is None or int(f.stem) < n]
    good = [m for m in mocks if "failed" not in m]
    if not good:
        first = f"; the first: {mocks[0]['failed']}" if mocks else ""
        raise InputError(f"{folder}: none of {len(mocks)} mocks could be fitted{first}")
    parameters = {}
    for name in good[0]["rank"]:
        ranks, z = (np.array([m[key][name] for m in good]) for key in ("rank", "z"))
        entry = {"rank_ks_p": float(kstest(ranks, "uniform").pvalue)}
        for level in LEVELS:
            key = f"coverage_{round(100 * level)}"
            entry[key] = float(np.mean(np.abs(ranks - 0.5) <= 0.5 * level))
            entry[f"{key}_low"], entry[f"{key}_high"] = (
                float(binom.ppf(q, len(good), level) / len(good)) for q in (0.025, 0.975)
            )
        entry |= {"z_mean": float(z.mean()), "z_mean_err": float(z.std() / np.sqrt(len(z))), "z_std": float(z.std())}
        parameters[name] = entry
    result = {"n": len(good), "n_failed": len(mocks) - len(good), "parameters": parameters}
    emulated = [m["emulation"] for m in good if "failed" not in m.get("emulation", {"failed": ""})]
    if emulated:
        shifts = np.array([list(m["shift"].values()) for m in emulated])
        largest, d_kl = np.abs(shifts).max(axis=1), np.array([m["D_KL"] for m in emulated])
        result["emulation"] = {
            "n": len(emulated),
            "trusted": float(np.mean([m["trusted"] for m in emulated])),
            "largest_shift_mean": float(largest.mean()),
            "largest_shift_p95": float(np.percentile(largest, 95)),
            "D_KL_mean": float(d_kl.mean()),
            "D_KL_median": float(np.median(d_kl)),
            "D_KL_p95": float(np.percentile(d_kl, 95)),
            "shift_mean": dict(zip(parameters, shifts.mean(axis=0).tolist())),
            "shift_mean_err": dict(zip(parameters, (shifts.std(axis=0) / np.sqrt(len(shifts))).tolist())),
        }
    write_text(folder / "calibration.json", json.dumps(result, indent=2) + "\n")
    _picture(folder / "calibration.png", good, emulated)
    return result


def _picture(path, good, emulated):
    """Rank histograms and coverage of each parameter with binomial bands; the bias distribution over mocks."""
    from scipy.stats import binom

    from lstmfit.analysis.plots import BLUE, GREY, RED, new_figure

    names, n = list(good[0]["rank"]), len(good)
    figure = new_figure(figsize=(2.2 * len(names), 6.6 if emulated else 4.4), layout="constrained")
    axes = figure.subplots(3 if emulated else 2, len(names), squeeze=False)
    low, high = binom.ppf((0.025, 0.975), n, 1.0 / BINS)
    grid = np.linspace(0.0, 1.0, 101)
    band = [binom.ppf(q, n, grid) / n for q in (0.025, 0.975)]
    for j, name in enumerate(names):
        ranks = np.array([m["rank"][name] for m in good])
        axes[0, j].axhspan(low, high, color=GREY, alpha=0.35, lw=0)
        axes[0, j].hist(ranks, bins=BINS, range=(0, 1), histtype="step", color=BLUE)
        axes[0, j].set_title(name)
        axes[1, j].fill_between(grid, *band, color=GREY, alpha=0.35, lw=0)
        axes[1, j].plot(grid, [np.mean(np.abs(ranks - 0.5) <= 0.5 * g) for g in grid], color=BLUE)
        axes[0, j].set_xlabel("rank of the truth")
        axes[1, j].set_xlabel("credibility")
        if emulated:
            axes[2, j].hist([m["shift"][name] for m in emulated], bins=15, histtype="step", color=RED)
            axes[2, j].set_xlabel(r"emulation bias [$\sigma$]")
    for axis, label in zip(axes[:, 0], ("mocks", "coverage", "mocks")):
        axis.set_ylabel(label)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
