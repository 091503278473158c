"""Emulation bias of a finished run: how far the emulator shifted the posterior and the evidence.

The true posterior is obtained by reweighting the emulated one with exp(lnL_true - lnL_emu), where lnL_true is computed
with the simulator, or from a second run that used the simulator itself. Everything is weighted, and in the space of the
prior (log10 of log-uniform parameters).
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lstmfit import config as run_file
from lstmfit.analysis.chains import Run
from lstmfit.analysis.reweight import (
    K_HAT_LIMIT,
    LEAST_SIZE,
    choose_points,
    effective_size,
    k_hat_limit,
    pareto_smooth,
    weighted_quantiles,
)
from lstmfit.analysis.same_problem import check_direct
from lstmfit.analysis.truth import TruthCache, cache_path
from lstmfit.errors import InputError, one_line
from lstmfit.files import AnyPath, write_text
from lstmfit.likelihoods.global_signal_options import RelativeError
from lstmfit.problem import Problem, build
from lstmfit.run_folder import data_files
from lstmfit.signal_functions import AnalyticSignal
from lstmfit.simulators import recorded_simulator

MOST_FAILURES = 0.05
"""Fraction of failed simulations above which the remaining points no longer represent the posterior."""
SMALL = 0.1
"""A bias below this, in sigma, is not visible in a corner plot."""
NEARLY_EQUAL = 0.95
"""Efficiency of the weights above which k-hat is ignored. It is the shape of their tail regardless of its scale, so for
nearly equal weights it is arbitrary."""


def truth_problem(run: Run, simulator: str) -> Problem:
    """The run's problem with the simulator instead of the emulator, and therefore without an emulator error.

    An error that is a fraction of the signal is one of the model, which the simulator has too, so it is kept.

    Raises
    ------
    InputError
        The simulator is unknown or not installed, or has different parameters.
    """
    config = run_file.load(run.folder / "run.yaml")
    changes = {
        "emulator": None,
        "signal": None,
        "simulator": simulator,
        "likelihood": config.likelihood | {
            name: block if isinstance(block.emulator_error, RelativeError)
            else block.model_copy(update={"emulator_error": False})
            for name, block in config.spectrum_blocks.items()
        },
        # Use the stored data: creating a mock again may need the emulator that has just been removed.
        "data": {name: run_file.Data(file=file) for name, file in data_files(config).items()},
    }
    try:
        problem = build(config.model_copy(update=changes), run.problem.data)
    except ImportError as error:
        raise InputError(
            f"the simulator {simulator} is not installed ({error}); to fix this: pip install 'lstmfit[simulate]'"
        ) from error
    if problem.names != run.problem.names:
        raise InputError(
            f"{simulator} has parameters {', '.join(problem.names)}, but the run sampled "
            f"{', '.join(run.problem.names)}; give the simulator that the emulator was trained on"
        )
    return problem


def emulated_simulator(run: Run) -> str:
    """Name of the simulator that the run's emulator was trained on.

    Raises
    ------
    InputError
        The run used no emulator, or its emulator does not record the simulator.
    """
    emulator = run.problem.signal.emulator
    if emulator is None:
        raise InputError(
            f"{run.folder} was fitted without an emulator ({run.problem.signal.name}), so there is no emulation bias; "
            "give the folder of a fit with an emulator"
        )
    return recorded_simulator(emulator, "give --truth SIMULATOR or the folder of a direct fit")


def measure_bias(
    run: Run,
    simulator: str | None = None,
    n: int = 500,
    *,
    jobs: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Measure the emulation bias by reweighting with the simulator.

    Parameters
    ----------
    run : Run
        A finished run with an emulator.
    simulator : str, optional
        Name of the simulator; by default the one that the emulator was trained on.
    n : int
        Number of posterior points to simulate; a later measurement with a larger n reuses them.
    jobs : int, optional
        Number of processes; all cores by default.
    seed : int
        Seed for the choice of points.
    progress : callable, optional
        Called with (finished, n).

    Returns
    -------
    dict
        As `reweighted`, plus ``truth``, the simulator; ``failures``, the number of failed simulations and the first
        message; ``signal_rms_mK`` and ``verdict``.

    Raises
    ------
    InputError
        As `truth_problem`; also if there are fewer than 25 points, or if the simulator fails at all of them.
    """
    if simulator is None or isinstance(run.problem.signal, AnalyticSignal):
        simulator = emulated_simulator(run)
    if isinstance(n, bool) or n < 25:
        raise InputError(f"n is {n}, but at least 25 points are needed to judge the weights; 500 is a typical number")
    problem, truth = run.problem, truth_problem(run, simulator)
    rows, base = choose_points(run.samples.get_weights(), n, np.random.default_rng(seed))
    if len(rows) < 25:
        raise InputError(
            f"{run.folder}: the chain has {len(rows)} points of non-negligible weight, but at least 25 are needed; "
            "repeat the fit with more live points"
        )
    theta = run.samples[list(problem.names)].to_numpy()[rows]
    full = np.array([truth.signal_parameters(t) for t in theta])
    outputs, messages = TruthCache(cache_path(run.folder, simulator), simulator).simulate(full, jobs, progress)
    failed = np.array([bool(m) for m in messages])
    true = np.array([np.nan if m else truth.loglikelihood_of(o, t) for o, t, m in zip(outputs, theta, messages)])
    for i in np.flatnonzero(np.isnan(true) & ~failed):
        failed[i], messages[i] = True, "the likelihood of the simulated signal is NaN"
    if failed.all():
        raise InputError(f"{simulator} failed at all {len(failed)} points; first failure: {one_line(messages[0])}")
    true, theta, outputs, base = true[~failed], theta[~failed], outputs[~failed], base[~failed] / base[~failed].sum()
    emulated = _emulated(run, theta)
    result = reweighted(to_natural(run, theta), base, true - emulated, list(problem.names), run.truth())
    result["truth"] = simulator
    result["failures"] = {"n": int(failed.sum()), "first": next((m for m in messages if m), None)}
    result["signal_rms_mK"] = _signal_rms(problem, truth, theta, outputs, base, result.pop("weights"))
    result["verdict"] = verdict(result)
    return result


