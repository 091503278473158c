"""Checks before a run: whether everything evaluates, how long it will take, and the expected emulation bias."""

import time
import warnings

import numpy as np

from lstmfit import config as run_file
from lstmfit.analysis.divergence import bound
from lstmfit.analysis.forecast import forecast
from lstmfit.driver import resolve
from lstmfit.emulator.emulator import shipped_test_set
from lstmfit.errors import one_line
from lstmfit.problem import build
from lstmfit.sampling.samplers import make_sampler


def check_run(source, n_draws: int = 1000, seed: int = 0) -> dict:
    """Build a run, evaluate it on prior draws and time its parts, without sampling or writing anything.

    Parameters
    ----------
    source : path, str or mapping
        See `lstmfit.config.load`.
    n_draws : int
        Number of prior draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict
        Times in microseconds, the finite fraction, the expected numbers of calls and seconds, and the forecast of the
        emulation bias, see `lstmfit.analysis.forecast.forecast`. If no parameter is sampled, the log-evidence.

    Raises
    ------
    InputError
        As `lstmfit.problem.build`.
    """
    config = run_file.load(source)
    problem = build(config)
    if not problem.names:
        value = problem.loglikelihood(np.empty(0))[0]
        return {"parameters": 0, "channels": problem.n_channels, "logZ": value}
    rng = np.random.default_rng(seed)
    theta = problem.prior.sample(n_draws, rng)
    problem.loglikelihood(theta[0])
    values = np.array([problem.loglikelihood(t)[0] for t in theta])
    good = np.isfinite(values)
    _warn_of_limits(problem, theta, good)
    cubes = rng.uniform(size=(n_draws, len(problem.prior)))
    # Points of zero likelihood may be skipped early, so they are not used for timing.
    timed = theta[good] if good.any() else theta
    full = [problem.signal_parameters(t) for t in timed]
    signals = [np.array(problem.signal(t)) for t in full[:50]]
    times = {
        "prior_us": _time(problem.prior_transform, cubes),
        "signal_us": _time(problem.signal, full),
        "likelihood_us": _time_of_spectra(problem, signals, timed[0]),
        "total_us": _time(problem.loglikelihood, timed),
    }
    sampler = make_sampler(resolve(config, problem))
    calls, signals_expected = sampler.calls(problem.space.n_slow) or (None, None)
    report = {
        "parameters": len(problem.names),
        "channels": problem.n_channels,
        "sampler": sampler.label,
        "n_live": sampler.settings.n_live,
        "num_repeats": getattr(sampler.settings, "num_repeats", None),
        "finite_fraction": float(np.mean(good)),
        "best_loglike_of_draws": float(values[good].max()) if good.any() else None,
        **times,
        "calls_expected": calls,
        "signals_expected": signals_expected,
        "seconds_expected_on_one_core": None,
    }
    if calls is not None:
        spent = calls * (times["total_us"] + times["prior_us"] + 8.0) - (calls - signals_expected) * times["signal_us"]
        report["seconds_expected_on_one_core"] = 1e-6 * spent
    if problem.signal.emulator is not None and problem.spectra and good.any():
        report |= _emulator_report(config, problem)
    return report


def _warn_of_limits(problem, theta, good):
    """Warn about prior draws without a finite likelihood, and say which computed parameters are out of range."""
    if good.all():
        return
    said = []
    for name, (low, high) in problem.space.limits.items():
        column = problem.space.names.index(name)
        values = np.array([problem.space.complete(t)[column] for t in theta])
        outside = np.count_nonzero(~((values >= low) & (values <= high)))
        if outside:
            said.append(f"{name} is outside {low:.6g}..{high:.6g} at {outside}")
    why = f": {'; '.join(said)}" if said else ""
    warnings.warn(
        one_line(f"ln L is not finite at {np.count_nonzero(~good)} of {len(theta)} prior draws{why}", 380), stacklevel=3
    )


def _emulator_report(config, problem) -> dict:
    """Forecast of the emulation bias, from the emulator's test set if there is one, else from its recorded errors."""
    emulator, sigma = problem.signal.emulator, problem.white_sigma
    error = any(block.emulator_error for block in config.spectrum_blocks.values())
    recorded = emulator.record.get("test", {})
    report = {f"emulator_{what}_rms_mK": recorded[f"{what}_mK"] for what in ("mean", "p95") if recorded}
    test = shipped_test_set(config.emulator.file)
    sampled = any(p.name in problem.names for p in emulator.parameters)
    if test is not None and len(test) and sampled:
        # With the emulator error in the covariance, white noise is no longer white.
        return report | forecast(problem, test, None if error else sigma)
    if sigma is not None and recorded:
        n = problem.n_channels
        report |= {f"D_KL_bound_{what}": bound(recorded[f"{what}_mK"], sigma, n) for what in ("mean", "p95")}
    return report


def _time_of_spectra(problem, signals, theta) -> float:
    """Median time of the likelihoods of all spectra in microseconds."""
    parts = [(part, problem.values(theta, name)) for name, part in problem.spectral_likelihoods.items()]

    def evaluate(signal):
        for part, own in parts:
            part(signal, own)

    return _time(evaluate, signals)


def _time(function, arguments) -> float:
    """Median time of a call in microseconds, over three rounds of the arguments."""
    rounds = []
    for _ in range(3):
        start = time.perf_counter()
        for argument in arguments:
            function(argument)
        rounds.append((time.perf_counter() - start) / len(arguments))
    return 1e6 * float(np.median(rounds))
