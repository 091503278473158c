"""Calibration of posteriors over many mocks: ranks, coverage, distance from the truth, emulation bias."""

import json
import re
from pathlib import Path

import numpy as np

from lstmfit.analysis.autocorrelation import effective_sizes
from lstmfit.analysis.bias import to_natural
from lstmfit.analysis.records import Mock, read_figures
from lstmfit.analysis.reweight import LEAST_SIZE
from lstmfit.errors import InputError
from lstmfit.files import replacing, write_text

LEVELS = (0.5, 0.68, 0.9, 0.95)
BINS = 10


def judge(run, theta: np.ndarray) -> dict:
    """Position of the truth in the posterior of one mock.

    Parameters
    ----------
    run : Run
        Fit of the mock.
    theta : numpy.ndarray
        (n,) true values of the sampled parameters, physical.

    Returns
    -------
    dict
        ``theta``; by name ``rank``, the posterior's cumulative probability at the truth, ``std`` and ``z`` = (mean -
        truth) / std; ``ess``, the effective sample size of a mean, which includes the correlation of the points if the
        run shows it (`lstmfit.analysis.autocorrelation.effective_sizes`; harmonic mean over the parameters); ``chi2`` =
        (mean - truth)^T C^-1 (mean - truth) with the posterior covariance C. Everything is in the space of the prior.
        Averaged over mocks drawn from the prior, chi2 is the number of parameters for any shape of the posterior: given
        the data, the truth is a draw from it.
    """
    x = to_natural(run, run.samples[list(run.problem.names)].to_numpy())
    weights = run.samples.get_weights()
    weights = weights / weights.sum()
    truth = to_natural(run, theta[None])[0]
    mean = weights @ x
    covariance = (weights[:, None] * (x - mean)).T @ (x - mean)
    std = np.sqrt(np.diag(covariance))
    rank = [
        float(weights[x[:, j] < truth[j]].sum() + 0.5 * weights[x[:, j] == truth[j]].sum()) for j in range(len(std))
    ]
    return {
        "theta": theta.tolist(),
        "rank": dict(zip(run.problem.names, rank)),
        "std": dict(zip(run.problem.names, std.tolist())),
        "z": dict(zip(run.problem.names, ((mean - truth) / std).tolist())),
        "ess": float(1.0 / np.mean(1.0 / effective_sizes(run.samples, run.problem.names)[0])),
        "chi2": float((mean - truth) @ np.linalg.solve(covariance, mean - truth)),
    }


def read_mocks(folder, n: int | None = None) -> list[dict]:
    """Read the records of the finished mocks of a calibration (numbers 0 to n - 1, or all), in order.

    Raises
    ------
    InputError
        A record is damaged, or the mocks have different parameters.
    """
    files = sorted(f for f in (Path(folder) / "mocks").glob("*.json") if re.fullmatch("[0-9]+", f.stem))
    remedy = "remove it and repeat the command, which then repeats this mock"
    files = [file for file in files if n is None or int(file.stem) < n]
    mocks = [read_figures(file, Mock, remedy, omit=True) for file in files]
    names = [sorted(mock["rank"]) for mock in mocks if "failed" not in mock]
    for file, found in zip([f for f, m in zip(files, mocks) if "failed" not in m], names):
        if found != names[0]:
            raise InputError(f"{file} has different parameters than the mocks before it; {remedy}")
    return mocks


def summarise(folder, n: int | None = None) -> dict:
    """Ranks, coverage and emulation bias over the finished mocks; writes ``calibration.json`` and ``calibration.png``.

    Parameters
    ----------
    folder : path
        Folder of the calibration.
    n : int, optional
        Use mocks 0 to n - 1; all by default.

    Returns
    -------
    dict
        ``n``, ``n_failed``; ``parameters``: by name, ``rank_ks_p`` (Kolmogorov-Smirnov p-value of uniform ranks),
        ``coverage_50``, ``_68``, ``_90``, ``_95`` of the central intervals with ``*_low`` and ``*_high``, the 95 %
        binomial range for a calibrated fit, ``z_mean`` and its error, ``z_std``; ``chi2``: mean of the chi2 of `judge`
        divided by the number of parameters (one for a calibrated fit), and its error from the scatter; ``emulation``:
        mean and 95th percentile over mocks of the largest shift in sigma and of D_KL, mean shift by parameter with its
        error, fraction of trusted weights. Errors and scatter are None with a single mock.

    Raises
    ------
    InputError
        None of the mocks could be fitted.
    """
    folder = Path(folder)
    mocks = read_mocks(folder, n)
    good = [m for m in mocks if "failed" not in m]
    if not good:
        first = f"; first failure: {mocks[0]['failed']}" if mocks else ""
        raise InputError(f"{folder}: none of {len(mocks)} mocks could be fitted{first}")
    parameters = {
        name: _parameter(*(np.array([m[key][name] for m in good]) for key in ("rank", "z"))) for name in good[0]["rank"]
    }
    result = {"n": len(good), "n_failed": len(mocks) - len(good), "parameters": parameters}
    chi2 = np.array([m["chi2"] for m in good if "chi2" in m]) / len(parameters)
    if len(chi2):
        result["chi2"] = {"mean": float(chi2.mean()), "err": _error(chi2)}
    emulated = [m["emulation"] for m in good if "failed" not in m.get("emulation", {"failed": ""})]
    if emulated:
        result["emulation"] = _emulation(emulated, list(parameters))
    write_text(folder / "calibration.json", json.dumps(result, indent=2) + "\n")
    _picture(folder / "calibration.png", good, emulated)
    return result


def binomial_band(n: int, level: float) -> tuple[float, float]:
    """95 % range of the fraction of n mocks in which a calibrated interval covers the truth."""
    from scipy.stats import binom

    low, high = (float(binom.ppf(q, n, level) / n) for q in (0.025, 0.975))
    return low, high


def _parameter(ranks, z):
    from scipy.stats import kstest

    entry = {"rank_ks_p": float(kstest(ranks, "uniform").pvalue)}
    for level in LEVELS:
        key = f"coverage_{round(100 * level)}"
        entry[key] = float(np.mean(np.abs(ranks - 0.5) <= 0.5 * level))
        entry[f"{key}_low"], entry[f"{key}_high"] = binomial_band(len(ranks), level)
    return entry | {
        "z_mean": float(z.mean()),
        "z_mean_err": _error(z),
        "z_std": float(z.std(ddof=1)) if len(z) > 1 else None,
    }


def _error(values) -> float | None:
    """Standard error of the mean of numbers (n,); None for a single one."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _emulation(emulated, names):
    shifts = np.array([[m["shift"][name] for name in names] for m in emulated])
    largest, d_kl = np.abs(shifts).max(axis=1), np.array([m["D_KL"] for m in emulated])
    return {
        "n": len(emulated),
        # Version 0.1 trusted weights concentrated on one point, and its calibrations can be continued.
        "trusted": float(np.mean([m["trusted"] and m["ess"] >= LEAST_SIZE for m in emulated])),
        "largest_shift_mean": float(largest.mean()),
        "largest_shift_p95": float(np.percentile(largest, 95)),
        "D_KL_mean": float(d_kl.mean()),
        "D_KL_median": float(np.median(d_kl)),
        "D_KL_p95": float(np.percentile(d_kl, 95)),
        "shift_mean": dict(zip(names, shifts.mean(axis=0).tolist())),
        "shift_mean_err": {name: _error(shift) for name, shift in zip(names, shifts.T)},
    }


def _picture(path, good, emulated):
    """Plot rank histograms and coverage of each parameter with binomial bands, and the distribution of the bias."""
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