def _emulated(run: Run, theta: np.ndarray) -> np.ndarray:
    """Ln L of the run's own problem at points (n, d) of the emulated or the true posterior."""
    values = np.array([run.problem.loglikelihood(t)[0] for t in theta], dtype=float)
    bad = np.flatnonzero(np.isnan(values) | (values == np.inf))
    if len(bad):
        at = ", ".join(f"{name} {value:.6g}" for name, value in zip(run.problem.names, theta[bad[0]]))
        raise InputError(
            f"{run.folder}: the emulated likelihood is not a number at {len(bad)} of {len(values)} points, first at "
            f"{at}; check the emulator with lstmfit evaluate"
        )
    return values


def to_natural(run: Run, theta: np.ndarray) -> np.ndarray:
    """Copy of sampled parameters (n, d) in the space of the prior."""
    out = np.array(theta, dtype=float)
    for i, name in enumerate(run.problem.names):
        if run.log10[name]:
            out[:, i] = np.log10(out[:, i])
    return out


def reweighted(
    x: np.ndarray,
    base: np.ndarray,
    log_ratio: np.ndarray,
    names: list[str],
    truth: dict[str, float] | None = None,
    from_truth: bool = False,
) -> dict:
    """Bias, divergence and evidence shift from points of one posterior and their log likelihood ratios to the other.

    Parameters
    ----------
    x : numpy.ndarray
        (n, d) points of the emulated posterior (of the true one with `from_truth`), in the space of the prior.
    base : numpy.ndarray
        (n,) weights of the points, summing to one.
    log_ratio : numpy.ndarray
        (n,) lnL_true - lnL_emu (lnL_emu - lnL_true with `from_truth`); -inf where the other likelihood vanishes.
    names : list of str
        Names of the d parameters.
    truth : mapping of str to float, optional
        True values.
    from_truth : bool
        Whether the points are from the true posterior.

    Returns
    -------
    dict
        ``parameters``: by name, ``bias`` = |mean_emu - mean_true| / std_true (Dorigo Jones et al. 2023,
        arXiv:2310.02503), its Monte-Carlo error ``bias_err``, the signed ``shift`` = (mean_emu - mean_true) / std_true,
        ``std_ratio`` = std_emu / std_true and ``true_bias`` = |mean_true - truth| / std_true or None;
        ``D_KL`` of the true from the emulated posterior in nats and ``D_KL_err``; ``D_KL_half_variance``, half the
        variance of the log ratio under the true posterior (Bevins et al. 2025, arXiv:2503.13263), which agrees with
        D_KL if the ratio is small; ``dlogZ`` = logZ_true - logZ_emu, the correction to the run's evidence, and
        ``dlogZ_err``; ``khat``, ``khat_limit``; ``ess``; ``efficiency``, the effective sample size of the ratios
        alone, relative to n; ``n``; ``weights`` (n,) of the other posterior.

    Raises
    ------
    InputError
        The other likelihood vanishes at every point, its posterior is reduced to a single point, or a ratio is NaN.

    Notes
    -----
    The means under both posteriors come from the same points, so their scatter cancels in the difference. Errors are
    propagated linearly (influence functions) over independent points. D_KL is computed between the new and the base
    weights; it is never negative and of second order in the ratio. The tail of the weights is Pareto-smoothed unless
    the weights are nearly equal, where smoothing would reduce a small bias by a tenth.
    """
    bad = int(np.sum(np.isnan(log_ratio) | (log_ratio == np.inf)))
    if bad:
        raise InputError(f"{bad} of {len(x)} log ratios are NaN or +inf; expected finite numbers, or -inf for zero")
    if not np.isfinite(np.max(log_ratio)):
        raise InputError(
            "the true likelihood is zero at every point; give the simulator that the emulator was trained on"
        )
    plain = np.log(base) + log_ratio
    log_weights, khat = pareto_smooth(plain)
    factor = np.exp(log_ratio - np.max(log_ratio))
    efficiency = float((base @ factor) ** 2 / (base @ factor**2))
    if efficiency > NEARLY_EQUAL:
        log_weights = plain
    top = log_weights.max()
    w = np.exp(log_weights - top)
    total = w.sum()
    w = w / total
    ratio = w / base
    emu, true = (w, base) if from_truth else (base, w)
    mean_emu, mean = emu @ x, true @ x
    std_emu, std = np.sqrt(emu @ (x - mean_emu) ** 2), np.sqrt(true @ (x - mean) ** 2)
    if not (std > 0).all():
        raise InputError(
            f"a single one of {len(x)} points has all the weight, so the true posterior of "
            f"{names[int(np.argmin(std))]} has no width: the emulated posterior is too far from it; run a direct fit "
            "(simulator: instead of emulator: in the run file)"
        )
    shift = (mean_emu - mean) / std
    shift_err = np.sqrt(np.sum((true[:, None] * (x - mean) - emu[:, None] * (x - mean_emu)) ** 2, axis=0)) / std
    # A ratio of zero contributes nothing to D_KL(other || base), but makes D_KL(base || other) infinite.
    logs = np.log(np.maximum(ratio, np.finfo(float).tiny))
    d_kl = float(-base @ logs if from_truth else w @ logs)
    influence = -logs - d_kl + ratio - 1.0 if from_truth else ratio * (logs - d_kl) - (ratio - 1.0)
    finite = np.isfinite(log_ratio)
    weights = true[finite] / true[finite].sum()
    spread = weights @ (log_ratio[finite] - weights @ log_ratio[finite]) ** 2
    parameters = {}
    for i, name in enumerate(names):
        known = None if truth is None else truth.get(name)
        parameters[name] = {
            "bias": float(abs(shift[i])),
            "bias_err": float(shift_err[i]),
            "shift": float(shift[i]),
            "std_ratio": float(std_emu[i] / std[i]),
            "true_bias": None if known is None else float(abs(mean[i] - known) / std[i]),
        }
    return {
        "parameters": parameters,
        "mean_bias": float(np.mean(np.abs(shift))),
        "D_KL": max(d_kl, 0.0),
        "D_KL_err": float(np.sqrt(np.sum((base * influence) ** 2))),
        "D_KL_half_variance": float(0.5 * spread),
        "dlogZ": float(top + np.log(total)) * (-1.0 if from_truth else 1.0),
        "dlogZ_err": float(np.sqrt(np.sum((base * (ratio - 1.0)) ** 2))),
        "khat": float(khat) if np.isfinite(khat) else None,
        "khat_limit": k_hat_limit(len(x)),
        "ess": effective_size(w),
        "efficiency": efficiency,
        "n": len(x),
        "weights": w,
    }


