"""What can be known before a run: does everything evaluate, how long will it take, what can the emulator spoil."""

import time

import numpy as np

from lstmfit import config as run_file
from lstmfit.driver import polychord_settings, resolve
from lstmfit.problem import build

CALLS_PER_LIVE_REPEAT = 55.0
"""Likelihood calls of a PolyChord run over n_live * num_repeats: 42 at 50 mK to 92 at 5 mK in 7 parameters."""


def check_run(source, n_draws: int = 1000, seed: int = 0) -> dict:
    """Build a run, evaluate it on prior draws and time its parts; nothing is sampled and nothing written.

    Parameters
    ----------
    source : path, str or mapping
        See `lstmfit.config.load`.
    n_draws : int
        Prior draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict
        Times in microseconds, the finite fraction, the predicted calls and seconds, and the bound on D_KL in nats:
        N/2 (rms / sigma)^2 with the emulator's mean and 95 % rms error on its test set (Bevins et al. 2025,
        arXiv:2503.13263, Eq. limit-dkl).

    Raises
    ------
    InputError
        As `lstmfit.problem.build`.
    """
    config = run_file.load(source)
    problem = build(config)
    rng = np.random.default_rng(seed)
    theta = problem.prior.sample(n_draws, rng)
    problem.loglikelihood(theta[0])
    values = np.array([problem.loglikelihood(t)[0] for t in theta])
    cubes = rng.uniform(size=(n_draws, len(problem.prior)))
    full = [problem.signal_parameters(t).copy() for t in theta]
    signals, own = [np.array(problem.signal(t)) for t in full[:50]], problem.values(theta[0])
    times = {
        "prior_us": _time(problem.prior_transform, cubes),
        "signal_us": _time(problem.signal, full),
        "likelihood_us": _time(lambda s: problem.likelihood(s, own), signals),
        "total_us": _time(problem.loglikelihood, theta),
    }
    settings = polychord_settings(resolve(config, problem, "."))
    calls = CALLS_PER_LIVE_REPEAT * settings.n_live * settings.num_repeats
    report = {
        "parameters": len(problem.names),
        "channels": len(problem.spectrum.frequency),
        "n_live": settings.n_live,
        "num_repeats": settings.num_repeats,
        "finite_fraction": float(np.mean(np.isfinite(values))),
        "best_loglike_of_draws": float(np.nanmax(values)),
        **times,
        "calls_expected": calls,
        "seconds_expected_on_one_core": calls * (times["total_us"] + times["prior_us"] + 8.0) * 1e-6,
    }
    emulator, sigma = problem.signal.emulator, config.likelihood.global_signal.noise.sigma
    if emulator is not None and "test" in emulator.record and isinstance(sigma, float):
        n = len(problem.spectrum.frequency)
        for what in ("mean", "p95"):
            rms = emulator.record["test"][f"{what}_mK"]
            report[f"emulator_{what}_rms_mK"] = rms
            report[f"D_KL_bound_{what}"] = 0.5 * n * (rms / sigma) ** 2
    return report


def _time(function, arguments) -> float:
    """Median microseconds of a call, of three rounds over the arguments."""
    rounds = []
    for _ in range(3):
        start = time.perf_counter()
        for argument in arguments:
            function(argument)
        rounds.append((time.perf_counter() - start) / len(arguments))
    return 1e6 * float(np.median(rounds))
