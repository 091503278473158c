"""How many independent samples the rows of a Markov chain are worth."""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from lstmfit.analysis.reweight import effective_size

WINDOW = 5
"""Autocorrelation times that Sokal's window is long."""
SORTED = 0.9
"""Part of the steps in which ln L rises beyond which the rows are sorted by it, and no Markov chain."""


def is_mcmc(samples) -> bool:
    """Whether the rows are a Markov chain, each of them near the one before.

    Nested samples are not, nor are weighted points whose sampler worked out an evidence (our own nautilus runs), nor
    rows in the order of their likelihood (what is left of PolyChord's or MultiNest's files).

    Parameters
    ----------
    samples : anesthetic.Samples
        As `lstmfit.analysis.chains.read_samples` gives them.
    """
    if hasattr(samples, "logZ") or "evidence" in samples.attrs:
        return False
    return "logL" not in samples or float(np.mean(np.diff(samples["logL"].to_numpy()) > 0)) < SORTED


def chain_rows(samples) -> list[np.ndarray]:
    """Rows of each chain that the samples were put together from (anesthetic's column ``chain``)."""
    if "chain" not in samples:
        return [np.arange(len(samples))]
    numbers = samples["chain"].to_numpy()
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def autocorrelation_time(series) -> float:
    """Integrated autocorrelation time 1 + 2 sum rho(t), in rows, never below 1.

    The sum ends at the first t above five times its own value (Sokal 1997, Monte Carlo methods in statistical
    mechanics, section 3), where what follows would add more noise than signal.

    Parameters
    ----------
    series : list of numpy.ndarray
        (n_i,) values of each chain, the common mean taken away.
    """
    length = max(len(y) for y in series)
    size = next_fast_len(2 * length, real=True)
    covariance = sum(irfft(np.abs(rfft(y, size)) ** 2, size)[:length] for y in series)
    if not covariance[0] > 0:
        return 1.0
    times = 2.0 * np.cumsum(covariance / covariance[0]) - 1.0
    beyond = np.flatnonzero(np.arange(length) >= WINDOW * times)
    return max(1.0, float(times[beyond[0] if len(beyond) else -1]))


def effective_sizes(samples, names) -> tuple[np.ndarray, np.ndarray]:
    """Independent samples that the mean of each parameter is worth, and its autocorrelation time in rows.

    For a Markov chain var(x) / var(mean), with var(mean) = tau sum (w (x - mean))^2: tau is that of the weighted
    deviations w (x - mean), so that weights may be repetitions or anything else; at most Kish's size. For independent
    points Kish's size and 1.

    Parameters
    ----------
    samples : anesthetic.Samples
        One or several chains.
    names : list of str
        Parameters.

    Returns
    -------
    sizes, times : numpy.ndarray
        (n_names,) each.
    """
    weights = samples.get_weights() / samples.get_weights().sum()
    kish = effective_size(weights)
    if not is_mcmc(samples):
        return np.full(len(names), kish), np.ones(len(names))
    rows, found = chain_rows(samples), []
    for name in names:
        x = np.where(weights > 0, samples[name].to_numpy(), 0.0)
        deviation = x - weights @ x
        pull = weights * deviation
        time = autocorrelation_time([pull[r] for r in rows])
        spread = time * np.sum(pull**2)
        found.append((min(weights @ deviation**2 / spread, kish) if spread > 0 else 1.0, time))
    sizes, times = np.array(found, dtype=float).reshape(-1, 2).T
    return sizes, times


def evenly_spaced(weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `n` samples at equal steps of the sum of the weights: a thinned chain, all of the same weight.

    Parameters
    ----------
    weights : numpy.ndarray
        (n_rows,), in the order of the chain.
    n : int
        Samples wanted; up to sum w / max w of them are different rows.
    rng : numpy.random.Generator
        For where to begin.
    """
    sums = np.cumsum(weights)
    return np.searchsorted(sums, (np.arange(n) + rng.random()) / n * sums[-1], side="right").clip(max=len(sums) - 1)