def _signal_rms(
    problem: Problem,
    truth: Problem,
    theta: np.ndarray,
    outputs: np.ndarray,
    base: np.ndarray,
    weights: np.ndarray,
) -> dict[str, float] | None:
    """68th percentile of the rms difference between posterior signals and a mock's true signal, as for 21cmLSTM.

    r_s = sqrt(mean_nu (T_true - T(theta_s))^2) (Dorigo Jones et al. 2024, arXiv:2410.07619), but with weights, which
    the published notebooks omit; from the emulator for the emulated posterior, from the simulator for the true one.
    """
    of_truth = [name for name, likelihood in problem.spectra.items() if likelihood.spectrum.truth is not None]
    if not of_truth:
        return None

    def rms(parts: list[np.ndarray]) -> np.ndarray:
        return np.sqrt(np.mean(np.concatenate(parts, axis=-1) ** 2, axis=-1))

    def differences(some_problem: Problem, signals: np.ndarray) -> list[np.ndarray]:
        parts = [some_problem.spectra[name] for name in of_truth]
        return [part.on_channels(signals) - part.spectrum.truth for part in parts]

    emulated = differences(problem, np.array([problem.signal_at(t) for t in theta]))
    raw = outputs[:, truth.signal.layout["signal"]]
    # Residuals of the best-fitting point.
    best = int(np.argmax([truth.loglikelihood_of(o, t) for o, t in zip(outputs, theta)]))
    residuals = [truth.spectra[n].residuals(raw[best], truth.values(theta[best], n)) for n in of_truth]
    (emulated_68,) = weighted_quantiles(rms(emulated), base, (0.68,))
    (true_68,) = weighted_quantiles(rms(differences(truth, raw)), weights, (0.68,))
    return {"emulated_68": emulated_68, "true_68": true_68, "noise": float(rms(residuals))}


