"""Compare two posteriors, from any chains that anesthetic reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmfit.analysis.autocorrelation import effective_sizes, evenly_spaced, is_mcmc, knows_correlation
from lstmfit.analysis.chains import evidence
from lstmfit.analysis.divergence import (
    gaussian_divergence,
    independent_columns,
    nearest_neighbour_divergence,
    subset_size,
    with_error,
)
from lstmfit.analysis.foreign_chains import Chain, parameter_names, take_log10
from lstmfit.analysis.reweight import choose_points, effective_size
from lstmfit.errors import InputError, did_you_mean, listed

if TYPE_CHECKING:
    from anesthetic import Samples

MOST_NEIGHBOURS = 4000
"""Maximum number of samples in the nearest-neighbour estimate; more take longer and improve it little."""
FEW_TIMES = 50
"""A Markov chain with a smaller effective sample size is too short for its autocorrelation time to be reliable."""


class NothingInCommon(InputError):
    """Two chains share no parameter that varies in both."""


def align(a: Chain, b: Chain, log10: Sequence[str] = ()) -> tuple[Chain, Chain, list[str]]:
    """Convert two chains to the same parameters in the same space.

    Parameters
    ----------
    a, b : Chain
        The chains.
    log10 : sequence of str
        Columns to convert to log10, in addition to those of our own runs.

    Returns
    -------
    a, b : Chain
        The converted chains. A chain without names (no .paramnames) takes those of the other, in its order; if neither
        has names, columns are named by their numbers, as in anesthetic.
    names : list of str
        Parameters that both have and that vary, in the order of `b`.

    Raises
    ------
    InputError
        The chains share no parameter that varies, a name in `log10` is in neither, or a value is not finite.
    """
    a, b = _named_like(a, b), _named_like(b, a)
    for name in _common(a.samples, b.samples):
        _check_finite(a, name)
        _check_finite(b, name)
    out = []
    for chain in (a, b):
        wanted = [name for name in log10 if name not in chain.log10 and name in chain.samples]
        out.append(Chain(chain.label, take_log10(chain.samples, wanted), chain.log10 | set(wanted)))
    known = parameter_names(a.samples), parameter_names(b.samples)
    for name in log10:
        if name not in known[0] and name not in known[1]:
            raise InputError(f"--log10: no parameter {name!r} in either chain; {did_you_mean(name, known[1])}")
    common = _common(a.samples, b.samples)
    names = [n for n in common if all(_varies(c.samples, n) for c in out)]
    if common and not names:
        raise NothingInCommon(f"{a.label} and {b.label} only share {listed(common)}, none of which varies in both")
    if not names:
        raise NothingInCommon(
            f"the chains share no parameter: {a.label} has {listed(known[0])}, {b.label} has {listed(known[1])}"
        )
    _check_spaces(*out, names)
    return out[0], out[1], names


def _check_spaces(a: Chain, b: Chain, names: Sequence[str]) -> None:
    """Check that no parameter is log10 in one chain and linear in the other."""
    different = [n for n in names if (n in a.log10) != (n in b.log10)]
    linear = [n for n in different if _counted((b if n in a.log10 else a).samples, n).min() > 0]
    if linear:
        raise InputError(
            f"{listed(linear)} is in log10 in one chain only; add --log10 {','.join(linear)} if it is linear in the "
            "other"
        )
    # Values that are not positive must already be logarithms, in a chain from another program.


def _common(a: Chain, b: Chain) -> list[str]:
    known = set(parameter_names(a))
    return [name for name in parameter_names(b) if name in known]


def _counted(samples: Any, name: str) -> np.ndarray:
    """Values of non-zero weight; the others may be arbitrary."""
    return samples[name].to_numpy().astype(float)[samples.get_weights() > 0]


def _varies(samples: Any, name: str) -> bool:
    return bool(np.ptp(_counted(samples, name)) != 0)


def _check_finite(chain: Chain, name: str) -> None:
    values = _counted(chain.samples, name)
    n = int(np.sum(~np.isfinite(values)))
    if n:
        raise InputError(
            f"{chain.label}: {n} of {len(values)} values of {name} are NaN or infinite; remove these rows, or the "
            "column, from the file"
        )


def _numbers(chain: Chain) -> list:
    """Columns that have a number instead of a name."""
    columns = [c[0] if isinstance(c, tuple) else c for c in chain.samples.columns]
    return [c for c in columns if isinstance(c, (int, np.integer))]


def _named_like(chain: Chain, other: Chain) -> Chain:
    numbers, names = _numbers(chain), parameter_names(other.samples)
    if numbers and not names:
        names = [str(number) for number in _numbers(other)]
        if len(names) != len(numbers):
            raise InputError(
                f"{chain.label} has {len(numbers)} columns without names and {other.label} has {len(names)}; "
                "add a .paramnames file to each chain"
            )
    if not numbers or len(numbers) < len(names):
        return chain
    renamed = chain.samples.copy()
    for number, name in zip(numbers, names):
        renamed[name] = renamed[number].to_numpy()
    return Chain(chain.label, renamed, chain.log10)


def compare(a: "Samples", b: "Samples", names: list[str], seed: int = 0) -> dict:
    """Compare two weighted samples; if A is emulated and B is the truth, this gives the emulation bias.

    Parameters
    ----------
    a, b : anesthetic.Samples
        Samples in the same space.
    names : list of str
        Parameters to compare; if empty, only the evidences are compared.
    seed : int
        Seed for equal-weight draws, random subsets and prior volumes.

    Returns
    -------
    dict
        ``parameters``: by name, ``bias`` = ``|mean_a - mean_b|`` / std_b with ``bias_err``, ``difference_sigma`` =
        ``|mean_a - mean_b|`` / sqrt(std_a^2 + std_b^2), ``ks`` (Kolmogorov-Smirnov distance of the weighted marginals)
        and ``ks_p`` with the effective sample sizes ``ess_a``, ``ess_b``, ``width_ratio`` = std_a / std_b, means and
        standard deviations. ``D_KL_gaussian``, ``D_KL`` and their errors are D_KL(B || A) in the Gaussian approximation
        and by nearest neighbours, of the parameters ``D_KL_parameters``: those that neither chain marks as derived and
        that are not linear functions of others; None if there are none. With few points ``D_KL`` and
        the errors are None. ``*_reverse`` are D_KL(A || B). ``mean_bias`` is the mean over the parameters. ``logZ_a``,
        ``logZ_b``, ``dlogZ`` = logZ_b - logZ_a and their errors are None for chains without an evidence. ``ess_a``,
        ``n_a``, ...: the smallest effective sample size and the number of rows. ``only_a``, ``only_b``, ``constant``:
        parameters that are not compared; ``notes``: remarks in words.

    Notes
    -----
    Effective sample sizes account for the autocorrelation of Markov chains and of our merged PolyChord runs
    (`lstmfit.analysis.autocorrelation.effective_sizes`), those of other samples only for the weights. For the
    nearest-neighbour estimate a Markov chain is thinned to its effective sample size, so that successive rows are not
    mistaken for near neighbours in parameter space.

    The errors of D_KL are the scatter over random subsets of equal-weight samples. Merged PolyChord runs have smaller
    subsets (`lstmfit.analysis.divergence.with_error`), for the inflation of the variance of a mean, averaged over the
    parameters: D_KL depends on all of them.
    """
    rng = np.random.default_rng(seed)
    w = [s.get_weights() / s.get_weights().sum() for s in (a, b)]
    # Rows of zero weight may have any values, including NaN.
    x = [np.where(v[:, None] > 0, s[list(names)].to_numpy(), 0.0) for s, v in zip((a, b), w)]
    sizes, times = zip(*(effective_sizes(s, names) for s in (a, b)))
    parameters = {name: _figures(*(p[:, i] for p in x), *w, *(n[i] for n in sizes)) for i, name in enumerate(names)}
    mean = float(np.mean([p["bias"] for p in parameters.values()])) if parameters else None
    figures = {"parameters": parameters, "mean_bias": mean}
    free, notes = _free(names, (a, b), x, w)
    figures["D_KL_parameters"] = [names[i] for i in free]
    x = [p[:, free] for p in x]
    equal = _equal_weight((a, b), x, w, [size[free] for size in sizes], rng)
    inflation = [_inflation(s, size[free]) for s, size in zip((a, b), sizes)]
    parts = list(zip(x, w, equal, inflation))
    figures |= _divergences("", *reversed(parts), rng)
    figures |= _divergences("_reverse", *parts, rng)
    for label, samples, size, points in zip("ab", (a, b), sizes, x):
        figures[f"logZ_{label}"], figures[f"logZ_{label}_err"] = evidence(samples, 500, seed)
        smallest = size.min() if len(size) else effective_size(samples.get_weights())
        figures[f"ess_{label}"], figures[f"n_{label}"] = float(smallest), len(points)
    known = figures["logZ_a"] is not None and figures["logZ_b"] is not None
    figures["dlogZ"] = figures["logZ_b"] - figures["logZ_a"] if known else None
    figures["dlogZ_err"] = float(np.hypot(figures["logZ_a_err"], figures["logZ_b_err"])) if known else None
    for label, samples, size, time in zip("AB", (a, b), sizes, times):
        notes += _chain_notes(label, samples, names, size, time)
    left_out = _left_out(a, b)
    words = {"only_a": "only in A", "only_b": "only in B", "constant": "constant"}
    notes += [f"{words[key]}: {', '.join(found)}" for key, found in left_out.items() if found]
    return figures | left_out | {"notes": notes}


def _figures(
    x: np.ndarray, y: np.ndarray, weights_x: np.ndarray, weights_y: np.ndarray, size_x: float, size_y: float
) -> dict[str, float]:
    """Figures of one parameter."""
    means = weights_x @ x, weights_y @ y
    stds = np.sqrt(weights_x @ (x - means[0]) ** 2), np.sqrt(weights_y @ (y - means[1]) ** 2)
    shift, width = (means[0] - means[1]) / stds[1], stds[0] / stds[1]
    distance = ks_distance(x, weights_x, y, weights_y)
    return {
        "bias": float(abs(shift)),
        "bias_err": float(np.sqrt(width**2 / size_x + (1.0 + 0.5 * shift**2) / size_y)),
        "shift": float(shift),
        "difference_sigma": float(abs(shift) / np.hypot(1.0, width)),
        "ks": distance,
        "ks_p": ks_probability(distance, size_x, size_y),
        "width_ratio": float(width),
        "mean_a": float(means[0]),
        "mean_b": float(means[1]),
        "std_a": float(stds[0]),
        "std_b": float(stds[1]),
        "ess_a": float(size_x),
        "ess_b": float(size_y),
    }


def _free(names: Sequence[str], samples: Any, x: np.ndarray, w: np.ndarray) -> tuple[list[str], list[str]]:
    """Indices of the independent parameters, and notes about the others."""
    derived = {name for s in samples for name in s.attrs.get("derived", ())}
    sampled = [i for i, name in enumerate(names) if name not in derived]
    free = sampled
    for p, v in zip(x, w):
        covariance = np.atleast_2d(np.cov(p[:, free], rowvar=False, aweights=v)) if free else np.empty((0, 0))
        free = [free[i] for i in independent_columns(covariance)]
    out = {
        "derived": [name for name in names if name in derived],
        "linear in others": [names[i] for i in sampled if i not in free],
    }
    return free, [f"not in D_KL, {why}: {', '.join(which)}" for why, which in out.items() if which]


def _equal_weight(samples: Any, x: np.ndarray, w: np.ndarray, sizes: Any, rng: np.random.Generator) -> Any:
    """Equal-weight samples of both chains.

    Both have the same number of samples: the error of nearest-neighbour distances at edges and in tails depends on
    their number, and cancels where the two are alike. Both use the same random numbers, so that a chain compared with
    itself gives identical samples.
    """
    markov = [is_mcmc(s) for s in samples]
    n = min(_equal_size(v, size.min(initial=np.inf) if m else np.inf) for v, size, m in zip(w, sizes, markov))
    seed, out = rng.integers(2**32), []
    for p, v, m in zip(x, w, markov):
        same = np.random.default_rng(seed)
        out.append(p[evenly_spaced(v, n, same) if m else choose_points(v, n, same)[0]])
    return out


def _equal_size(weights: np.ndarray, most: int) -> int:
    return int(min(1.0 / weights.max(), MOST_NEIGHBOURS, np.count_nonzero(weights), most))


def _inflation(samples: Any, sizes: np.ndarray) -> float:
    """Factor by which the variance of a mean exceeds that of as many independent points, averaged over parameters."""
    # A Markov chain is thinned to independent rows.
    return 1.0 if is_mcmc(samples) or not len(sizes) else float(np.mean(effective_size(samples.get_weights()) / sizes))


def _chain_notes(label: str, samples: Any, names: Sequence[str], sizes: Any, times: Any) -> list[str]:
    """Notes about a Markov chain, or about points whose correlation is not known."""
    lines = []
    if names and not knows_correlation(samples):
        lines.append(f"{label}: a single run of nested sampling; errors and p assume that its points are independent")
    if samples.attrs.get("burn_in"):
        lines.append(f"{label}: first {100 * samples.attrs['burn_in']:g} % of each chain discarded as burn-in")
    slowest = int(np.argmax(times)) if len(times) else None
    if slowest is not None and times[slowest] > 2.0:
        line = f"{label}: Markov chain, autocorrelation time up to {times[slowest]:.0f} rows ({names[slowest]})"
        few = "; the chain is too short to measure it, so the errors are rough" if sizes.min() < FEW_TIMES else ""
        lines.append(line + few)
    return lines


def _left_out(a: Chain, b: Chain) -> dict[str, list[str]]:
    """Parameters that are in one chain only, or that do not vary in both."""
    known = [parameter_names(s) for s in (a, b)]
    return {
        "only_a": [name for name in known[0] if name not in known[1]],
        "only_b": [name for name in known[1] if name not in known[0]],
        "constant": [name for name in _common(a, b) if not (_varies(a, name) and _varies(b, name))],
    }


def _divergences(
    ending: str,
    p: tuple[np.ndarray, np.ndarray, np.ndarray, float],
    q: tuple[np.ndarray, np.ndarray, np.ndarray, float],
    rng: np.random.Generator,
) -> dict[str, float | None]:
    """D_KL(P || Q): Gaussian from the weighted samples, and by nearest neighbours if there are enough samples.

    P and Q are given as points, weights, equal-weight points and the inflation of the variance of their means.
    """

    def gaussian(a: np.ndarray, b: np.ndarray) -> float:
        parts = [(s.mean(axis=0), np.atleast_2d(np.cov(s, rowvar=False))) for s in (a, b)]
        return gaussian_divergence(*parts[0], *parts[1])

    d = p[0].shape[1]
    if d == 0:
        return {f"{key}{ending}{err}": None for key in ("D_KL_gaussian", "D_KL") for err in ("", "_err")}
    moments = [(v @ s, np.atleast_2d(np.cov(s, rowvar=False, aweights=v))) for s, v, *_ in (p, q)]
    out = {f"D_KL_gaussian{ending}": gaussian_divergence(*moments[0], *moments[1])}
    equal, inflation = [p[2], q[2]], (p[3], q[3])
    # Subsets of both samples must still determine a covariance.
    if min(subset_size(len(np.unique(s, axis=0)), f) for s, f in zip(equal, inflation)) < 2 * (d + 2):
        return out | {f"D_KL_gaussian{ending}_err": None, f"D_KL{ending}": None, f"D_KL{ending}_err": None}
    out[f"D_KL_gaussian{ending}_err"] = with_error(gaussian, *equal, rng, inflation=inflation)[1]
    value, error = with_error(nearest_neighbour_divergence, *equal, rng, inflation=inflation)
    return out | {f"D_KL{ending}": value, f"D_KL{ending}_err": error}


def ks_distance(x: np.ndarray, weights_x: np.ndarray, y: np.ndarray, weights_y: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance: the largest difference of two weighted cumulative distributions."""
    points = np.sort(np.concatenate([x, y]))

    def cumulative(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        order = np.argsort(values)
        sums = np.concatenate([[0.0], np.cumsum(weights[order])])
        return sums[np.searchsorted(values[order], points, side="right")] / sums[-1]

    return float(np.abs(cumulative(x, weights_x) - cumulative(y, weights_y)).max())


def ks_probability(distance: float, size_x: float, size_y: float) -> float:
    """Probability of a larger Kolmogorov-Smirnov distance, for effective sample sizes (Stephens 1970)."""
    from scipy.special import kolmogorov

    n = np.sqrt(size_x * size_y / (size_x + size_y))
    return float(kolmogorov((n + 0.12 + 0.11 / n) * distance))
