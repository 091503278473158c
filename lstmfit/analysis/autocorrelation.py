"""Effective sample sizes of posterior means, with the autocorrelation of Markov chains and of nested sampling."""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from lstmfit.analysis.reweight import effective_size

WINDOW = 5
"""Length of Sokal's window in autocorrelation times."""
SORTED = 0.9
"""Rows are taken to be sorted by ln L, not a Markov chain, if ln L rises in more than this fraction of the steps."""


def is_mcmc(samples) -> bool:
    """Whether the rows are a Markov chain, in which neighbouring rows are correlated.

    Not Markov chains are nested samples, weighted samples whose sampler computed an evidence (our own nautilus runs),
    and rows sorted by likelihood (incomplete files of PolyChord or MultiNest).

    Parameters
    ----------
    samples : anesthetic.Samples
        Samples as returned by `lstmfit.analysis.chains.read_samples`.
    """
    if hasattr(samples, "logZ") or "evidence" in samples.attrs:
        return False
    return "logL" not in samples or float(np.mean(np.diff(samples["logL"].to_numpy()) > 0)) < SORTED


def chain_rows(samples) -> list[np.ndarray]:
    """Rows of each of the chains that the samples consist of (anesthetic's column ``chain``)."""
    if "chain" not in samples:
        return [np.arange(len(samples))]
    numbers = samples["chain"].to_numpy()
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def autocorrelation_time(series) -> float:
    """Integrated autocorrelation time 1 + 2 sum rho(t) in rows, at least 1.

    The sum is truncated at the first t that exceeds five times its own value (Sokal 1997, Monte Carlo methods in
    statistical mechanics, section 3), beyond which it would add more noise than signal.

    Parameters
    ----------
    series : list of numpy.ndarray
        (n_i,) values of each chain, with the common mean subtracted.
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
    """Effective sample size of the mean of each parameter, and its autocorrelation time in rows.

    For a Markov chain the size is var(x) / var(mean), at most Kish's, with var(mean) = tau sum (w (x - mean))^2. The
    autocorrelation time tau is that of the weighted deviations w (x - mean), so the weights may be multiplicities or
    importance weights. For other points the size is Kish's and tau is 1; if they are merged runs of nested sampling,
    the size is divided by the square of their inflation (`lstmfit.sampling.mean_errors`).

    Parameters
    ----------
    samples : anesthetic.Samples
        One or several chains.
    names : list of str
        Names of the parameters.

    Returns
    -------
    sizes, times : numpy.ndarray
        (n_names,) each.
    """
    weights = samples.get_weights() / samples.get_weights().sum()
    kish = effective_size(weights)
    if not is_mcmc(samples):
        known = samples.attrs.get("mean_inflation") or {}
        inflation = np.array([known.get(name, 1.0) for name in names])
        return kish / inflation**2, np.ones(len(names))
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


def knows_correlation(samples) -> bool:
    """Whether `effective_sizes` include the correlation of points; not for a single run of nested sampling.

    Parameters
    ----------
    samples : anesthetic.Samples
        Samples as returned by `lstmfit.analysis.chains.read_samples`.
    """
    return not hasattr(samples, "logZ") or samples.attrs.get("mean_inflation") is not None


def evenly_spaced(weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Thin a chain to `n` samples of equal weight, at equal steps of the cumulative weight.

    Parameters
    ----------
    weights : numpy.ndarray
        (n_rows,) weights in the order of the chain.
    n : int
        Number of samples; up to sum w / max w of them are different rows.
    rng : numpy.random.Generator
        Random generator for the offset of the first step.

    Returns
    -------
    numpy.ndarray
        (n,) rows.
    """
    sums = np.cumsum(weights)
    return np.searchsorted(sums, (np.arange(n) + rng.random()) / n * sums[-1], side="right").clip(max=len(sums) - 1)