def verdict(result: dict) -> dict:
    """Whether a measured bias can be trusted, what it means, and what to do if it cannot be trusted.

    Parameters
    ----------
    result : dict
        Result of `measure_bias` or `bias_between`.

    Returns
    -------
    dict
        ``trusted`` and ``text``. A result is not trusted if the effective sample size is below `LEAST_SIZE`, if k-hat
        exceeds its limit while the ratios are not nearly equal, or if more than 5 % of the simulations failed.
    """
    n, failed = result["n"], result["failures"]["n"]
    name, worst = max(result["parameters"].items(), key=lambda item: item[1]["bias"])
    figure = f"{worst['bias']:.2g} ± {worst['bias_err']:.1g} sigma in {name}"
    why = _doubt(result)
    if why is not None:
        text = (
            f"{why}, so the bias is only a lower limit; use more points (-n) or a direct fit (simulator: instead of "
            "emulator: in the run file, then --truth ITS_FOLDER)"
        )
        return {"trusted": False, "text": text}
    if failed > MOST_FAILURES * (n + failed):
        text = f"{failed} of {n + failed} simulations failed; the remaining points do not represent the posterior"
        return {"trusted": False, "text": text}
    if worst["bias_err"] > SMALL:
        text = f"largest bias {figure}; its error is too large for a conclusion, so use more points"
    elif worst["bias"] < SMALL:
        text = f"the emulator is accurate enough for these data: largest bias {figure}"
    elif worst["bias"] < 0.5:
        text = f"the emulator has a noticeable effect on this fit: largest bias {figure}"
    else:
        text = f"the emulator biases this fit: largest bias {figure}; use the reweighted posterior or a direct fit"
    return {"trusted": True, "text": text}


def _doubt(result: dict) -> str | None:
    """Why the weights cannot be trusted; None if they can."""
    khat, n, size = result["khat"], result["n"], result["ess"]
    far = "the true posterior is too far from the emulated one for reweighting"
    if size < LEAST_SIZE:
        few = f"{n} points are too few" if result["efficiency"] > NEARLY_EQUAL else far
        return f"effective sample size {size:.1f} of {n}, below {LEAST_SIZE:.0f}: {few}"
    if result["efficiency"] > NEARLY_EQUAL or (khat is not None and khat <= result["khat_limit"]):
        return None
    few = f"{n} points are too few to tell whether reweighting is reliable"
    why = few if khat is not None and khat <= K_HAT_LIMIT else far
    return f"k-hat is {'infinite' if khat is None else f'{khat:.2f}'}, above {result['khat_limit']:.2f}: {why}"


def bias_between(run: Run, true_run: Run, seed: int = 0) -> dict:
    """Emulation bias relative to a direct fit, in the same format as `measure_bias`.

    The chain of the direct fit contains points of the true posterior with lnL_true, and the emulated likelihood at
    these points is cheap. So the true posterior is reweighted to the emulated one. Both share the same points, which
    keeps the errors small, and the emulated chain is not used.

    Parameters
    ----------
    run, true_run : Run
        Fits of the same data with the emulator and with the simulator.
    seed : int
        Seed for the choice of points and for the comparison of the two chains.

    Returns
    -------
    dict
        As `measure_bias`, plus ``chains``: `lstmfit.analysis.compare.compare` of the two chains, which has larger
        errors because the chains are independent.

    Raises
    ------
    InputError
        The runs differ in data or parameters, or the second one is not a direct fit.
    """
    from lstmfit.analysis.compare import compare

    check_direct(run, true_run)
    names = list(run.problem.names)
    weights = true_run.samples.get_weights()
    rows, base = choose_points(weights, len(weights), np.random.default_rng(seed))
    if len(rows) < 25:
        raise InputError(
            f"{true_run.folder}: the chain has {len(rows)} points of non-negligible weight, but at least 25 are "
            "needed; repeat the fit with more live points"
        )
    theta = true_run.samples[names].to_numpy()[rows]
    ratio = _emulated(run, theta) - true_run.samples["logL"].to_numpy()[rows]
    result = reweighted(to_natural(run, theta), base, ratio, names, run.truth(), from_truth=True)
    result.pop("weights")
    result |= {"truth": str(true_run.folder), "failures": {"n": 0, "first": None}, "signal_rms_mK": None}
    result["chains"] = compare(run.natural(), true_run.natural(), names, seed)
    return result | {"verdict": verdict(result)}


def bias_lines(result: dict) -> list[str]:
    """Lines of text with the divergence, evidence, weights and verdict of `measure_bias` or `bias_between`."""
    n, failed = result["n"], result.get("failures", {"n": 0})
    lines = [f"D_KL {_figure(result, 'D_KL', 4)} nat   logZ_true - logZ_emulated {_figure(result, 'dlogZ', 3)}"]
    khat = "infinite" if result["khat"] is None else f"{result['khat']:.2f}"
    lines.append(
        f"k-hat {khat} (limit {result['khat_limit']:.2f})   effective sample size {result['ess']:.0f} of {n}   "
        f"failed simulations {failed['n']}"
    )
    if failed["n"]:
        lines.append(f"first failure: {failed['first']}")
    rms = result.get("signal_rms_mK")
    if rms is not None:
        lines.append(
            f"rms difference from the true signal (68 %): {rms['emulated_68']:.2f} mK with the emulator, "
            f"{rms['true_68']:.2f} mK with the simulator; rms residual {rms['noise']:.1f} mK"
        )
    return [*lines, result["verdict"]["text"]]


def _figure(result: dict, key: str, digits: int) -> str:
    value, error = result[key], result[f"{key}_err"]
    return "unknown" if value is None else f"{value:.{digits}f} ± {'?' if error is None else f'{error:.{digits}f}'}"


def bias_file(folder: AnyPath) -> Path:
    """File of a run's measured bias; it is named like the chain, so that it is removed with it."""
    return Path(folder) / "chain_bias.json"


def write_bias(folder: AnyPath, result: dict) -> None:
    """Store the result of `measure_bias` in the run folder, for the report."""
    write_text(bias_file(folder), json.dumps(result, indent=2) + "\n")
